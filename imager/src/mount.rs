//! A capture as a folder: its disks and volumes as read-only files, and what is on them as folders, without restoring.
//!
//! For whoever needs one file back. The kernel asks through FUSE, the content comes from the repository as it is asked
//! for, each block checked against its id; what cannot be read is an error of that read alone, never other bytes.
//! ext2, ext3, ext4 and NTFS are read here; for other filesystems the kernel mounts the volume's file. Memory is
//! bounded by the view's caches and the requests under way.

mod attributes;
mod folder;
mod notes;
mod point;
mod serve;
mod tree;

pub use tree::{Item, Tree};

use crate::monitor::Monitor;
use crate::repository::Repository;
use imager_image::manifest::Manifest;
use imager_units::Result;
use point::Point;
use std::path::Path;

/// Who may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Who mounts it, and he sees everything.
    Owner,
    /// Everybody, each as far as the captured owners and permission bits let him.
    All,
}

/// What a capture looks like as a folder; opens its filesystems, and reads little of them.
///
/// What FUSE calls back lives as long as the process may, and so does the repository.
///
/// # Errors
/// `Corrupt`, `Unsupported` when the capture makes no sense. A filesystem that cannot be read is a note of the tree.
pub fn tree(repository: &'static Repository, manifest: &Manifest) -> Result<Tree> {
    tree::build(repository, manifest)
}

/// Mounts `tree` at the folder `at`, calls `ready`, and serves until `monitor` says to stop or somebody unmounts it.
/// A folder that does not exist is made, and removed at the end. What is still in use when it is to stop is taken out of
/// the folders at once and served to its users until the last is gone.
///
/// # Errors
/// `Exists` when the folder is not empty, or still holds a dead mount; `Denied`, `Unsupported`, `Io` when the system
/// does not let it be mounted.
pub fn serve(
    tree: Tree,
    at: &Path,
    access: Access,
    monitor: &dyn Monitor,
    ready: &mut dyn FnMut(&Path),
) -> Result<()> {
    let point = Point::prepare(at)?;
    monitor.phase("serving", None);
    let session = serve::start(tree, point.path(), access)?;
    ready(point.path());
    serve::wait(session, &point, monitor)
}
