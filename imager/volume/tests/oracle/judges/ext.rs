//! What e2fsprogs and the kernel say of ext2, ext3 and ext4.

use super::extent;
use crate::tools::{Mount, digest, digest_of_copy, run, text};
use imager_units::{ByteLen, Extent, ExtentSet};
use std::path::Path;

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

/// e2fsck finds nothing, and the files are the same.
pub(crate) fn copy(source: &Path, target: &Path, dir: &Path) {
    compare(source, target, dir);
    if source.ends_with("ext4-journal-outside") {
        // Its journal is not here; without the mention of it everything else can be checked.
        for command in ["feature -has_journal", "ssv journal_dev 0", "ssv journal_uuid clear"] {
            run("debugfs", &["-w", "-R", command, text(target)]);
        }
    }
    run("e2fsck", &["-fn", text(target)]);
}

fn compare(source: &Path, target: &Path, dir: &Path) {
    let (a, b) = (Mount::new(source, dir.join("a")), Mount::new(target, dir.join("b")));
    match (a, b) {
        (Some(a), Some(b)) => assert_eq!(digest(a.dir()), digest(b.dir()), "{}", source.display()),
        (None, None) => {
            // A kernel without such blocks or features: the files by way of debugfs.
            let copied = |image: &Path, name: &str| {
                let to = dir.join(name);
                std::fs::create_dir(&to).unwrap();
                run("debugfs", &["-R", &format!("rdump / {}", text(&to)), text(image)]);
                digest_of_copy(&to)
            };
            assert_eq!(copied(source, "source"), copied(target, "copy"), "{}", source.display());
        }
        _ => panic!("{}: only one of source and copy can be mounted", source.display()),
    }
}
