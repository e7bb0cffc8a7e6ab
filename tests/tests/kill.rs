//! Captures and restores are killed at any instant: what was there before is still there, what is half done is not
//! taken for whole, and the same command run again finishes.
//!
//! The instants come from a seed that is printed, and may be given in `HALFHOUR_SEED`. Six of each, or fifty where
//! `HALFHOUR_FULL` is set.

use halfhour_tests::junk::{Junk, poke};
use halfhour_tests::{Imager, MIB, Scratch, judge, need, table, tool};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Start and length of each partition in MiB: EFI system, operating system, data, one of no known filesystem.
const PARTS: [(u64, u64); 4] = [(1, 16), (17, 144), (161, 24), (185, 48)];
const DISK_MIB: u64 = 234;
const OS: usize = 1;
const DATA: usize = 2;
const RAW: usize = 3;

fn place(part: usize) -> (u64, u64) {
    (PARTS[part].0 * MIB, PARTS[part].1 * MIB)
}

/// Instants to kill at: anywhere, and every other one near the end, where the order of writes matters most.
struct Instants {
    junk: Junk,
    count: u64,
}

impl Instants {
    fn new(what: &str) -> Self {
        let given = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.unwrap_or_else(|| now.map_or(1, |now| now.as_secs()));
        println!("{what}: HALFHOUR_SEED={seed}");
        Self { junk: Junk::new(seed), count: if need::full() { 50 } else { 6 } }
    }

    fn next(&mut self, run: u64, whole: Duration) -> Duration {
        let any = self.junk.number() % 1000;
        let permille = if run.is_multiple_of(2) { any } else { 700 + any * 3 / 10 };
        whole * u32::try_from(permille).expect("small") / 1000
    }
}

/// The disk of a server of some hundred megabytes, of which most is used.
fn disk(scratch: &Scratch) -> String {
    let disk = scratch.file("disk.img", DISK_MIB * MIB);
    let types = ["uefi", "linux", "linux", "linux"];
    let mut script = "label: gpt\n".to_owned();
    for ((start, len), kind) in PARTS.iter().zip(types) {
        script.push_str(&format!("start={}, size={}, type={kind}\n", start * 2048, len * 2048));
    }
    table::write(&disk, &script);
    let tree = scratch.folder("tree");
    let mut junk = Junk::new(1);
    std::fs::create_dir_all(tree.join("os/etc")).expect("a folder");
    std::fs::write(tree.join("os/etc/fstab"), "LABEL=data /srv ext4 defaults 0 2\n").expect("a file");
    for (folder, files, size) in [("os", 24_usize, 4_000_000), ("data", 10, 1_000_000)] {
        std::fs::create_dir_all(tree.join(folder)).expect("a folder");
        for file in 0..files {
            let mut content = vec![b'.'; size + file * 1111];
            let from = if file % 3 == 0 { size / 2 } else { 0 };
            junk.fill(&mut content[from..]);
            std::fs::write(tree.join(folder).join(format!("{file}")), content).expect("a file");
        }
    }
    let part = |part: usize| scratch.file(&format!("part{part}"), place(part).1);
    let (esp, os, data) = (part(0), part(OS), part(DATA));
    tool("mkfs.fat", &["-n", "ESP", &esp]);
    for (image, folder, label) in [(&os, "os", "os"), (&data, "data", "data")] {
        let from = tree.join(folder).display().to_string();
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", "-L", label, "-d", &from, image]);
    }
    for (number, image) in [esp, os, data].iter().enumerate() {
        let (from, to, seek) =
            (format!("if={image}"), format!("of={disk}"), format!("seek={}", place(number).0));
        tool("dd", &[&from, &to, &seek, "bs=1M", "oflag=seek_bytes", "conv=notrunc,sparse", "status=none"]);
        std::fs::remove_file(image).expect("a file of ours");
    }
    std::fs::remove_dir_all(tree).expect("a folder of ours");
    change(&disk, 1);
    disk
}

/// Half of what has no filesystem becomes something else.
fn change(disk: &str, seed: u64) {
    let (start, len) = place(RAW);
    let mut junk = Junk::new(seed);
    let mut buffer = vec![0; 1 << 20];
    for piece in (0..len / MIB).filter(|piece| (piece + seed).is_multiple_of(2)) {
        junk.fill(&mut buffer);
        poke(Path::new(disk), start + piece * MIB, &buffer);
    }
}

