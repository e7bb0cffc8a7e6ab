//! Captures and restores over HTTPS while the network breaks, stalls or is slow, the server is killed or restarted, or
//! its disk is full: nothing that was published is lost, nothing half done is visible, and the next run finishes. With
//! patience most of it is not even noticed.
//!
//! The faults come from a seed that is printed, and may be given in `HALFHOUR_SEED`. Twelve runs, or five hundred where
//! `HALFHOUR_FULL` is set.

use halfhour_tests::junk::{self, Junk};
use halfhour_tests::tool::{self, tool};
use halfhour_tests::{Fault, Imager, MIB, Proxy, Ran, Scratch, ShareServer, Undo, device, judge, need};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const DISK_MIB: u64 = 24;
/// What a capture sends, about, and a restore gets.
const CHANGED_MIB: u64 = 4;
/// The server's disk that fails, and how much of it goes on answering.
const SHARE_MIB: u64 = 400;
const SOUND_MIB: u64 = 40;
const SPACE_BYTES: u64 = 8 << 30;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Network(Fault),
    Killed,
    Restarted,
    /// The server's disk has this much room left.
    Full,
}

const TROUBLES: [Trouble; 9] = [
    Trouble::Network(Fault::Reset),
    Trouble::Network(Fault::Truncate),
    Trouble::Network(Fault::HalfClose),
    Trouble::Network(Fault::Stall),
    Trouble::Network(Fault::Delay(Duration::from_millis(4))),
    Trouble::Network(Fault::Reset),
    Trouble::Killed,
    Trouble::Restarted,
    Trouble::Full,
];

/// A memory disk for the server that can be made smaller; a folder where we may not mount.
struct Disk {
    folder: PathBuf,
    mount: Option<Undo>,
}

impl Disk {
    fn new(scratch: &Scratch) -> Self {
        let folder = scratch.folder("disk");
        let mount = need::root().then(|| device::tmpfs(&folder, SPACE_BYTES));
        Self { folder, mount }
    }

    /// Leaves room for so many bytes more than there are.
    fn leave(&self, bytes: u64) {
        let used = tool("df", &["--output=used", "-B1", &self.folder.display().to_string()]);
        let used: u64 = used.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("a number");
        self.resize(used + bytes);
    }

    fn resize(&self, bytes: u64) {
        tool("mount", &["-o", &format!("remount,size={bytes}"), &self.folder.display().to_string()]);
    }
}

