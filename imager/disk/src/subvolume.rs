//! Subvolumes of Btrfs: what only an ioctl makes of a folder.

use crate::sys::{self, VolumeArguments};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1 << 1;
/// The inode of the top folder of every subvolume (`BTRFS_FIRST_FREE_OBJECTID`).
pub const TOP_INODE: u64 = 256;

/// Makes one.
///
/// # Errors
/// `Io`, `Exists`, `OutOfSpace`.
pub fn create(folder: impl AsFd, name: &CStr) -> Result<()> {
    let made = sys::create_subvolume(folder.as_fd(), &arguments(name.to_bytes())?);
    made.map_err(std::io::Error::from).context(|| "making a subvolume".to_owned())
}

/// The number of the one that a file is in; `None` where the filesystem has none.
///
/// # Errors
/// `Io`.
pub fn number_of(file: impl AsFd) -> Result<Option<u64>> {
    match sys::subvolume_number(file.as_fd()) {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => Ok(None),
        found => {
            found.map(Some).map_err(std::io::Error::from).context(|| "asking for a subvolume".to_owned())
        }
    }
}

/// Whether one, of which `top` is the top folder, is read-only.
///
/// # Errors
/// `Io`.
pub fn is_read_only(top: impl AsFd) -> Result<bool> {
    let flags = sys::subvolume_flags(top.as_fd());
    let flags = flags.map_err(std::io::Error::from).context(|| "asking for a subvolume".to_owned())?;
    Ok(flags & READ_ONLY != 0)
}

/// Makes one read-only.
///
/// # Errors
/// `Io`.
pub fn set_read_only(top: impl AsFd) -> Result<()> {
    let set = sys::set_subvolume_flags(top.as_fd(), READ_ONLY);
    set.map_err(std::io::Error::from).context(|| "making a subvolume read-only".to_owned())
}

/// Has the subvolume of this number mounted where none is named.
///
/// # Errors
/// `Io`.
pub fn set_default(file: impl AsFd, number: u64) -> Result<()> {
    let set = sys::set_default_subvolume(file.as_fd(), number);
    set.map_err(std::io::Error::from).context(|| "setting the default subvolume".to_owned())
}

/// Has the kernel forget a device that it knows for a part of a Btrfs.
///
/// # Errors
/// `Io`, `NotFound` where there is no Btrfs.
pub fn forget(device: &Path) -> Result<()> {
    let say = || "forgetting a device of Btrfs".to_owned();
    let control = File::options().read(true).write(true).open("/dev/btrfs-control").context(say)?;
    let forgotten = sys::forget_btrfs(&control, &arguments(device.as_os_str().as_bytes())?);
    forgotten.map_err(std::io::Error::from).context(say)
}

fn arguments(name: &[u8]) -> Result<VolumeArguments> {
    let mut arguments = VolumeArguments { fd: 0, name: [0; 4088] };
    let room = arguments.name.get_mut(..name.len()).filter(|room| room.len() < 4088);
    room.ok_or_else(|| Error::new(ErrorKind::Invalid, "too long a name"))?.copy_from_slice(name);
    Ok(arguments)
}
