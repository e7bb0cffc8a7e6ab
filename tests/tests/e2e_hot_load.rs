//! The load and its judge: a copy of a frozen filesystem passes, and one of a filesystem that went on does not.

use halfhour_tests::load::{self, Load, Verdict};
use halfhour_tests::{Filesystem, LoopDisk, MIB, Scratch, device, need, tool};
use imager_disk::{Access, Device, System};
use imager_journal::{Freeze, FreezeOptions, Freezer};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// The size of a filesystem, in MiB: XFS is not made smaller.
const SIZE: u64 = 320;

fn freezer(filesystem: &Filesystem, scratch: &Scratch) -> Freezer {
    let device = Device::open(Path::new(&filesystem.disk.path), Access::Read, None).expect("it opens");
    let options = FreezeOptions {
        // A whole copy takes longer than what a capture has left to do.
        budget: Duration::from_secs(60),
        limit: Duration::from_secs(60),
        guard: [halfhour_tests::binary::built("halfhour-freezer").into(), OsString::from("freeze-guard")]
            .to_vec(),
        records: scratch.path("records"),
    };
    Freezer::open(System::new(), &[device.number().expect("a device")], options).expect("it opens")
}

fn copy(from: &Filesystem, to: &str) {
    let (from, to) = (format!("if={}", from.disk.path), format!("of={to}"));
    tool("dd", &[&from, &to, "bs=1M", "iflag=direct", "conv=notrunc", "status=none"]);
}

/// A load on a filesystem, and an image of it that was copied meanwhile.
struct Hot {
    kind: &'static str,
    scratch: Scratch,
    image: String,
    /// Before and after the instant that the image should be of.
    window: (u64, u64),
}

impl Hot {
    /// Made while it was frozen, or not.
    fn copy(kind: &'static str, frozen: bool) -> Option<Self> {
        if !need::programs(&load::PROGRAMS) {
            return None;
        }
        let scratch = Scratch::new();
        let mut filesystem = Filesystem::make(&scratch, "a", kind, SIZE)?;
        let image = scratch.file("copy.img", SIZE * MIB);
        let load = Load::start(&filesystem.at, &scratch.folder("log"), &load::ALL);
        load.wait_for(12);
        let mut freezer = freezer(&filesystem, &scratch);
        freezer.sync().expect("it syncs");
        let before = load::now();
        if frozen {
            let took = freezer.frozen(&mut |_| copy(&filesystem, &image)).expect("it freezes");
            println!("{kind}: {took:?}");
        } else {
            copy(&filesystem, &image);
        }
        let after = load::now();
        std::thread::sleep(Duration::from_millis(300));
        load.stop();
        filesystem.unmount();
        Some(Self { kind, scratch, image, window: (before, after) })
    }

    fn judged(&self) -> Verdict {
        let (log, (before, after)) = (self.scratch.path("log"), self.window);
        let verdict = load::judge_image(&self.image, self.kind, &log, before, after, &self.scratch);
        println!(
            "{}: {} faults, {:?}; durable {}",
            self.kind,
            verdict.faults.len(),
            verdict.faults.first(),
            verdict.durable
        );
        verdict
    }
}

#[test]
fn a_copy_of_a_frozen_filesystem_is_of_that_instant() {
    for kind in need::sample("filesystems", &["ext4", "xfs", "btrfs"], 1) {
        let Some(hot) = Hot::copy(kind, true) else { return };
        let verdict = hot.judged();
        assert!(verdict.faults.is_empty(), "{kind}: {:#?}", verdict.faults);
    }
}

#[test]
fn a_copy_of_a_running_filesystem_is_found_out() {
    let Some(hot) = Hot::copy("ext4", false) else { return };
    assert!(!hot.judged().faults.is_empty());
}

#[test]
fn what_no_checker_sees_is_found_out() {
    let Some(hot) = Hot::copy("ext4", true) else { return };
    let changes = [
        ("direct", "dd if=/dev/zero of=direct bs=4096 count=512 conv=notrunc 2>&1"),
        ("mapped", "dd if=/dev/urandom of=mapped bs=1 count=1 seek=409700 conv=notrunc 2>&1"),
        ("missing", "cd files; rm $(ls | sed -n $(($(ls | wc -l) / 2))p)"),
        ("of later", "echo >files/900000"),
        (
            "wal",
            "python3 -c \"import sqlite3 as s; s.connect('wal.db').executescript('delete from ledger where n > 1')\"",
        ),
        ("git", "find git/.git/objects -type f | head -n 9 | xargs rm -f"),
    ];
    let (at, log, (before, after)) = (hot.scratch.path("changed"), hot.scratch.path("log"), hot.window);
    for (word, change) in changes {
        let disk =
            LoopDisk::attach(&hot.scratch.copy(&hot.image, "changed.img"), 512).expect("a loop device");
        let _mounted = device::mount(&disk.path, &at, "noatime");
        let unchanged = load::judge_mounted(&at, &log, before, after);
        assert!(unchanged.faults.is_empty(), "{:#?}", unchanged.faults);
        tool("sh", &["-ec", &format!("cd {}; {change}", at.display())]);
        let faults = load::judge_mounted(&at, &log, before, after).faults;
        println!("{word}: {} faults, {:?}", faults.len(), faults.first());
        assert!(!faults.is_empty() && faults.iter().all(|fault| fault.contains(word)), "{word}: {faults:#?}");
    }
}
