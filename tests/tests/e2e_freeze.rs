//! Filesystems are frozen for an instant, and are never left so: whoever dies, whenever.
//!
//! What is frozen here lies on loop devices that the tests made.

use halfhour_tests::binary::built;
use halfhour_tests::tool::{judge, tool};
use halfhour_tests::{Filesystem, Scratch, Writer, need};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Whatever happens, nothing may be frozen for longer.
const HARD: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
/// Sooner than the guard's own limit, with room for a busy disk.
const SOON: Duration = Duration::from_secs(3);

/// A process that freezes.
struct Copier {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Copier {
    fn start(scratch: &Scratch, hold_ms: u64, count: u64, filesystems: &[&Filesystem]) -> Self {
        Self::start_with(&scratch.name("records"), hold_ms, count, filesystems)
    }

    fn start_with(records: &str, hold_ms: u64, count: u64, filesystems: &[&Filesystem]) -> Self {
        let mut command = Command::new(built("halfhour-freezer"));
        command.args([records, &hold_ms.to_string(), "4000", &count.to_string()]);
        command.args(filesystems.iter().map(|filesystem| &filesystem.disk.path));
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the copier starts");
        let said = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, said }
    }

    /// The next thing it says; empty when it has ended.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it can be heard");
        line.trim_end().to_owned()
    }

    fn expect(&mut self, beginning: &str) -> String {
        let line = self.next();
        assert!(line.starts_with(beginning), "{line:?} is not {beginning:?}");
        line
    }

    fn signal(&self, signal: Signal) {
        send(self.process.id(), signal);
    }

    /// Its guard.
    fn guard(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = fs::read_to_string(children).expect("it has children");
        children.split_whitespace().next().expect("a guard").parse().expect("a number")
    }

    fn kill(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn send(process: u32, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(process).expect("a process"));
    kill(process, signal).expect("it is there");
}

fn records(scratch: &Scratch) -> usize {
    fs::read_dir(scratch.path("records")).map_or(0, Iterator::count)
}

#[test]
fn a_freeze_stops_writers_for_as_long_as_it_lasts() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let scratch = Scratch::new();
        let Some(filesystem) = Filesystem::make(&scratch, "a", kind, 512) else { return };
        // Other mounts of the same.
        let bound = scratch.folder("bound");
        let _bound = halfhour_tests::device::mount(&filesystem.at.display().to_string(), &bound, "bind");
        let writer = Writer::start(&filesystem.at);
        let mut copier = Copier::start(&scratch, 300, 2, &[&filesystem]);
        copier.expect("open");
        for _ in 0..2 {
            copier.expect("frozen");
            std::thread::sleep(Duration::from_millis(100));
            assert!(filesystem.is_frozen(), "{kind}");
            assert_eq!(records(&scratch), 1);
            println!("{kind}: {}", copier.expect("thawed"));
        }
        assert_eq!(copier.next(), "");
        assert!(writer.goes_on_within(SOON).is_some() && !filesystem.is_frozen());
        assert!(writer.longest() >= Duration::from_millis(250), "{kind}: {:?}", writer.longest());
        assert_eq!(records(&scratch), 0, "{kind}");
    }
}

#[test]
fn a_btrfs_is_frozen_by_the_mount_of_a_subvolume() {
    let scratch = Scratch::new();
    let Some(mut filesystem) = Filesystem::make(&scratch, "a", "btrfs", 256) else { return };
    tool("btrfs", &["subvolume", "create", &filesystem.at.join("home").display().to_string()]);
    filesystem.unmount();
    // Its folders have a number that no mount has.
    let _home = halfhour_tests::device::mount(&filesystem.disk.path, &filesystem.at, "subvol=home");
    let writer = Writer::start(&filesystem.at);
    let mut copier = Copier::start(&scratch, 1000, 1, &[&filesystem]);
    copier.expect("open /");
    copier.expect("frozen");
    assert!(filesystem.is_frozen());
    copier.kill();
    assert!(writer.goes_on_within(SOON).is_some());
}

#[test]
fn nested_filesystems_and_those_in_files_of_others_freeze_first() {
    let scratch = Scratch::new();
    let Some(outer) = Filesystem::make(&scratch, "outer", "ext4", 900) else { return };
    let file = outer.at.join("inner.img").display().to_string();
    tool("truncate", &["-s", "400M", &file]);
    // In a file of the outer, and mounted elsewhere, higher.
    let Some(inner) = Filesystem::make_on(&file, "xfs", &scratch.path("i")) else { return };
    let Some(nested) =
        Filesystem::make_on(&scratch.file("n.img", 256 << 20), "btrfs", &outer.at.join("deep/er"))
    else {
        return;
    };
    let writers = [&outer, &inner, &nested].map(|one| Writer::start(&one.at));
    // The inner one is named by what it lies on.
    let mut copier = Copier::start(&scratch, 300, 3, &[&outer, &nested]);
    let [outer_at, inner_at, nested_at] = [&outer, &inner, &nested].map(|one| one.at.display().to_string());
    assert_eq!(copier.expect("open"), format!("open {inner_at} {nested_at} {outer_at}"));
    for _ in 0..3 {
        copier.expect("frozen");
        assert!([&outer, &inner, &nested].iter().all(|one| one.is_frozen()));
        println!("{}", copier.expect("thawed"));
    }
    for writer in &writers {
        assert!(writer.goes_on_within(SOON).is_some() && writer.longest() < HARD, "{:?}", writer.longest());
    }
}

