//! What files have beside owner, mode and times, as far as only an ioctl tells it.

pub use crate::sys::Extended;

use crate::sys;
use imager_units::{Context, Result};
use nix::errno::Errno;
use std::os::fd::AsFd;

/// Flags, project and wanted sizes of extents; nothing where the filesystem has no such thing.
///
/// # Errors
/// `Io`.
pub fn extended(file: impl AsFd) -> Result<Extended> {
    match sys::extended(file.as_fd()) {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(Extended::default()),
        found => found.map_err(std::io::Error::from).context(|| "reading a file's attributes".to_owned()),
    }
}

/// Sets them.
///
/// # Errors
/// `Io`, `Denied`, `Unsupported`.
pub fn set_extended(file: impl AsFd, wanted: &Extended) -> Result<()> {
    let set = sys::set_extended(file.as_fd(), wanted);
    set.map_err(std::io::Error::from).context(|| "setting a file's attributes".to_owned())
}
