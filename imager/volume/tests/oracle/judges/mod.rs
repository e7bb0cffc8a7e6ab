//! The opinions of others on a map.

pub(crate) mod btrfs;
mod exfat;
mod ext;
mod f2fs;
mod fat;
mod ntfs;
mod swap;
mod xfs;

use crate::tools::{run, text};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet, Result};
use imager_volume::{Filesystem, State, UsedMap};
use std::path::Path;

/// Who judges a filesystem.
pub(crate) struct Judges {
    /// The bytes of an image that others call used.
    pub(crate) used: fn(&Path, ByteLen) -> ExtentSet,
    /// The program of partclone for it, if there is one.
    pub(crate) partclone: Option<&'static str>,
    /// Fails unless a copy (second) passes its checker and holds the files of the source (first); may use the folder.
    pub(crate) copy: fn(&Path, &Path, &Path),
}

/// Who judges filesystems of this kind.
pub(crate) fn of(kind: &str) -> Judges {
    match kind {
        "btrfs" => Judges {
            used: |path, _| btrfs::used(&[path.to_owned()]).remove(0),
            partclone: Some("partclone.btrfs"),
            copy: btrfs::copy,
        },
        "ext2" | "ext3" | "ext4" => {
            Judges { used: ext::dumpe2fs, partclone: Some("partclone.extfs"), copy: ext::copy }
        }
        "fat12" | "fat16" | "fat32" => {
            Judges { used: fat::by_hand, partclone: Some("partclone.fat"), copy: fat::copy }
        }
        "ntfs" => Judges { used: ntfs::bitmap, partclone: Some("partclone.ntfs"), copy: ntfs::copy },
        "exfat" => Judges { used: exfat::used, partclone: None, copy: exfat::copy },
        "f2fs" => Judges { used: f2fs::used, partclone: None, copy: f2fs::copy },
        "swap" => Judges { used: swap::page, partclone: None, copy: swap::copy },
        "xfs" => Judges { used: xfs::freesp, partclone: Some("partclone.xfs"), copy: xfs::copy },
        other => panic!("nobody judges {other}"),
    }
}

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

pub(crate) fn extent(from: u64, to: u64) -> Extent {
    Extent::between(ByteOffset::new(from), ByteOffset::new(to))
}

/// What partclone would copy.
pub(crate) fn partclone(path: &Path, tool: &str) -> ExtentSet {
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

/// Larger files are not compared one by one.
const MOST_BYTES: u64 = 32 << 20;

/// What reads the file at a path.
type ReadFile<'a> = dyn Fn(&str) -> Result<Vec<u8>> + 'a;

/// Every file below `dir`, as the kernel and as we read it; how many. Links are followed as far as they stay inside.
fn compare_files(read: &ReadFile<'_>, root: &Path, dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            count += compare_files(read, root, &path);
            continue;
        }
        let inside = path.strip_prefix(root).unwrap().to_owned();
        // The root is this filesystem's, not ours.
        let target = path.read_link().ok().filter(|target| target.is_absolute());
        let path = target.map_or(path.clone(), |target| root.join(target.strip_prefix("/").unwrap()));
        let real = path.metadata().ok().filter(|real| real.is_file() && real.len() <= MOST_BYTES);
        let found = read(text(&inside));
        if real.is_none() {
            assert!(found.is_err(), "{}", path.display());
            continue;
        }
        assert!(found.unwrap() == std::fs::read(&path).unwrap(), "{}", path.display());
        count += 1;
    }
    count
}