/// Kills while frozen, thawing, arming, starting; the longest stall.
#[test]
fn killed_at_any_instant_everything_thaws_within_a_second() {
    let scratch = Scratch::new();
    let Some(outer) = Filesystem::make(&scratch, "outer", "ext4", 256) else { return };
    let Some(nested) =
        Filesystem::make_on(&scratch.file("n.img", 512 << 20), "xfs", &outer.at.join("nested"))
    else {
        return;
    };
    let both = [&outer, &nested];
    let writers = both.map(|one| Writer::start(&one.at));
    let mut junk = halfhour_tests::junk::Junk::new(u64::from(std::process::id()));
    let (mut frozen, mut slowest) = (0, Duration::ZERO);
    let runs = if need::full() { 100 } else { 8 };
    for run in 0..runs {
        let mut copier = Copier::start(&scratch, junk.number() % 40, 1000, &both);
        if run % 4 > 0 {
            copier.expect("open");
            copier.expect("frozen");
        }
        std::thread::sleep(Duration::from_micros(junk.number() % 100_000));
        let was = records(&scratch);
        copier.kill();
        frozen += was;
        let start = Instant::now();
        while records(&scratch) > 0 {
            assert!(start.elapsed() < SECOND, "run {run}: the guard has not thawed");
            std::thread::sleep(Duration::from_millis(1));
        }
        slowest = slowest.max(start.elapsed());
        assert!(writers.iter().all(|writer| writer.goes_on_within(SOON).is_some()), "run {run}");
        assert!(both.iter().all(|one| !one.is_frozen()), "run {run}");
    }
    let longest = writers.each_ref().map(Writer::longest);
    println!(
        "{runs} killed, {frozen} while frozen or nearly; thawed within {slowest:?}; longest stalls {longest:?}"
    );
    assert!(longest.iter().all(|stall| *stall < HARD));
}

#[test]
fn a_copier_outlives_its_guard_and_gets_another() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "ext4", 128) else { return };
    let writer = Writer::start(&filesystem.at);
    let mut copier = Copier::start(&scratch, 300, 2, &[&filesystem]);
    copier.expect("open");
    copier.expect("frozen");
    let first = copier.guard();
    send(first, Signal::SIGKILL);
    copier.expect("thawed");
    copier.expect("frozen");
    assert_ne!(copier.guard(), first);
    // Which guards.
    copier.kill();
    assert!(writer.goes_on_within(SOON).is_some());
}

#[test]
fn a_guard_minds_no_signals_and_ends_with_its_copier() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "ext4", 128) else { return };
    let writer = Writer::start(&filesystem.at);
    let mut copier = Copier::start(&scratch, 2000, 1, &[&filesystem]);
    copier.expect("open");
    copier.expect("frozen");
    let guard = copier.guard();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1] {
        send(guard, signal);
    }
    let score = fs::read_to_string(format!("/proc/{guard}/oom_score_adj")).expect("it runs");
    let allowed = judge("sh", &["-c", "echo -1000 >/proc/self/oom_score_adj"]).0 == Some(0);
    assert!(score.trim() == "-1000" || !allowed, "{score}");
    let status = fs::read_to_string(format!("/proc/{guard}/status")).expect("it runs");
    assert!(status.lines().any(|line| line.starts_with("VmLck:") && !line.ends_with(" 0 kB")), "{status}");
    assert!(filesystem.is_frozen());
    // As an impatient person or systemd does.
    copier.signal(Signal::SIGTERM);
    assert!(writer.goes_on_within(SOON).is_some());
    copier.process.wait().expect("it ends");
    let start = Instant::now();
    while std::path::Path::new(&format!("/proc/{guard}")).exists() && start.elapsed() < SECOND {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!std::path::Path::new(&format!("/proc/{guard}/exe")).exists(), "the guard ends");
    assert_eq!(records(&scratch), 0);
}

#[test]
fn what_both_left_frozen_when_they_died_is_thawed_by_command() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "btrfs", 256) else { return };
    let imager = scratch.imager_without_repository();
    imager.ok(&["thaw"]);
    let writer = Writer::start(&filesystem.at);
    // Where the command looks.
    let mut copier = Copier::start_with("/run/halfhour/frozen", 3000, 1, &[&filesystem]);
    copier.expect("open");
    copier.expect("frozen");
    let at = filesystem.at.display().to_string();
    let other = imager.json(&["thaw"]);
    assert!(filesystem.is_frozen(), "what somebody works with stays frozen: {other}");
    send(copier.guard(), Signal::SIGKILL);
    copier.kill();
    assert!(writer.goes_on_within(Duration::from_millis(300)).is_none(), "nobody thaws it");
    let thawed = imager.json(&["thaw"]);
    assert!(thawed["thawed"].as_array().expect("a list").iter().any(|one| one == at.as_str()), "{thawed}");
    assert!(writer.goes_on_within(SOON).is_some());
    assert!(!imager.ok(&["thaw"]).stdout.contains(&at));
}