/// Runs the program and kills it after a while; whether it had ended by itself before.
fn kill(imager: &Imager, arguments: &[&str], after: Duration) -> bool {
    let mut command = imager.command(arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    std::thread::sleep(after);
    child.kill().expect("it is ours");
    child.wait().expect("it ends").code().is_some()
}

fn has_tools() -> bool {
    need::programs(&["sfdisk", "mke2fs", "e2fsck", "mkfs.fat", "blkid"])
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

fn captures(imager: &Imager) -> Vec<String> {
    let list = imager.json(&["list"]);
    let captures = list["captures"].as_array().expect("a list").iter();
    captures.map(|capture| capture["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn captures_killed_at_any_instant_leave_every_earlier_one_whole() {
    if !has_tools() {
        return;
    }
    let mut instants = Instants::new("captures");
    let scratch = Scratch::new();
    let (disk, imager) = (disk(&scratch), scratch.imager());
    let first = scratch.copy(&disk, "first.img");
    let capture = ["capture", &disk, "--machine", "m", "--data", "used"];
    imager.ok(&capture);
    change(&disk, 2);
    let mut takes = timed(|| imager.ok(&capture)).1;
    let (mut ended, mut published) = (0, captures(&imager));
    for run in 0..instants.count {
        change(&disk, 3 + run);
        let before = judge::whole(&disk);
        // Full captures look everything up anew, the others compare.
        let kind = if run % 3 == 2 { "full" } else { "incremental" };
        let after = instants.next(run, takes);
        let arguments = [&capture[..], &["--kind", kind]].concat();
        ended += u64::from(kill(&imager, &arguments, after));
        assert_eq!(judge::whole(&disk), before, "a capture only reads");
        let now = captures(&imager);
        assert!(now.starts_with(&published), "killed after {after:?}: captures came or went");
        assert!(now.len() <= published.len() + 1);
        imager.ok(&["verify"]);
        change(&disk, 100 + run);
        takes = takes.min(timed(|| imager.ok(&capture)).1);
        published = captures(&imager);
        assert_eq!(published.len(), now.len() + 1, "the next run publishes one");
    }
    imager.ok(&["verify", "--read-data"]);
    println!(
        "{} captures killed within {takes:?}, {ended} of them had ended; {} are there",
        instants.count,
        published.len()
    );
    for (capture, expected) in [(&published[0], &first), (&published[published.len() - 1], &disk)] {
        let target = scratch.file("target.img", DISK_MIB * MIB);
        imager.ok(&["restore", &format!("id:{capture}"), "--bare-metal", "--to", &target, "--yes"]);
        let (start, len) = place(RAW);
        assert_eq!(judge::digest(&target, start, len), judge::digest(expected, start, len));
        assert_same_used(&used(&imager, expected), expected, &target, OS, "bare metal");
        assert_sound(&scratch, &target);
    }
}

/// The used extents of each partition, as `inspect` has them.
fn used(imager: &Imager, disk: &str) -> Vec<Vec<(u64, u64)>> {
    let seen = imager.json(&["inspect", disk, "--extents"]);
    let extents = |volume: &Value| {
        let extents = volume["used_extents"].as_array().expect("extents").iter();
        let number = |value: &Value| value.as_u64().expect("a number");
        extents.map(|extent| (number(&extent[0]), number(&extent[1]))).collect()
    };
    seen["volumes"].as_array().expect("volumes").iter().map(extents).collect()
}

fn assert_same_used(used: &[Vec<(u64, u64)>], source: &str, target: &str, part: usize, what: &str) {
    let start = place(part).0;
    judge::assert_same_bytes(
        (source, start),
        (target, start),
        &used[part],
        &format!("{what}: partition {part}"),
    );
}

fn assert_sound(scratch: &Scratch, disk: &str) {
    let (start, len) = place(OS);
    let image = scratch.name("os.img");
    judge::extract(disk, start, len, &image);
    let (status, said) = judge::fsck(&image, "ext4");
    assert_eq!(status, Some(0), "{said}");
    std::fs::remove_file(image).expect("a file of ours");
}

/// The digest of everything that a restore in place leaves alone: the table, the data volume, what lies between.
fn outside(disk: &str) -> Vec<String> {
    let mut parts = vec![judge::digest(disk, 440, MIB - 440)];
    let (start, len) = place(DATA);
    parts.push(judge::digest(disk, start, len));
    let end = (PARTS[RAW].0 + PARTS[RAW].1) * MIB;
    parts.push(judge::digest(disk, end, DISK_MIB * MIB - end));
    parts
}

/// What lies on the disks that a restore is to write.
fn spoil(target: &str, source: &str, run: u64) {
    std::fs::copy(source, target).expect("a copy");
    let mut junk = Junk::new(run);
    let mut buffer = vec![0; 1 << 20];
    let mut over = |part: usize, from_mib: u64| {
        for piece in from_mib..PARTS[part].1 {
            junk.fill(&mut buffer);
            poke(Path::new(target), place(part).0 + piece * MIB, &buffer);
        }
    };
    match run % 3 {
        // Junk everywhere.
        0 => (0..=RAW).for_each(|part| over(part, 0)),
        // Another state of what is there; the data volume is newer, too.
        1 => {
            over(OS, 80);
            over(RAW, 10);
            over(DATA, 8);
        }
        // A head that is right on a body that is not: nothing but order keeps it from looking whole.
        _ => {
            over(OS, 60);
            over(0, 4);
        }
    }
}

/// Nothing would take the volume for whole unless it is, or was left alone.
fn assert_not_half(
    used: &[Vec<(u64, u64)>],
    source: &str,
    target: &str,
    before: &[String],
    what: &str,
) -> bool {
    let mut recognised = false;
    for part in [0, OS] {
        let (start, len) = place(part);
        let (offset, size) = (start.to_string(), len.to_string());
        let arguments = ["-p", "-O", &offset, "-S", &size, "-o", "export", target];
        let (_, identity) = halfhour_tests::tool::judge("blkid", &arguments);
        if identity.contains("TYPE=") && judge::digest(target, start, len) != before[part] {
            assert_same_used(used, source, target, part, what);
            recognised = true;
        }
    }
    recognised
}

#[test]
fn restores_killed_at_any_instant_leave_nothing_that_looks_whole_and_is_not() {
    if !has_tools() {
        return;
    }
    let mut instants = Instants::new("restores");
    let scratch = Scratch::new();
    let (disk, imager) = (disk(&scratch), scratch.imager());
    imager.ok(&["capture", &disk, "--machine", "m", "--data", "used"]);
    let used = used(&imager, &disk);
    let target = scratch.name("target.img");
    let restore = ["restore", "m", "--to", &target, "--yes"];
    let mut whole = [Duration::ZERO; 3];
    let (mut ended, mut recognised) = (0, 0);
    for run in 0..instants.count {
        let kind = usize::try_from(run % 3).expect("small");
        if whole[kind].is_zero() {
            spoil(&target, &disk, run);
            whole[kind] = timed(|| imager.ok(&restore)).1;
        }
        spoil(&target, &disk, run);
        let alone = outside(&target);
        let before: Vec<_> =
            (0..=RAW).map(|part| judge::digest(&target, place(part).0, place(part).1)).collect();
        let after = instants.next(run, whole[kind]);
        let what = format!("run {run}, killed after {after:?} of {:?}", whole[kind]);
        ended += u64::from(kill(&imager, &restore, after));
        assert_eq!(outside(&target), alone, "{what}: a restore writes what it was told to");
        recognised += u64::from(assert_not_half(&used, &disk, &target, &before, &what));
        imager.ok(&restore);
        [0, OS, RAW].iter().for_each(|&part| assert_same_used(&used, &disk, &target, part, &what));
        assert_sound(&scratch, &target);
        assert_eq!(outside(&target), alone, "{what}: run again, too");
    }
    println!("{} restores killed, {ended} of them had ended, {recognised} had a volume back", instants.count);
}

#[test]
fn a_bare_metal_restore_killed_at_any_instant_leaves_a_disk_without_a_table() {
    if !has_tools() {
        return;
    }
    let mut instants = Instants::new("bare metal");
    let scratch = Scratch::new();
    let (disk, imager) = (disk(&scratch), scratch.imager());
    imager.ok(&["capture", &disk, "--machine", "m", "--data", "used"]);
    let used = used(&imager, &disk);
    let target = scratch.name("target.img");
    let restore = ["restore", "m", "--bare-metal", "--to", &target, "--yes"];
    std::fs::copy(&disk, &target).expect("a copy");
    let whole = timed(|| imager.ok(&restore)).1;
    let same_table = |target: &str| table::dump(target, 512) == table::dump(&disk, 512);
    for run in 0..instants.count / 2 {
        spoil(&target, &disk, run * 3);
        // The table of before is of another disk.
        poke(Path::new(&target), 0, &vec![0xEE; 1 << 20]);
        let after = instants.next(run, whole);
        let what = format!("run {run}, killed after {after:?} of {whole:?}");
        kill(&imager, &restore, after);
        let is_whole = same_table(&target);
        for part in [0, OS, DATA, RAW] {
            if is_whole {
                assert_same_used(&used, &disk, &target, part, &what);
            }
        }
        imager.ok(&restore);
        assert!(same_table(&target), "{what}");
        [0, OS, DATA, RAW].iter().for_each(|&part| assert_same_used(&used, &disk, &target, part, &what));
        assert_sound(&scratch, &target);
    }
}
