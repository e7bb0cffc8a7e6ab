//! What util-linux says of swap space.

use crate::tools::{run, text};
use imager_units::{ByteLen, Extent, ExtentSet};
use std::path::Path;

/// Only the first page counts.
pub(crate) fn page(_: &Path, _: ByteLen) -> ExtentSet {
    Extent::first(ByteLen::new(4096)).into()
}

/// The header is the same to those who read it.
pub(crate) fn copy(source: &Path, target: &Path, _: &Path) {
    let tags = |image: &Path| run("blkid", &["-p", "-o", "export", text(image)]).replace(text(image), "");
    assert_eq!(tags(source), tags(target));
    if !source.ends_with("swap-hibernated") {
        assert_eq!(run("swaplabel", &[text(source)]), run("swaplabel", &[text(target)]));
    }
}
