//! The files of a running system, below a folder that tests make up.

use nix::sys::statvfs::statvfs;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A larger file is no configuration.
const MOST_BYTES: u64 = 1 << 20;

/// A running system's files.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Default for Tree {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Tree {
    /// The files below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where an absolute path of the system is.
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A small text file; `None` where there is none that can be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let path = self.at(path);
        let is_small = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= MOST_BYTES);
        is_small.then(|| fs::read_to_string(path).ok()).flatten()
    }

    /// The paths in a folder, in order; none where there is no folder.
    pub(super) fn list(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).into_iter().flatten().flatten();
        let mut paths: Vec<_> =
            entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect();
        paths.sort();
        paths
    }

    /// Whether a folder holds anything but what `mkfs` puts there.
    pub(super) fn is_filled(&self, folder: &str) -> bool {
        self.list(folder).iter().any(|path| !path.ends_with("/lost+found"))
    }

    /// The filesystem that a path is on, by the kernel's number.
    pub(super) fn filesystem_of(&self, path: &str) -> Option<u64> {
        fs::metadata(self.at(path)).ok().map(|found| found.dev())
    }

    /// Where a path leads, as the kernel sees it.
    pub(super) fn resolved(&self, path: &str) -> Option<PathBuf> {
        self.at(path).canonicalize().ok()
    }

    /// Bytes for ordinary users that are free where something is mounted at `at`; `None` where nothing is.
    pub(super) fn free_bytes(&self, at: &str) -> Option<u64> {
        let path = self.at(at);
        let is_mounted = at == "/" || {
            let above = path.parent().unwrap_or(Path::new("/"));
            fs::metadata(&path).ok()?.dev() != fs::metadata(above).ok()?.dev()
        };
        let found = statvfs(&path).ok().filter(|_| is_mounted)?;
        found.blocks_available().checked_mul(found.fragment_size())
    }
}
