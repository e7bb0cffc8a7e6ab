//! What ntfs-3g says of NTFS.

use super::extent;
use crate::tools::{Mount, digest, output, run, text};
use imager_units::{ByteLen, ExtentSet};
use std::path::Path;

/// The clusters whose bit is set in `$Bitmap` as ntfscat reads it, and everything behind the last one.
pub(crate) fn bitmap(path: &Path, size: ByteLen) -> ExtentSet {
    let about = run("ntfsinfo", &["-f", "-m", text(path)]);
    let number = |label: &str| {
        let line = about.lines().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let (cluster, clusters) = (number("Cluster Size:"), number("Volume Size in Clusters:"));
    let bits = output("ntfscat", &["-f", "-i", "6", text(path)]).stdout;
    assert!(bits.len() as u64 * 8 >= clusters, "{}", path.display());
    let is_set = |number: u64| bits[usize::try_from(number / 8).unwrap()] >> (number % 8) & 1 == 1;
    let mut used: ExtentSet = (0..clusters)
        .filter(|&number| is_set(number))
        .map(|number| extent(number * cluster, (number + 1) * cluster))
        .collect();
    used.insert(extent(clusters * cluster, size.get()));
    used
}

/// ntfsresize, which accounts for every cluster, finds nothing; ntfs-3g would mount it for writing; the copy of the
/// boot sector is there; the files are the same.
pub(crate) fn copy(source: &Path, target: &Path, dir: &Path) {
    let name = source.file_name().unwrap().to_str().unwrap();
    let check = |image: &Path| {
        let said = run("ntfsresize", &["--info", "--force", "--no-progress-bar", text(image)]);
        run("ntfs-3g.probe", &["--readwrite", text(image)]);
        said.replace(text(image), "")
    };
    assert_eq!(check(source), check(target), "{name}");
    let last = |image: &Path| {
        let bytes = std::fs::read(image).unwrap();
        bytes[bytes.len() - 512..].to_vec()
    };
    assert!(last(source) == last(target), "{name}: the last sector");
    let options = "ro,norecover,permissions,streams_interface=xattr";
    let tree = |image: &Path, at: &str| {
        let mount = Mount::by_fuse("ntfs-3g", image, options, dir.join(at));
        digest(mount.dir())
    };
    assert_eq!(tree(source, "a"), tree(target, "b"), "{name}: the files differ");
}
