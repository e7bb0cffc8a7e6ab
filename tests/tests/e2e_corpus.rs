//! Every filesystem image of the corpus, as a disk without a table: captured, restored onto a disk full of junk, and
//! found the same by its own checker, by the kernel or the filesystem's tools, and byte for byte where it is in use.

use halfhour_tests::{Imager, Scratch, btrfs, judge, need, recipe, tool};
use serde_json::Value;
use std::path::Path;

/// Images whose used map must not be believed: they are copied whole.
const DOUBTED: [&str; 6] = ["dirty", "unclean", "error", "corrupt", "whole", "ext-journal-device"];
/// Images in which their checkers find a fault: a feature they do not know, a log that is elsewhere or to be replayed,
/// a mark that it is in use.
const FAULTY: [&str; 5] =
    ["btrfs-simple-quota", "ext4-journal-outside", "fat16-in-use", "xfs-frozen", "xfs-frozen-rmap"];
/// One of every kind that is always run; a sample of the rest goes with them.
const ALWAYS: [&str; 36] = [
    "btrfs-default",
    "btrfs-log-in-use",
    "btrfs-set-raid5",
    "ext2-1k",
    "ext3-4k",
    "ext4-4k",
    "ext4-64k",
    "ext4-bigalloc",
    "ext4-meta-bg",
    "ext4-uninit-crc32c",
    "ext4-inline-data",
    "ext4-short",
    "ext4-odd-end",
    "ext4-shrunk",
    "ext4-dirty",
    "ext2-corrupt-bitmap",
    "fat12-floppy",
    "fat16-4k-sectors",
    "fat32",
    "xfs-4k",
    "xfs-everything",
    "xfs-pieces",
    "xfs-frozen",
    "xfs-dirty",
    "xfs-corrupt-circle",
    "exfat-4k",
    "exfat-short",
    "exfat-corrupt-bitmap",
    "f2fs-plain",
    "f2fs-corrupt-sit",
    "swap-4k",
    "swap-hibernated",
    "ntfs-4k",
    "ntfs-fragmented-list",
    "ntfs-odd-end",
    "ntfs-dirty-hibernated",
];

#[test]
fn every_filesystem_comes_back_as_it_was() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let names = recipe::corpus_names();
    let rest: Vec<_> = names.iter().map(String::as_str).filter(|name| !ALWAYS.contains(name)).collect();
    let chosen = [&ALWAYS[..], &need::sample("corpus", &rest, 12)].concat();
    let images = recipe::corpus(&scratch, &chosen);
    if images.is_empty() {
        return;
    }
    let imager = scratch.imager();
    for (name, image) in &images {
        if Path::new(image).is_dir() {
            round_trip_of_set(&imager, &scratch, name, image);
            continue;
        }
        round_trip(&imager, &scratch, name, image);
    }
    assert!(images.len() * 10 >= chosen.len() * 9, "most images can be made");
    println!("{} images came back as they were", images.len());
}

fn round_trip(imager: &Imager, scratch: &Scratch, name: &str, image: &str) {
    let before = judge::whole(image);
    let seen = imager.json(&["inspect", "--extents", image]);
    let volume = &seen["volumes"][0];
    let is_doubted = DOUBTED.iter().any(|word| name.contains(word));
    assert_eq!(volume["exact"], !is_doubted, "{name}: a used map is believed only where it is certain");
    imager.ok(&["capture", image, "--machine", name]);
    assert_eq!(judge::whole(image), before, "{name}: the source was only read");
    let size = volume["size_bytes"].as_u64().expect("a size");
    let target = scratch.junk("target", size);
    let report = imager.json(&["restore", name, "--to", &target, "--yes"]);
    assert_eq!(report["verified"], true, "{name}");
    assert_eq!(report["problems"], serde_json::json!([]), "{name}");
    let used = extents(volume);
    judge::assert_same_bytes((image, 0), (&target, 0), &used, name);
    if is_doubted {
        judge::assert_same_bytes((image, 0), (&target, 0), &[(0, size)], name);
    }
    let kind = volume["filesystem"].as_str().unwrap_or("unknown");
    let compared = judge::assert_same_filesystem(image, &target, kind, scratch, name);
    if !is_doubted && kind != "swap" && !FAULTY.contains(&name) {
        assert_eq!(judge::fsck(&target, kind).0, Some(0), "{name}: {}", judge::fsck(&target, kind).1);
    }
    if name.starts_with("ext") && name.contains("dirty") {
        replayed_alike(image, &target, scratch, name);
    }
    let again = imager.json(&["restore", name, "--to", &target, "--yes"]);
    assert_eq!(again["written_bytes"], 0, "{name}: what is there is not written again");
    println!("{name}: {compared:?}");
    std::fs::remove_file(&target).expect("a file of ours");
}

