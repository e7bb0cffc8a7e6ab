//! Captures of filesystems that are written to all the time: what comes back is the instant at which they were frozen.

use halfhour_tests::junk::Junk;
use halfhour_tests::load::{self, Load};
use halfhour_tests::{Filesystem, Imager, LoopDisk, MIB, Scratch, device, need, table, tool};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The size of a filesystem, in MiB: XFS is not made smaller.
const SIZE: u64 = 320;
/// How often an export is tried to be told apart from what it should be, for each filesystem.
const RUNS: usize = 50;
/// How often a capture is begun while more is written than this machine can copy.
const TRIES: usize = 5;
/// What is written where the machine has other things to do besides.
const FEW: [&str; 6] = ["files", "mapped", "delete", "wal", "packages", "checkouts"];

/// Ends the record of a disk.
struct Recorded<'a>(&'a Imager, String);

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        let _ended = self.0.run(&["journal", "stop", &self.1]);
    }
}

fn can_run() -> bool {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        need::skip("this kernel does not describe its types");
        return false;
    }
    need::programs(&load::PROGRAMS)
}

/// A filesystem under load, captured `captures` times.
fn captured_under_load(kind: &str, captures: usize) {
    let scratch = Scratch::new();
    let Some(mut filesystem) = Filesystem::make(&scratch, "a", kind, SIZE) else { return };
    let imager = Imager::new(scratch.path("state"), scratch.path("repo"));
    imager.ok(&["init"]);
    let disk = filesystem.disk.path.clone();
    imager.ok(&["journal", "start", &disk]);
    let recorded = Recorded(&imager, disk.clone());
    let log = scratch.folder("log");
    let load = Load::start(&filesystem.at, &log, if need::full() { &load::ALL } else { &FEW });
    load.wait_for(12);
    let mut taken = Vec::new();
    for _ in 0..captures {
        taken.push(captured(&imager, &disk));
        std::thread::sleep(Duration::from_millis(300));
    }
    load.stop();
    drop(recorded);
    filesystem.unmount();
    for (number, (before, after, report)) in taken.iter().enumerate() {
        describe(kind, report);
        assert_eq!(report["consistency"], "frozen");
        assert_eq!(report["problems"], serde_json::json!([]));
        assert!(number > 0 || report["volumes"][0]["truth"] == "scan");
        let image = scratch.path("back.img").display().to_string();
        let _none = std::fs::remove_file(&image);
        let id = format!("id:{}", report["capture"].as_str().unwrap_or_default());
        imager.ok(&["export", &id, &image, "--format", "raw"]);
        let verdict = load::judge_image(&image, kind, &log, *before, *after, &scratch);
        println!("{kind} {number}: {} faults; durable {}", verdict.faults.len(), verdict.durable);
        assert!(verdict.faults.is_empty(), "{kind} {number}: {:#?}", verdict.faults);
    }
    let by_journal = taken.iter().skip(1).filter(|(_, _, report)| report["volumes"][0]["truth"] == "journal");
    println!("{kind}: {} of {} by the journal", by_journal.count(), captures - 1);
    imager.ok(&["verify", "--all", "--read-data"]);
}

/// How long after its start a capture is killed at most, in milliseconds: about as long as one takes.
const KILLED_WITHIN_MS: u64 = 300;

