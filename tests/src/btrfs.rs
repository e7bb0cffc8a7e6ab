//! Btrfs on one device or several, as the kernel and btrfs-progs see it.

use crate::device::{Undo, mount, scanned};
use crate::scratch::Scratch;
use crate::tool::judge;
use crate::tree::{Detail, Tree};

/// What the checker says of the metadata and all data: its status and words, without the names of devices.
pub fn check(devices: &[&str]) -> (Option<i32>, String) {
    let nodes = nodes(devices);
    let first = &nodes[0].0;
    let (status, said) = judge("btrfs", &["check", "--check-data-csum", first]);
    (status, said.replace(first, "IMAGE"))
}

/// Every file, without replaying the log; `Err` says why the kernel does not mount it.
///
/// # Errors
/// What `mount` said.
pub fn tree(devices: &[&str], scratch: &Scratch) -> Result<Tree, String> {
    let nodes = nodes(devices);
    let at = scratch.folder("mounted");
    let (status, said) =
        judge("mount", &["-o", "ro,norecovery,noatime,subvolid=5", &nodes[0].0, &at.display().to_string()]);
    if status != Some(0) {
        return Err(said);
    }
    let _mounted = mount(&nodes[0].0, &at, "remount,ro");
    Ok(Tree::read(&at, Detail::Blocks))
}

/// Read-only loop devices that the kernel knows as devices of one filesystem, until dropped.
fn nodes(devices: &[&str]) -> Vec<(String, [Undo; 2])> {
    devices.iter().map(|device| scanned(device)).collect()
}
