//! What exfatprogs, partclone and exfat-fuse say of exFAT.

use super::{extent, partclone};
use crate::tools::{Mount, digest, output, run, text};
use imager_units::{ByteLen, Extent, ExtentSet};
use std::path::Path;

/// The clusters that partclone copies, whose number is what dump.exfat counts, and everything around the clusters.
/// partclone 0.3.23 leaves out the last one.
pub(crate) fn used(path: &Path, size: ByteLen) -> ExtentSet {
    let dump = run("dump.exfat", &[text(path)]);
    let number = |label: &str| -> u64 {
        let line = dump.lines().find_map(|line| line.strip_prefix(label)).unwrap();
        line.trim().parse().unwrap()
    };
    let sector = 1 << number("Sector Size Bits:");
    let start = number("Cluster Heap Offset (sector offset):") * sector;
    let (cluster, clusters) = (number("Cluster size:"), number("Total Clusters:"));
    let heap = extent(start, start + clusters * cluster);
    let mut used = partclone(path, "partclone.exfat").intersection(&heap.into());
    let counted = (clusters - number("Free Clusters:")) * cluster;
    if used.total().get() < counted {
        used.insert(extent(heap.end().get() - cluster, heap.end().get()));
    }
    assert_eq!(used.total().get(), counted, "{}: clusters in use", path.display());
    used.union(&ExtentSet::from(heap).complement(Extent::first(size)))
}

/// fsck.exfat finds nothing, and the files are the same.
pub(crate) fn copy(source: &Path, target: &Path, dir: &Path) {
    let name = source.file_name().unwrap().to_str().unwrap();
    let check = |image: &Path| {
        let output = output("fsck.exfat", &["-n", text(image)]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).replace(text(image), ""))
    };
    let said = check(target);
    assert_eq!(said.0, Some(0), "{name}: {}", said.1);
    assert_eq!(check(source), said, "{name}");
    match (Mount::new(source, dir.join("a")), Mount::new(target, dir.join("b"))) {
        (Some(a), Some(b)) => assert_eq!(digest(a.dir()), digest(b.dir()), "{name}: the files differ"),
        (None, None) => println!("{name}: no kernel or user to mount it, so its files are not compared"),
        _ => panic!("{name}: only one of source and copy can be mounted"),
    }
}
