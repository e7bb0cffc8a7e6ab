//! What dosfstools and mtools say of FAT.

use super::extent;
use crate::tools::{digest_of_copy, output, run, text};
use imager_units::{ByteLen, ExtentSet};
use std::path::Path;

/// The clusters that fsck.fat counts as used, and everything around them. It counts and does not list, so the count is
/// compared here, and the smallest map that has so many is what ours is compared with.
pub(crate) fn by_hand(path: &Path, size: ByteLen) -> ExtentSet {
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

/// fsck.fat says of the copy what it says of the source, and the files are the same.
pub(crate) fn copy(source: &Path, target: &Path, dir: &Path) {
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
    let copied = |image: &Path, name: &str| {
        let to = dir.join(name);
        std::fs::create_dir(&to).unwrap();
        run("mcopy", &["-i", text(image), "-smnpQ", "::*", text(&to)]);
        (digest_of_copy(&to), run("mdir", &["-i", text(image), "-/", "-a", "::"]))
    };
    assert!(copied(source, "source") == copied(target, "copy"), "{name}: the files differ");
}
