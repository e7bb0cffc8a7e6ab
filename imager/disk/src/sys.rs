//! The kernel calls that are not safe Rust: the ioctls of block devices (`linux/fs.h`).
//!
//! Each wrapper takes the descriptor of an open file, which the borrow keeps open, and memory of just the type that
//! the kernel reads or writes. On anything but a block device the kernel answers `ENOTTY` or `EINVAL` and touches
//! nothing.
#![expect(unsafe_code, reason = "ioctls take raw pointers; no crate wraps these")]

use imager_units::{ByteLen, Extent};
use nix::errno::Errno;
use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::os::fd::AsRawFd;

/// The ioctl type of block devices.
const BLK: u8 = 0x12;

mod raw {
    use super::BLK;
    use std::ffi::{c_int, c_uint};

    nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(BLK, 93), c_int);
    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(BLK, 94), c_int);
    nix::ioctl_none!(blkrrpart, BLK, 95);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(BLK, 104), c_int);
    nix::ioctl_read!(blkgetsize64, BLK, 114, u64);
    nix::ioctl_read_bad!(blkpbszget, nix::request_code_none!(BLK, 123), c_uint);
    nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(BLK, 127), [u64; 2]);
}

/// The size of a block device (`BLKGETSIZE64`).
pub(crate) fn size(device: &File) -> Result<ByteLen, Errno> {
    let mut bytes = 0_u64;
    // SAFETY: `device` is open for the call; the kernel writes one u64, and `bytes` is one.
    unsafe { raw::blkgetsize64(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(ByteLen::new(bytes))
}

/// The logical sector size in bytes (`BLKSSZGET`).
pub(crate) fn logical_sector_bytes(device: &File) -> Result<u32, Errno> {
    let mut bytes: c_int = 0;
    // SAFETY: `device` is open for the call; the kernel writes one int, and `bytes` is one.
    unsafe { raw::blksszget(device.as_raw_fd(), &raw mut bytes) }?;
    u32::try_from(bytes).map_err(|_| Errno::EINVAL)
}

/// The physical sector size in bytes (`BLKPBSZGET`).
pub(crate) fn physical_sector_bytes(device: &File) -> Result<u32, Errno> {
    let mut bytes: c_uint = 0;
    // SAFETY: `device` is open for the call; the kernel writes one unsigned int, and `bytes` is one.
    unsafe { raw::blkpbszget(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// Whether writes are refused (`BLKROGET`).
pub(crate) fn is_read_only(device: &File) -> Result<bool, Errno> {
    let mut read_only: c_int = 0;
    // SAFETY: `device` is open for the call; the kernel writes one int, and `read_only` is one.
    unsafe { raw::blkroget(device.as_raw_fd(), &raw mut read_only) }?;
    Ok(read_only != 0)
}

/// Refuses writes, or allows them again (`BLKROSET`).
pub(crate) fn set_read_only(device: &File, read_only: bool) -> Result<(), Errno> {
    let read_only = c_int::from(read_only);
    // SAFETY: `device` is open for the call; the kernel reads one int, and `read_only` is one.
    unsafe { raw::blkroset(device.as_raw_fd(), &raw const read_only) }?;
    Ok(())
}

/// Has the kernel read the partition table again (`BLKRRPART`).
pub(crate) fn reread_table(disk: &File) -> Result<(), Errno> {
    // SAFETY: `disk` is open for the call, which takes no memory.
    unsafe { raw::blkrrpart(disk.as_raw_fd()) }?;
    Ok(())
}

/// Makes a run of whole sectors read as zeros, by the device's own means or by writing (`BLKZEROOUT`).
pub(crate) fn zero(device: &File, extent: Extent) -> Result<(), Errno> {
    let range = [extent.start().get(), extent.len().get()];
    // SAFETY: `device` is open for the call; the kernel reads two u64, and `range` is two.
    unsafe { raw::blkzeroout(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}
