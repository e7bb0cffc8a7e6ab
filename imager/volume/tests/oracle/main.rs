//! Used maps against the tools that made the filesystems.
//!
//! `tests/corpus/make` builds the images. For each: what `blkid` calls it; every block that dumpe2fs or partclone call
//! used is in the map, and little more; and, strongest, only the mapped bytes are copied onto a target full of junk,
//! which the filesystem's checker must then find clean and whose files must equal the source's in content, owner,
//! mode, times and attributes. None of the judges is ours.
//!
//! Without the tools the test is skipped with a printed reason, unless `CI` is set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod image;
mod judges;
mod set;
mod tools;

use image::Image;
use imager_units::{ByteLen, Extent, ExtentSet};
use imager_volume::{Certainty, State, UsedMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tools::run;

const TOOLS: [&str; 43] = [
    "blkid",
    "btrfs",
    "btrfstune",
    "debugfs",
    "dump.exfat",
    "dump.f2fs",
    "dumpe2fs",
    "e2fsck",
    "fsck.exfat",
    "fsck.f2fs",
    "fsck.fat",
    "mcopy",
    "mke2fs",
    "mkfs.exfat",
    "mkfs.f2fs",
    "mkfs.fat",
    "mkfs.xfs",
    "mkntfs",
    "mkswap",
    "mount.exfat-fuse",
    "mountpoint",
    "ntfs-3g",
    "ntfs-3g.probe",
    "ntfscat",
    "ntfsfix",
    "ntfsinfo",
    "ntfsresize",
    "openssl",
    "partclone.exfat",
    "partclone.extfs",
    "partclone.fat",
    "partclone.ntfs",
    "partclone.xfs",
    "python3",
    "resize2fs",
    "setfattr",
    "sload.f2fs",
    "swaplabel",
    "tune.exfat",
    "xfs_admin",
    "xfs_db",
    "xfs_io",
    "xfs_repair",
];
/// Fewer would mean that the recipe builds little here.
const LEAST_IMAGES: usize = 25;
/// partclone pauses for seconds in every run, so only where its opinion differs in kind.
const PARTCLONE: [&str; 12] = [
    "ext2-1k",
    "ext3-4k",
    "ext4-1k",
    "ext4-meta-bg",
    "ext4-sparse-super2",
    "ext4-uninit-crc16",
    "fat16",
    "fat32",
    "ntfs-4k",
    "ntfs-fragmented-list",
    "xfs-everything",
    "xfs-pieces",
];

/// What a healthy map may have beyond its oracle.
fn tolerance(size: ByteLen) -> ByteLen {
    ByteLen::new((size.get() / 50).max(1 << 20))
}

#[test]
fn maps_of_real_filesystems_restore_onto_junk() {
    if let Some(missing) = tools::missing(&TOOLS) {
        assert!(std::env::var_os("CI").is_none(), "needed and not found: {missing}");
        println!("skipped: {missing} not found");
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/make");
    let chosen = chosen(recipe.to_str().unwrap());
    let mut args = vec![dir.path().to_str().unwrap()];
    args.extend(chosen.iter().flatten().map(String::as_str));
    run(recipe.to_str().unwrap(), &args);
    let mut images: Vec<PathBuf> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    images.sort();
    assert!(chosen.is_some() || images.len() >= LEAST_IMAGES, "only {} images", images.len());

    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match std::panic::catch_unwind(|| judge(path)) {
                        Ok(line) => println!("{line}"),
                        Err(_) => failures.lock().unwrap().push(name(path)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "wrong: {failures:?}");
}

/// The images whose names begin with `HALFHOUR_IMAGES`, if that is set: for work on one filesystem. Otherwise every other
/// one, by a seed that is printed (and taken from `HALFHOUR_SEED`), or all of them for a full run.
fn chosen(recipe: &str) -> Option<Vec<String>> {
    let names = run(recipe, &["--list"]);
    let names = names.lines().map(str::to_owned);
    if let Ok(prefix) = std::env::var("HALFHOUR_IMAGES") {
        return Some(names.filter(|name| name.starts_with(&prefix)).collect());
    }
    if std::env::var_os("HALFHOUR_FULL").is_some() {
        return None;
    }
    let given = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse::<usize>().ok());
    let seed = given.unwrap_or_else(|| std::process::id() as usize);
    println!("images: HALFHOUR_SEED={seed} takes every other one");
    Some(names.skip(seed % 2).step_by(2).collect())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Judges one image; returns a line of figures.
fn judge(path: &Path) -> String {
    if path.is_dir() {
        return set::judge(path);
    }
    let name = name(path);
    let image = Image::open(path);
    let found = imager_volume::probe(&image).unwrap().expect("recognised");
    judges::identity(path, &found);
    let map = imager_volume::used(&image).unwrap();
    assert!(found.head.difference(&map.extents).is_empty(), "{name}: the head is in the map");
    judges::alignment(&name, &map, image.size());
    let untrusted = ["dirty", "unclean", "error", "corrupt", "whole", "journal-device"]
        .iter()
        .any(|word| name.contains(word));
    if untrusted {
        return whole(&name, &map, image.size());
    }
    assert_eq!(map.certainty, Certainty::Exact, "{name}");
    let hibernated = name.contains("hibernated");
    let dirty = name.contains("in-use");
    assert_eq!(found.state == State::Clean, !hibernated && !dirty, "{name}: {:?}", found.state);
    assert_eq!(found.state == State::Hibernated, hibernated, "{name}");
    let judges = judges::of(found.kind);
    let mut oracle = (judges.used)(path, image.size());
    if let Some(tool) = judges.partclone.filter(|_| PARTCLONE.contains(&name.as_str())) {
        oracle = oracle.union(&judges::partclone(path, tool));
    }
    let extra = compare(&name, &map, &oracle, image.size());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let target = dir.path().join("target");
    image.restore(&map.extents, &target);
    (judges.copy)(path, &target, dir.path());
    format!(
        "{name}: map {} in {} extents, oracle {}, {extra} more",
        map.extents.total(),
        map.extents.count(),
        oracle.total()
    )
}

fn whole(name: &str, map: &UsedMap, size: ByteLen) -> String {
    let Certainty::Whole(reason) = &map.certainty else { panic!("{name}: the map was believed") };
    assert_eq!(map.extents, Extent::first(size).into(), "{name}");
    format!("{name}: whole: {reason}")
}

/// Checks that the map has all that `oracle` has, and returns how much more.
fn compare(name: &str, map: &UsedMap, oracle: &ExtentSet, size: ByteLen) -> ByteLen {
    let missing = oracle.difference(&map.extents);
    assert!(missing.is_empty(), "{name}: the map lacks {:?}", missing.iter().take(5).collect::<Vec<_>>());
    let extra = map.extents.difference(oracle).total();
    assert!(extra <= tolerance(size), "{name}: {extra} too many");
    extra
}
