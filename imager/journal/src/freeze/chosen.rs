//! Which filesystems are frozen, in which order, and by which of their mounts.

use imager_disk::usage::MountedFilesystem;
use imager_disk::{DeviceNumber, System};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::fcntl::OFlag;
use std::cmp::Reverse;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The mounted filesystems that lie on any of `disks`, in the order of freezing: what lies in a file on another before
/// that other, because its last writes go there; what is mounted deeper before what it is mounted on.
pub(super) fn choose(system: &System, disks: &[DeviceNumber]) -> Result<Vec<MountedFilesystem>> {
    let mut chosen = system.filesystems()?;
    chosen.retain(|found| disks.iter().any(|disk| found.beneath.contains(disk)));
    let others: Vec<_> = chosen.iter().map(|found| found.devices.clone()).collect();
    chosen.sort_by_cached_key(|found| {
        let lies_on = |other: &&Vec<DeviceNumber>| {
            other.iter().any(|device| found.beneath.contains(device)) && **other != found.devices
        };
        // What lies on another lies on everything that the other lies on, and so on more.
        (Reverse(others.iter().filter(lies_on).count()), Reverse(depth(found)))
    });
    Ok(chosen)
}

/// How deep it is mounted, where it is mounted highest.
fn depth(found: &MountedFilesystem) -> usize {
    found.mounts.iter().map(|(_, at)| at.components().count()).min().unwrap_or(0)
}

/// Opens a folder of it: the first of its mounts that nothing hides.
pub(crate) fn open(found: &MountedFilesystem) -> Result<File> {
    let visible = |(id, at): &(u64, PathBuf)| open_mount(*id, at).transpose();
    found.mounts.iter().find_map(visible).unwrap_or_else(|| {
        let at = found.mounts.first().map(|(_, at)| at.display().to_string()).unwrap_or_default();
        Err(Error::new(
            ErrorKind::NotFound,
            format!("{at}: the filesystem is unmounted or hidden by another"),
        ))
    })
}

fn open_mount(id: u64, at: &Path) -> Result<Option<File>> {
    let say = || format!("opening {}", at.display());
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NONBLOCK).bits();
    let opened = match File::options().read(true).custom_flags(flags).open(at) {
        // A mount on a file, or one that is gone.
        Err(error) if is_elsewhere(&error) => return Ok(None),
        opened => opened.context(say)?,
    };
    let info = format!("/proc/self/fdinfo/{}", opened.as_raw_fd());
    let info = fs::read_to_string(&info).context(|| format!("reading {info}"))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(mount.is_some_and(|mount| mount.trim().parse() == Ok(id)).then_some(opened))
}

fn is_elsewhere(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}