#[test]
fn a_capture_that_is_killed_leaves_nothing_frozen_and_the_next_is_right() {
    let scratch = Scratch::new();
    if !can_run() {
        return;
    }
    let Some(mut filesystem) = Filesystem::make(&scratch, "a", "ext4", SIZE) else { return };
    let imager = Imager::new(scratch.path("state"), scratch.path("repo"));
    imager.ok(&["init"]);
    let disk = filesystem.disk.path.clone();
    imager.ok(&["journal", "start", &disk]);
    let recorded = Recorded(&imager, disk.clone());
    let log = scratch.folder("log");
    let load = Load::start(&filesystem.at, &log, &FEW);
    load.wait_for(12);
    captured(&imager, &disk);
    let (kills, mut random) = (if need::full() { 100 } else { 8 }, Junk::new(u64::from(std::process::id())));
    let (mut under_way, mut longest) = (0, Duration::ZERO);
    for _ in 0..kills {
        let mut child = imager
            .command(&["capture", &disk, "--machine", "hot", "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(Duration::from_millis(random.number() % KILLED_WITHIN_MS));
        child.kill().expect("ours");
        under_way += u32::from(child.wait().expect("it ends").code().is_none());
        let start = Instant::now();
        std::fs::write(filesystem.at.join("probe"), "goes on").expect("it can be written");
        longest = longest.max(start.elapsed());
    }
    println!(
        "{under_way} of {kills} captures were killed under way; the longest that a writer waited was {longest:?}"
    );
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    let (before, after, report) = captured(&imager, &disk);
    load.stop();
    drop(recorded);
    filesystem.unmount();
    describe("killed", &report);
    let image = scratch.path("back.img").display().to_string();
    imager.ok(&["export", "hot@latest", &image, "--format", "raw"]);
    let verdict = load::judge_image(&image, "ext4", &log, before, after, &scratch);
    println!("killed: {} faults; durable {}", verdict.faults.len(), verdict.durable);
    assert!(verdict.faults.is_empty(), "{:#?}", verdict.faults);
    imager.ok(&["verify", "--all", "--read-data"]);
}

/// A capture, and when it was begun and done. Where too much is written for this machine that is said, and no image.
fn captured(imager: &Imager, disk: &str) -> (u64, u64, Value) {
    for _ in 1..TRIES {
        let before = load::now();
        let ran = imager.run_json(&["capture", disk, "--machine", "hot"]);
        if ran.code == 0 {
            return (before, load::now(), ran.json());
        }
        let error = &ran.expect_code(4).json()["error"];
        assert!(error["message"].as_str().is_some_and(|why| why.contains("writes faster")), "{error}");
        println!("not captured: {}", error["message"]);
    }
    let before = load::now();
    let report = imager.json(&["capture", disk, "--machine", "hot"]);
    (before, load::now(), report)
}

fn describe(kind: &str, report: &Value) {
    let volume = &report["volumes"][0];
    let mib = |field: &str| volume[field].as_u64().unwrap_or(0) / MIB;
    let running = &report["running"];
    println!(
        "{kind}: {} in {:.1} s, {} MiB read, {} passes, freezes {}, {} never written",
        volume["truth"],
        report["elapsed_seconds"].as_f64().unwrap_or(0.0),
        mib("read_bytes"),
        running["passes"].as_array().map_or(0, Vec::len),
        running["freezes"],
        running["never_written_bytes"],
    );
}

#[test]
fn filesystems_under_load_are_captured_as_of_an_instant() {
    if !can_run() {
        return;
    }
    let captures = if need::full() { RUNS } else { 3 };
    for kind in need::sample("filesystems", &["ext4", "xfs", "btrfs"], 1) {
        captured_under_load(kind, captures);
    }
}

/// Start and length of the partitions, in MiB.
const PARTITIONS: [(u64, u64); 4] = [(1, 34), (36, 200), (240, 200), (441, 16)];
const DISK: u64 = 460;

fn partition(image: &str, number: usize, to: &str) {
    let (start, len) = PARTITIONS[number];
    let (skip, count) = (format!("skip={start}"), format!("count={len}"));
    tool("dd", &[&format!("if={image}"), &format!("of={to}"), "bs=1M", &skip, &count, "status=none"]);
}

#[test]
fn a_whole_disk_is_one_instant_also_where_it_cannot_be_frozen() {
    let programs = ["sfdisk", "mkfs.fat", "mke2fs", "mkfs.btrfs", "mkswap"];
    if !can_run() || !need::programs(&programs) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("disk.img", DISK * MIB);
    let lines = PARTITIONS.iter().zip(["U", "L", "L", "S"]);
    let lines = lines.map(|((start, len), kind)| format!("start={start}MiB, size={len}MiB, type={kind}\n"));
    table::write(&file, &format!("label: gpt\n{}", lines.collect::<String>()));
    let Some(disk) = LoopDisk::attach(&file, 512) else { return };
    tool("mkfs.fat", &["-F", "32", &disk.partition(1)]);
    tool("mke2fs", &["-q", "-t", "ext4", "-F", &disk.partition(2)]);
    tool("mkfs.btrfs", &["-q", "-f", &disk.partition(3)]);
    tool("mkswap", &["-q", &disk.partition(4)]);
    let imager = Imager::new(scratch.path("state"), scratch.path("repo"));
    imager.ok(&["init"]);
    let kinds = ["ext4", "btrfs"];
    let places = kinds.map(|kind| (scratch.path(kind), scratch.folder(&format!("log-{kind}"))));
    let mounted: Vec<_> =
        (2..).zip(&places).map(|(n, (at, _))| device::mount(&disk.partition(n), at, "noatime")).collect();
    imager.ok(&["journal", "start", &disk.path]);
    let recorded = Recorded(&imager, disk.path.clone());
    let writers = ["files", "wal", "mapped", "packages"];
    let loads: Vec<_> = places.iter().map(|(at, log)| Load::start(at, log, &writers)).collect();
    loads.iter().for_each(|load| load.wait_for(8));
    imager.json(&["capture", &disk.path, "--machine", "hot"]);
    let before = load::now();
    let report = imager.json(&["capture", &disk.path, "--machine", "hot"]);
    let after = load::now();
    std::thread::sleep(Duration::from_millis(300));
    loads.into_iter().for_each(Load::stop);
    drop((mounted, recorded));
    describe("disk", &report);
    let held = |key: usize| report["volumes"][key - 1]["consistency"].clone();
    assert_eq!([held(1), held(2), held(3), held(4)], ["stable", "frozen", "frozen", "stable"]);
    let image = scratch.path("back.img").display().to_string();
    imager.ok(&["export", "hot@latest", &image, "--format", "raw"]);
    for (number, kind) in (1..).zip(kinds) {
        let (copy, log) = (scratch.path(&format!("{kind}.img")).display().to_string(), &places[number - 1].1);
        partition(&image, number, &copy);
        let verdict = load::judge_image(&copy, kind, log, before, after, &scratch);
        println!("{kind}: {} faults; durable {}", verdict.faults.len(), verdict.durable);
        assert!(verdict.faults.is_empty(), "{kind}: {:#?}", verdict.faults);
    }
    assert_eq!(table::dump(&image, 512), table::dump(&file, 512));
    assert!(table::is_sound_gpt(&image));
    tool(
        "fsck.fat",
        &["-n", &{
            let copy = scratch.path("fat.img").display().to_string();
            partition(&image, 0, &copy);
            copy
        }],
    );
}

#[test]
fn a_disk_in_use_whose_changes_are_not_recorded_is_refused() {
    let scratch = Scratch::new();
    let Some(filesystem) = Filesystem::make(&scratch, "a", "ext4", 64) else { return };
    let imager = Imager::new(scratch.path("state"), scratch.path("repo"));
    imager.ok(&["init"]);
    let error = imager.fails(4, &["capture", &filesystem.disk.path, "--machine", "hot"]);
    assert!(error["advice"].as_str().is_some_and(|advice| advice.contains("imager journal start")));
}
