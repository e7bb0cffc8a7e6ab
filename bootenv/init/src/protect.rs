//! Write protection: the kernel refuses writes to every disk and partition, from the moment that it knows them. A
//! restore lifts that for what its plan names, and puts it back.

use imager_disk::{Access, Device, Protection};
use imager_units::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Memory that looks like a disk, and drives whose opening moves something.
const NOT_DISKS: [&str; 4] = ["loop", "ram", "zram", "fd"];

/// Has a disk or partition refuse writes, by the kernel's name; `false` for what is no disk.
///
/// # Errors
/// `Io` when it cannot be opened, or will not.
pub(crate) fn protect(name: &str) -> Result<bool> {
    let is_disk = !NOT_DISKS.iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    });
    if !is_disk {
        return Ok(false);
    }
    let node = Path::new("/dev").join(name.replace('!', "/"));
    match Device::open(&node, Access::Read, None) {
        Ok(device) => device.protect(Protection::ReadOnly).map(|()| true),
        // A drive without a medium holds nothing to protect; the node of what was pulled out is gone.
        Err(_) if is_empty(name) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel says that there is nothing on it.
fn is_empty(name: &str) -> bool {
    let size = fs::read_to_string(format!("/sys/class/block/{name}/size")).unwrap_or_default();
    matches!(size.trim(), "" | "0")
}

/// Every disk and partition that the kernel knows now: its names.
pub(crate) fn known() -> Result<Vec<String>> {
    let folder = PathBuf::from("/sys/class/block");
    let say = || format!("reading {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).context(say)? {
        names.extend(entry.context(say)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