/// A filesystem on several devices: all are captured together, and restored together.
fn round_trip_of_set(imager: &Imager, scratch: &Scratch, name: &str, folder: &str) {
    let entries = std::fs::read_dir(folder).expect("a folder of devices");
    let mut devices: Vec<_> =
        entries.map(|entry| entry.expect("a device").path().display().to_string()).collect();
    devices.sort();
    let sources: Vec<_> = devices.iter().map(String::as_str).collect();
    let seen = imager.json(&[&["inspect", "--extents"], &sources[..]].concat());
    imager.ok(&[&["capture"], &sources[..], &["--machine", name]].concat());
    let volumes = seen["volumes"].as_array().expect("volumes");
    assert_eq!(volumes.len(), sources.len(), "{name}");
    let size = volumes[0]["size_bytes"].as_u64().expect("a size");
    let targets: Vec<_> =
        (1..=sources.len()).map(|number| scratch.junk(&format!("target{number}"), size)).collect();
    let to: Vec<_> = (1..).zip(&targets).map(|(number, target)| format!("{number}={target}")).collect();
    let mut arguments = vec!["restore", name, "--yes"];
    arguments.extend(to.iter().flat_map(|to| ["--to", to]));
    let alone = imager.fails(4, &arguments[..5]);
    assert!(alone["message"].as_str().expect("a message").contains("--volume 2:0"), "{alone}");
    let report = imager.json(&arguments);
    assert_eq!(report["verified"], true, "{name}");
    for ((volume, source), target) in volumes.iter().zip(&sources).zip(&targets) {
        assert_eq!(volume["exact"], true, "{name}: with all devices there is a map");
        judge::assert_same_bytes((source, 0), (target, 0), &extents(volume), name);
    }
    let restored: Vec<_> = targets.iter().map(String::as_str).collect();
    assert_eq!(btrfs::check(&restored), btrfs::check(&sources), "{name}");
    assert_eq!(btrfs::check(&restored).0, Some(0), "{name}");
    let compared = judge::compare_btrfs(&sources, &restored, scratch, name);
    println!("{name}: {compared:?}");
    targets.iter().for_each(|target| std::fs::remove_file(target).expect("a file of ours"));
}

fn extents(volume: &Value) -> Vec<(u64, u64)> {
    let list = volume["used_extents"].as_array().expect("extents were asked for");
    list.iter().map(|e| (e[0].as_u64().expect("a start"), e[1].as_u64().expect("a length"))).collect()
}

/// A log that is replayed on both sides leads to the same files.
fn replayed_alike(source: &str, target: &str, scratch: &Scratch, name: &str) {
    let (from, to) = (scratch.copy(source, "replayed-source"), scratch.copy(target, "replayed-target"));
    for image in [&from, &to] {
        let (status, said) = tool::judge("e2fsck", &["-f", "-y", image]);
        assert!(matches!(status, Some(0 | 1)), "{name}: {said}");
    }
    judge::assert_same_filesystem(&from, &to, "ext4", scratch, name);
}
