//! What a repository on a file server must stand, whatever the protocol: the server dying and coming back, the program
//! dying, and everything that can be wrong with the share.

use halfhour_tests::binary::{self, built};
use halfhour_tests::file_server::{Export, FileServer};
use halfhour_tests::guest::{Builder, Disk, Guest};
use halfhour_tests::{MIB, Scratch, judge, junk, need, recipe};
use serde_json::Value;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// A share of a server, and how guests reach it.
pub(crate) struct Setting {
    /// Where the server has its files.
    pub(crate) scratch: Scratch,
    /// The server.
    pub(crate) server: FileServer,
    /// URL of the share, without a folder.
    pub(crate) url: String,
    /// The module that guests need.
    pub(crate) module: &'static str,
    /// Variables that `imager` needs.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// Shell that says `connected` while the kernel has anything to do with the server.
    pub(crate) connections: &'static str,
}

/// A folder that may be written.
pub(crate) fn export(scratch: &Scratch, name: &'static str) -> Export {
    Export { name, folder: scratch.folder(name), is_writable: true }
}

impl Setting {
    /// A guest that reaches the share.
    pub(crate) fn boot(&self, builder: Builder) -> Guest {
        let mut guest = builder.network().module(self.module).boot();
        self.variables.iter().for_each(|(name, value)| guest.set(name, value));
        guest
    }

    /// The contract of all shares; every client is a mount of its own.
    pub(crate) fn conforms(&self) {
        let Some(builder) = Guest::builder() else { return };
        let mut guest = self.boot(builder.program(built("halfhour-conformance")));
        println!("{}", guest.ok(&["halfhour-conformance", &format!("{}/deep/er", self.url)]));
        self.assert_nothing_is_left(&mut guest);
        guest.end();
    }

    /// A disk is captured and put back while the server dies and comes back, and the program is killed.
    pub(crate) fn survives(&mut self) {
        let Some(builder) = Guest::builder() else { return };
        let disk = recipe::machine(&self.scratch, "machine.img");
        let original = self.scratch.copy(&disk, "original.img");
        let builder = builder.program(binary::imager()).disk(&disk, Disk::Virtio, "SERVER1");
        let mut guest = self.boot(builder);
        guest.set("IMAGER_REPO", &format!("{}/images/a", self.url));
        guest.expect_node("/dev/vda4");
        guest.imager(0, &["init"]);
        self.dies_with_the_program(&mut guest);
        self.comes_back(&mut guest, &CAPTURE, 0);
        self.stays_away(&mut guest);
        let report = guest.imager(0, &["capture", "/dev/vda", "--machine", "m", "--data", "used"]);
        assert_eq!(report["problems"], Value::Array(Vec::new()), "{report}");
        guest.imager(0, &["verify", "--all", "--read-data"]);
        // The operating system is lost and comes back, again with the server away for a while.
        guest.sh("dd if=/dev/urandom of=/dev/vda2 bs=1M count=24 conv=fsync 2>&1");
        let restore = ["--limit", "3M", "restore", "m", "--to", "serial:SERVER1", "--yes"];
        self.comes_back(&mut guest, &restore, 0);
        self.assert_nothing_is_left(&mut guest);
        guest.end();
        let (start, len) = (9 * MIB, 24 * MIB);
        let parts = [&original, &disk].map(|image| {
            let to = format!("{image}.root");
            judge::extract(image, start, len, &to);
            to
        });
        judge::assert_same_filesystem(&parts[0], &parts[1], "ext4", &self.scratch, "the root");
    }

    /// The server dies in the middle of a command, and is back before patience ends.
    fn comes_back(&mut self, guest: &mut Guest, words: &[&str], code: i32) {
        let job = guest.start(&[&["imager"], words].concat());
        guest.process(&job);
        thread::sleep(Duration::from_secs(3));
        self.server.kill();
        thread::sleep(Duration::from_secs(2));
        self.server.restart();
        let ran = guest.wait(&job);
        println!("{}: {}", ran.command, ran.text());
        ran.expect_code(code);
    }

    /// The server dies and stays away: the command ends, and says that it can be run again.
    fn stays_away(&mut self, guest: &mut Guest) {
        let job = guest.start(&[
            "imager",
            "--patience",
            "5s",
            "--limit",
            "1M",
            "capture",
            "/dev/vda",
            "--machine",
            "n",
            "--data",
            "used",
            "--json",
        ]);
        guest.process(&job);
        thread::sleep(Duration::from_secs(3));
        self.server.kill();
        let ran = guest.wait(&job);
        println!("{}: {}", ran.command, ran.text());
        ran.expect_code(5);
        self.server.restart();
    }

    /// The program is killed, once with the server there and once without: no mount stays, no process hangs.
    fn dies_with_the_program(&mut self, guest: &mut Guest) {
        // Waiting for a server that is gone takes a minute; every run does that below, by patience.
        for is_there in if need::full() { &[true, false][..] } else { &[true] } {
            let job = guest.start(&[&["imager"][..], &CAPTURE].concat());
            let process = guest.process(&job);
            thread::sleep(Duration::from_secs(2));
            assert!(guest.sh(self.connections).contains("connected"), "it is in the middle of it");
            if !*is_there {
                self.server.kill();
            }
            guest.ok(&["kill", "-KILL", &process]);
            assert_eq!(guest.wait(&job).code, -1, "killed");
            self.assert_nothing_is_left(guest);
            if !*is_there {
                self.server.restart();
            }
        }
    }

    fn assert_nothing_is_left(&self, guest: &mut Guest) {
        let line = format!(
            "cat /proc/self/mountinfo; for n in $(seq 600); do {} > /tmp/left; grep -q connected /tmp/left || exit 0; \
             sleep 0.1; done; echo STILL; cat /tmp/left",
            self.connections
        );
        let said = guest.sh(&line);
        assert!(!said.contains("STILL") && !said.contains("cifs") && !said.contains("nfs"), "{said}");
    }

    /// What `imager init` says to a URL that cannot work: its exit status, and a part of the message.
    pub(crate) fn says(&self, guest: &mut Guest, url: &str, code: i32, words: &str) {
        let error = guest.imager(code, &["init", "--repo", url, "--patience", "0"])["error"].clone();
        let message = error["message"].as_str().unwrap_or_default();
        println!("{url}: {message} ({})", error["advice"]);
        assert!(message.contains(words), "{url}: {words:?} is not in {message:?}");
        assert!(!error["advice"].as_str().unwrap_or_default().is_empty(), "{error}");
    }
}

/// Slow enough to be in the middle of it for a while.
const CAPTURE: [&str; 8] = ["--limit", "1M", "capture", "/dev/vda", "--machine", "m", "--data", "used"];

/// A tiny filesystem that is full but for some KiB; a folder of it, and what unmounts it.
pub(crate) fn full(scratch: &Scratch) -> (Export, halfhour_tests::Undo) {
    let at = scratch.path("full");
    let mounted = halfhour_tests::device::tmpfs(&at, MIB);
    let filler = at.join("filler");
    std::fs::write(&filler, vec![1; 1020 << 10]).expect("a file");
    junk::over(Path::new(&filler), 0, 1000);
    (Export { name: "full", folder: at, is_writable: true }, mounted)
}