#[test]
fn the_next_freeze_thaws_what_was_left() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "xfs", 512) else { return };
    let writer = Writer::start(&filesystem.at);
    let mut copier = Copier::start(&scratch, 3000, 1, &[&filesystem]);
    copier.expect("open");
    copier.expect("frozen");
    send(copier.guard(), Signal::SIGKILL);
    copier.kill();
    assert!(filesystem.is_frozen());
    let mut next = Copier::start(&scratch, 10, 1, &[&filesystem]);
    next.expect("open");
    next.expect("frozen");
    next.expect("thawed");
    assert!(writer.goes_on_within(SOON).is_some());
}

#[test]
fn a_copier_that_hangs_is_thawed_and_told() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "ext4", 128) else { return };
    let writer = Writer::start(&filesystem.at);
    let mut copier = Copier::start(&scratch, 100, 1, &[&filesystem]);
    copier.expect("open");
    copier.expect("frozen");
    copier.signal(Signal::SIGSTOP);
    let took = writer.goes_on_within(HARD);
    copier.signal(Signal::SIGCONT);
    println!("thawed after {took:?}");
    assert!(took.is_some() && writer.longest() < HARD, "{:?}", writer.longest());
    copier.expect("failed Cancelled");
}

#[test]
fn what_somebody_else_froze_is_left_to_him() {
    let scratch = Scratch::new();
    let Some(first) = Filesystem::make(&scratch, "a", "ext4", 128) else { return };
    let Some(second) = Filesystem::make(&scratch, "b", "ext4", 128) else { return };
    for theirs in [&first, &second] {
        let at = theirs.at.display().to_string();
        let others = if std::ptr::eq(theirs, &first) { &second } else { &first };
        let mut copier = Copier::start(&scratch, 100, 1, &[&first, &second]);
        copier.expect("open");
        copier.expect("frozen");
        copier.expect("thawed");
        tool("fsfreeze", &["--freeze", &at]);
        let mut copier = Copier::start(&scratch, 0, 1, &[&first, &second]);
        copier.expect("open");
        copier.expect("failed Denied");
        assert_eq!(copier.next(), "");
        copier.process.wait().expect("it ends");
        assert!(theirs.is_frozen() && !others.is_frozen());
        tool("fsfreeze", &["--unfreeze", &at]);
    }
}

#[test]
fn a_thaw_by_somebody_else_is_noticed() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "ext4", 128) else { return };
    let mut copier = Copier::start(&scratch, 500, 1, &[&filesystem]);
    copier.expect("open");
    copier.expect("frozen");
    tool("fsfreeze", &["--unfreeze", &filesystem.at.display().to_string()]);
    copier.expect("failed Cancelled");
}

#[test]
fn what_is_unmounted_or_mounted_meanwhile_is_noticed() {
    let scratch = Scratch::new();
    let Some(mut filesystem) = Filesystem::make(&scratch, "a", "ext4", 128) else { return };
    let Some(mut other) = Filesystem::make(&scratch, "b", "xfs", 512) else { return };
    other.unmount();
    let mut copier = Copier::start(&scratch, 400, 3, &[&filesystem, &other]);
    copier.expect("open");
    copier.expect("frozen");
    let (status, said) = judge("umount", &[filesystem.at.display().to_string()]);
    assert!(status != Some(0) && said.contains("busy"), "held open while frozen: {said}");
    other.mount();
    copier.expect("thawed");
    copier.expect("failed Cancelled");
    copier.expect("failed Cancelled");
    filesystem.unmount();
    other.unmount();
    let mut nothing = Copier::start(&scratch, 0, 1, &[&filesystem]);
    assert_eq!(nothing.next(), "open");
    nothing.expect("frozen");
    nothing.expect("thawed");
    filesystem.mount();
    assert!(Writer::start(&filesystem.at).goes_on_within(SOON).is_some());
}

#[test]
fn what_cannot_be_frozen_is_told() {
    let scratch = Scratch::new();
    let Some(can) = Filesystem::make(&scratch, "a", "ext4", 128) else { return };
    if !need::programs(&["ntfs-3g"]) {
        return;
    }
    let Some(cannot) = Filesystem::make(&scratch, "b", "ntfs", 64) else { return };
    let mut copier = Copier::start(&scratch, 200, 2, &[&cannot, &can]);
    copier.expect("open");
    for _ in 0..2 {
        copier.expect("frozen");
        assert!(can.is_frozen());
        let said = copier.expect("thawed");
        assert!(said.ends_with(", 1 unfreezable"), "{said}");
    }
}
