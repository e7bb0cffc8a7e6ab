//! The opinions of others on a map.

use crate::tools::{Mount, digest, digest_of_copy, output, run, text};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};
use imager_volume::{Filesystem, State, UsedMap};
use std::path::Path;

/// Kind, UUID and label are what blkid says.
pub(crate) fn identity(path: &Path, found: &Filesystem) {
    let tag = |tag: &str| {
        let value = run("blkid", &["-p", "-o", "value", "-s", tag, text(path)]);
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let kind = match (found.kind, &found.state) {
        ("swap", State::Hibernated) => "swsuspend",
        ("fat12" | "fat16" | "fat32", _) => "vfat",
        (kind, _) => kind,
    };
    assert_eq!(Some(kind.to_owned()), tag("TYPE"), "{}", path.display());
    assert_eq!(found.uuid, tag("UUID"), "{}", path.display());
    assert_eq!(found.label, tag("LABEL"), "{}", path.display());
    // libblkid 2.38 takes the largest FAT12 for FAT16; kernel, fsck.fat and the specification do not.
    if kind == "vfat" && !path.ends_with("fat12-most") {
        assert_eq!(Some(found.kind.to_uppercase()), tag("VERSION"), "{}", path.display());
    }
}

/// The map keeps the promises of its unit.
pub(crate) fn alignment(name: &str, map: &UsedMap, size: ByteLen) {
    assert!(
        map.unit.get().is_power_of_two() && (512..=65_536).contains(&map.unit.get()),
        "{name}: {}",
        map.unit
    );
    let end = ByteOffset::new(size.get());
    assert_eq!(map.extents.align_out(map.unit, end), map.extents, "{name}: aligned to {}", map.unit);
}

fn extent(from: u64, to: u64) -> Extent {
    Extent::between(ByteOffset::new(from), ByteOffset::new(to))
}

/// Everything but what dumpe2fs lists as free.
pub(crate) fn dumpe2fs(path: &Path, size: ByteLen) -> ExtentSet {
    let dump = run("dumpe2fs", &[text(path)]);
    let number =
        |label: &str| dump.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok());
    let block = number("Block size:").unwrap();
    // A range of clusters ends with the first block of the last one.
    let last = number("Cluster size:").unwrap_or(block);
    let mut free = ExtentSet::new();
    // Group lines are indented, the header's count of free blocks is not.
    for list in dump.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
            free.insert(extent(from * block, to * block + last));
        }
    }
    free.complement(Extent::first(size))
}

/// What partclone would copy.
pub(crate) fn partclone(path: &Path, family: &str) -> ExtentSet {
    let tool = if family == "ext" { "partclone.extfs" } else { "partclone.fat" };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (domain, log) = (dir.path().join("domain"), dir.path().join("log"));
    run(tool, &["-D", "-s", text(path), "-o", text(&domain), "-L", text(&log)]);
    let hex = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).unwrap();
    let domain = std::fs::read_to_string(domain).unwrap();
    let lines = domain.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let used: ExtentSet = lines
        .filter_map(|fields| match fields[..] {
            [at, len, "+"] => Some(extent(hex(at), hex(at) + hex(len))),
            _ => None,
        })
        .collect();
    assert!(!used.is_empty());
    used
}

/// The clusters that fsck.fat counts as used, and everything around them. It counts and does not list, so the count is
/// compared here, and the smallest map that has so many is what ours is compared with.
pub(crate) fn fat_by_hand(path: &Path, size: ByteLen) -> ExtentSet {
    let report = output("fsck.fat", &["-nv", text(path)]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    let number = |line: &str| line.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    let after = |label: &str| number(report.lines().find(|line| line.contains(label)).unwrap()).unwrap();
    let cluster = after("bytes per cluster");
    let data = report.lines().find_map(|line| line.trim().strip_prefix("Data area starts at byte ")).unwrap();
    let data = number(data).unwrap();
    let (used, total) = report.lines().last().unwrap().rsplit_once(", ").unwrap().1.split_once('/').unwrap();
    let used: u64 = used.parse().unwrap();
    let total = total.split(' ').next().unwrap().parse::<u64>().unwrap();
    let map = imager_volume::used(&crate::Image::open(path)).unwrap();
    let clusters = extent(data, data + total * cluster);
    let ours: u64 = map.extents.overlapping(clusters).map(|run| run.len().get()).sum();
    assert_eq!(ours, used * cluster, "{}: clusters in use", path.display());
    let mut around = ExtentSet::from(extent(0, data));
    around.insert(extent(clusters.end().get(), size.get()));
    map.extents.overlapping(clusters).collect::<ExtentSet>().union(&around)
}

/// e2fsck finds nothing, and the files are the same.
pub(crate) fn ext(source: &Path, target: &Path, dir: &Path) {
    compare_ext(source, target, dir);
    if source.ends_with("ext4-journal-outside") {
        // Its journal is not here; without the mention of it everything else can be checked.
        for command in ["feature -has_journal", "ssv journal_dev 0", "ssv journal_uuid clear"] {
            run("debugfs", &["-w", "-R", command, text(target)]);
        }
    }
    run("e2fsck", &["-fn", text(target)]);
}

fn compare_ext(source: &Path, target: &Path, dir: &Path) {
    let (a, b) = (Mount::new(source, dir.join("a")), Mount::new(target, dir.join("b")));
    match (a, b) {
        (Some(a), Some(b)) => assert_eq!(digest(a.dir()), digest(b.dir()), "{}", source.display()),
        (None, None) => {
            // A kernel without such blocks or features: the files by way of debugfs.
            let copy = |image: &Path, name: &str| {
                let to = dir.join(name);
                std::fs::create_dir(&to).unwrap();
                run("debugfs", &["-R", &format!("rdump / {}", text(&to)), text(image)]);
                digest_of_copy(&to)
            };
            assert_eq!(copy(source, "source"), copy(target, "copy"), "{}", source.display());
        }
        _ => panic!("{}: only one of source and copy can be mounted", source.display()),
    }
}

/// fsck.fat says of the copy what it says of the source, and the files are the same.
pub(crate) fn fat(source: &Path, target: &Path, dir: &Path) {
    let name = source.file_name().unwrap().to_str().unwrap();
    let check = |image: &Path| {
        let output = output("fsck.fat", &["-n", text(image)]);
        let said = String::from_utf8_lossy(&output.stdout).replace(text(image), "");
        (output.status.code(), said)
    };
    let (of_source, of_target) = (check(source), check(target));
    assert_eq!(of_source, of_target, "{name}");
    assert_eq!(of_source.0, Some(i32::from(name.contains("in-use"))), "{name}: {}", of_source.1);
    if name == "fat32-few-clusters" {
        return; // mtools goes by the number of clusters alone.
    }
    let copy = |image: &Path, name: &str| {
        let to = dir.join(name);
        std::fs::create_dir(&to).unwrap();
        run("mcopy", &["-i", text(image), "-smnpQ", "::*", text(&to)]);
        (digest_of_copy(&to), run("mdir", &["-i", text(image), "-/", "-a", "::"]))
    };
    assert!(copy(source, "source") == copy(target, "copy"), "{name}: the files differ");
}

/// The header is the same to those who read it.
pub(crate) fn swap(source: &Path, target: &Path) {
    let tags = |image: &Path| run("blkid", &["-p", "-o", "export", text(image)]).replace(text(image), "");
    assert_eq!(tags(source), tags(target));
    if !source.ends_with("swap-hibernated") {
        assert_eq!(run("swaplabel", &[text(source)]), run("swaplabel", &[text(target)]));
    }
}
