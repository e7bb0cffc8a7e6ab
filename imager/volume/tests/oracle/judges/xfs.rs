//! What xfsprogs and the kernel say of XFS.

use super::{MOST_BYTES, compare_files, extent};
use crate::image::Image;
use crate::tools::{Mount, digest, output, run, text};
use imager_units::{ByteLen, Extent, ExtentSet};
use imager_volume::xfs::Files;
use std::path::Path;

/// Everything but what xfs_db finds free, in the trees and in the groups' reserves.
pub(crate) fn freesp(path: &Path, size: ByteLen) -> ExtentSet {
    let fields = run("xfs_db", &["-r", "-c", "sb 0", "-c", "p blocksize agblocks", text(path)]);
    let number = |label: &str| {
        let value = fields.lines().find_map(|line| line.strip_prefix(label)?.trim().strip_prefix("= "));
        value.unwrap().parse::<u64>().unwrap()
    };
    let (block, group_blocks) = (number("blocksize"), number("agblocks"));
    let dump = run("xfs_db", &["-r", "-c", "freesp -d", text(path)]);
    // Behind the runs comes a histogram.
    let lines = dump.lines().skip(1).take_while(|line| !line.contains("from"));
    let mut free: Vec<Extent> = lines
        .map(|line| {
            let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
            let first = fields[0] * group_blocks + fields[1];
            extent(first * block, (first + fields[2]) * block)
        })
        .collect();
    free.sort_unstable();
    free.into_iter().collect::<ExtentSet>().complement(Extent::first(size))
}

/// The files are the same, and xfs_repair finds nothing. Where the log is covered only, it must be replayed first:
/// the kernel does that, as it will after a restore.
pub(crate) fn copy(source: &Path, target: &Path, dir: &Path) {
    let (a, b) = (Mount::new(source, dir.join("a")), Mount::new(target, dir.join("b")));
    match (a, b) {
        (Some(a), Some(b)) => {
            assert_eq!(digest(a.dir()), digest(b.dir()), "{}", source.display());
            let image = Image::open(target);
            let files = Files::open(&image).unwrap().expect("recognised");
            let read = |path: &str| files.read(path, MOST_BYTES);
            let count = compare_files(&read, a.dir(), a.dir());
            println!("{}: {count} files read by their paths", source.display());
            assert!(count > 0 || text(source).contains("empty") || text(source).contains("frozen"));
        }
        // A kernel without version 4: what is not free was compared.
        (None, None) => compare_old_files(&Image::open(target)),
        _ => panic!("{}: only one of source and copy can be mounted", source.display()),
    }
    if text(source).contains("frozen") {
        let at = dir.join("replayed");
        std::fs::create_dir(&at).unwrap();
        run("mount", &["-o", "loop,nouuid", text(target), text(&at)]);
        let umounted = output("umount", &[text(&at)]);
        assert!(umounted.status.success(), "{}", source.display());
    }
    // With one group there is no second superblock to compare the first with.
    run("xfs_repair", &["-n", "-o", "force_geometry", text(target)]);
}

/// The files that mkfs.xfs itself put there, whose names are their lengths.
fn compare_old_files(image: &Image) {
    let files = Files::open(image).unwrap().expect("recognised");
    for len in [0, 1, 61, 513, 4097, 65_537, 1_000_000] {
        let content = files.read(&format!("/sizes/{len}"), MOST_BYTES).unwrap();
        assert_eq!(content.len(), len);
        assert!(len < 8 || content.iter().any(|&byte| byte != 0), "{len}");
    }
    let read = |path: &str| files.read(path, MOST_BYTES).unwrap();
    assert_eq!(read("link"), read("/sizes/../sizes/./4097"));
}