struct Campaign {
    junk: Junk,
    // The server goes before the disk it lies on, and that before the folder it is mounted in.
    server: ShareServer,
    share: Disk,
    proxy: Proxy,
    scratch: Scratch,
    /// By way of the proxy, as the machine and as somebody who restores.
    imager: Imager,
    restorer: Imager,
    /// On the server's own disk, beside it.
    local: Imager,
    disk: String,
    /// What each published capture has to be.
    published: BTreeMap<String, String>,
    counts: BTreeMap<String, u32>,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let scratch = Scratch::new();
        let share = Disk::new(&scratch);
        let server = ShareServer::start(&share.folder.join("share"));
        let proxy = Proxy::start(server.address());
        let token = |name: &str, scope: &str| server.token(name, scope);
        let (admin, machine) = (token("boss", "admin"), token("m", "machine:m"));
        let url = PathBuf::from(server.url_through(proxy.address(), "default"));
        let imager = Imager::new(scratch.path("state"), url).with("IMAGER_TIMEOUT", "1");
        imager.with("IMAGER_TOKEN", &admin).ok(&["init"]);
        let restorer = imager.with("IMAGER_TOKEN", &token("restorer", "restore"));
        let imager = imager.with("IMAGER_TOKEN", &machine);
        let local = Imager::new(scratch.path("local"), server.folder().join("default"));
        let disk = scratch.junk("disk.img", DISK_MIB * MIB);
        let (junk, published, counts) = (Junk::new(seed), BTreeMap::new(), BTreeMap::new());
        Self { scratch, junk, server, share, proxy, imager, restorer, local, disk, published, counts }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.junk.number() % end
    }

    fn change(&mut self) {
        let mut piece = vec![0; 1 << 20];
        for _ in 0..CHANGED_MIB {
            self.junk.fill(&mut piece);
            let at = self.below(DISK_MIB) * MIB;
            junk::poke(Path::new(&self.disk), at, &piece);
        }
    }

    /// Runs it with trouble behind so many bytes.
    fn troubled(&mut self, imager: &Imager, arguments: &[&str], trouble: Trouble, after: u64) -> Ran {
        self.proxy.heal();
        match trouble {
            Trouble::Network(fault) => self.proxy.order(after, fault),
            Trouble::Killed | Trouble::Restarted => self.proxy.order(after, Fault::Signal),
            Trouble::Full => self.share.leave(after),
        }
        let mut command = imager.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        if matches!(trouble, Trouble::Killed | Trouble::Restarted) {
            while !self.proxy.has_fired() && child.try_wait().expect("it is ours").is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
            match trouble {
                Trouble::Killed => self.server.kill(),
                _ => self.server.terminate(),
            }
            let pause = self.below(300);
            std::thread::sleep(Duration::from_millis(pause));
            self.server.restart();
        }
        let output = child.wait_with_output().expect("it ends");
        if matches!(trouble, Trouble::Full) {
            self.share.resize(SPACE_BYTES);
        }
        let ran = Ran::new(format!("imager {} ({trouble:?} after {after})", arguments.join(" ")), &output);
        self.proxy.heal();
        ran
    }

    /// The captures that are there, by the server's own disk.
    fn captures(&self) -> Vec<String> {
        let list = self.local.json(&["list"]);
        let captures = list["captures"].as_array().expect("a list").iter();
        captures.map(|capture| capture["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Everything of before is there and whole, and at most one capture came.
    fn check(&mut self, digest: &str, ran: &Ran) -> usize {
        let now = self.captures();
        let new: Vec<_> = now.iter().filter(|id| !self.published.contains_key(*id)).cloned().collect();
        assert_eq!(now.len(), self.published.len() + new.len(), "a published capture is gone: {ran:?}");
        assert!(new.len() <= 1, "{ran:?}");
        for id in &new {
            self.published.insert(id.clone(), digest.to_owned());
        }
        self.local.ok(&["verify"]);
        new.len()
    }

    fn capture(&mut self, trouble: Trouble, is_patient: bool) {
        self.change();
        let digest = judge::whole(&self.disk);
        let after = self.below((CHANGED_MIB + 2) * MIB);
        let imager = patient(&self.imager, is_patient);
        let disk = self.disk.clone();
        let arguments = ["capture", &disk, "--machine", "m"];
        let ran = self.troubled(&imager, &arguments, trouble, after);
        assert_eq!(judge::whole(&self.disk), digest, "a capture only reads");
        self.ended(&ran, trouble, is_patient);
        let new = self.check(&digest, &ran);
        if ran.code == 0 {
            assert_eq!(new, 1, "{ran:?}");
        } else {
            let again = self.imager.run(&arguments);
            again.expect_code(0);
            assert_eq!(self.check(&digest, &again), 1, "run again, it is published");
        }
    }

    fn restore(&mut self, trouble: Trouble, is_patient: bool) {
        let which = usize::try_from(self.below(self.published.len() as u64)).expect("an index");
        let (id, digest) =
            self.published.iter().nth(which).map(|(id, d)| (id.clone(), d.clone())).expect("one");
        let target = self.scratch.name("target.img");
        if self.below(2) == 0 || !Path::new(&target).exists() {
            self.scratch.junk("target.img", DISK_MIB * MIB);
        }
        let after = self.below((DISK_MIB + 2) * MIB);
        let imager = patient(&self.restorer, is_patient);
        let capture = format!("id:{id}");
        let arguments = ["restore", &capture, "--bare-metal", "--to", &target, "--yes"];
        let ran = self.troubled(&imager, &arguments, trouble, after);
        self.ended(&ran, trouble, is_patient);
        if ran.code != 0 {
            self.restorer.ok(&arguments);
        }
        assert_eq!(judge::whole(&target), digest, "{ran:?}");
        self.check("", &ran);
    }

    /// How a run may end.
    fn ended(&mut self, ran: &Ran, trouble: Trouble, is_patient: bool) {
        let allowed: &[i32] = match trouble {
            Trouble::Full => &[0, 1],
            _ if is_patient => &[0],
            _ => &[0, 5],
        };
        assert!(allowed.contains(&ran.code), "{ran:?}");
        let patience = if is_patient { "patient" } else { "impatient" };
        *self.counts.entry(format!("{trouble:?}, {patience}: exit {}", ran.code)).or_default() += 1;
    }
}

fn patient(imager: &Imager, is_patient: bool) -> Imager {
    if is_patient { imager.with("IMAGER_PATIENCE", "60s") } else { imager.clone() }
}

#[test]
fn nothing_published_is_lost_whatever_fails() {
    let given = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given.unwrap_or_else(|| now.map_or(1, |now| now.as_secs()));
    println!("share faults: HALFHOUR_SEED={seed}");
    let mut campaign = Campaign::new(seed);
    let (disk, runs) = (campaign.disk.clone(), if need::full() { 500 } else { 12 });
    let first = campaign.imager.run(&["capture", &disk, "--machine", "m"]);
    let digest = judge::whole(&disk);
    assert_eq!(campaign.check(&digest, first.expect_code(0)), 1);
    for _ in 0..runs {
        let is_patient = campaign.below(2) == 0;
        let count = TROUBLES.len() - usize::from(campaign.share.mount.is_none());
        let which = usize::try_from(campaign.below(count as u64)).expect("an index");
        match (campaign.below(2), TROUBLES[which]) {
            (0, Trouble::Full) | (1, _) => campaign.capture(TROUBLES[which], is_patient),
            _ => campaign.restore(TROUBLES[which], is_patient),
        }
    }
    campaign.local.ok(&["verify", "--read-data"]);
    for (id, digest) in campaign.published.clone().iter().step_by(1 + campaign.published.len() / 12) {
        let target = campaign.scratch.file("last.img", DISK_MIB * MIB);
        campaign.local.ok(&["restore", &format!("id:{id}"), "--bare-metal", "--to", &target, "--yes"]);
        assert_eq!(&judge::whole(&target), digest);
    }
    println!("{runs} runs, {} captures published and whole", campaign.published.len());
    campaign.counts.iter().for_each(|(what, count)| println!("  {count:3} {what}"));
}

/// Most of the server's disk stops answering, and comes back as it was.
#[test]
fn a_server_whose_disk_fails_loses_nothing_published() {
    if !need::root() || !need::programs(&["mke2fs", "e2fsck", "losetup"]) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("share.img", SHARE_MIB * MIB);
    tool("mke2fs", &["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", &file]);
    let (node, device) = device::loop_over(&file);
    let at = scratch.path("mounted");
    let mounted = device::mount(&node.display().to_string(), &at, "rw");
    let mut server = ShareServer::start(&at.join("share"));
    let imager = Imager::new(scratch.path("state"), PathBuf::from(server.url("default")));
    let imager = imager.with("IMAGER_TOKEN", &server.token("boss", "admin"));
    let disk = scratch.junk("disk.img", DISK_MIB * MIB);
    let capture = ["capture", &disk, "--machine", "m"];
    imager.ok(&["init"]);
    imager.ok(&capture);
    let first = judge::whole(&disk);
    tool("sync", &["-f", &at.display().to_string()]);

    let sound = scratch.copy(&file, "sound.img");
    resize(&file, SOUND_MIB);
    tool("losetup", &["--set-capacity", &node.display().to_string()]);
    junk::over(Path::new(&disk), MIB, (DISK_MIB - 2) * MIB);
    let error = imager.fails(5, &capture);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("500")), "{error}");
    server.expect_log(&["os error 5", "Input/output"]);

    server.kill();
    drop((mounted, device));
    resize(&file, SHARE_MIB);
    let (from, to) = (format!("if={sound}"), format!("of={file}"));
    let places = [format!("skip={SOUND_MIB}"), format!("seek={SOUND_MIB}")];
    let fixed = ["bs=1M", "conv=notrunc,sparse", "status=none"].map(str::to_owned);
    tool("dd", &[&[from, to], &places[..], &fixed[..]].concat());
    assert!(matches!(tool::judge("e2fsck", &["-f", "-p", &file]), (Some(0 | 1), _)), "e2fsck -p mends it");
    let _mounted = device::mount(&file, &at, "loop");
    server.restart();
    let target = scratch.file("target.img", DISK_MIB * MIB);
    let restore = ["restore", "m", "--bare-metal", "--to", &target, "--yes"];
    imager.ok(&["verify", "--read-data"]);
    imager.ok(&restore);
    assert_eq!(judge::whole(&target), first);
    imager.ok(&capture);
    imager.ok(&restore);
    assert_eq!(judge::whole(&target), judge::whole(&disk));
    server.kill();
}

fn resize(file: &str, mib: u64) {
    let opened = std::fs::File::options().write(true).open(file);
    opened.and_then(|file| file.set_len(mib * MIB)).expect("it takes another length");
}
