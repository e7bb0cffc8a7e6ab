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
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a loop device is told (`struct loop_config` with its `struct loop_info64`, `linux/loop.h`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct LoopConfig {
    /// The descriptor of the file behind it.
    pub(crate) fd: u32,
    pub(crate) block_size: u32,
    device: [u64; 3],
    pub(crate) offset: u64,
    pub(crate) size_limit: u64,
    number: [u32; 3],
    pub(crate) flags: u32,
    names: [[u64; 8]; 2],
    key: [u64; 4],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// What a file has beside its mode (`struct fsxattr`, `linux/fs.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// `FS_XFLAG_*`.
    pub flags: u32,
    /// The wanted size of extents, in bytes.
    pub extent_size: u32,
    extents: u32,
    /// The project.
    pub project: u32,
    /// The wanted size of extents that are copied on write, in bytes.
    pub copy_extent_size: u32,
    pad: [u8; 8],
}

/// A name for an ioctl of Btrfs (`struct btrfs_ioctl_vol_args`, `linux/btrfs.h`).
#[repr(C)]
pub(crate) struct VolumeArguments {
    pub(crate) fd: i64,
    pub(crate) name: [u8; 4088],
}

/// A question to Btrfs about an inode (`struct btrfs_ioctl_ino_lookup_args`).
#[repr(C)]
struct InodeLookup {
    tree: u64,
    inode: u64,
    name: [u8; 4080],
}

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
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, super::LoopConfig);
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
    nix::ioctl_write_ptr!(btrfs_subvol_create, 0x94, 14, super::VolumeArguments);
    nix::ioctl_readwrite!(btrfs_ino_lookup, 0x94, 18, super::InodeLookup);
    nix::ioctl_write_ptr!(btrfs_default_subvol, 0x94, 19, u64);
    nix::ioctl_read!(btrfs_subvol_getflags, 0x94, 25, u64);
    nix::ioctl_write_ptr!(btrfs_subvol_setflags, 0x94, 26, u64);
    nix::ioctl_write_ptr!(btrfs_forget_dev, 0x94, 5, super::VolumeArguments);
    nix::ioctl_read!(fsgetxattr, b'X', 31, super::Extended);
    nix::ioctl_write_ptr!(fssetxattr, b'X', 32, super::Extended);
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

/// The number of a loop device that is free (`LOOP_CTL_GET_FREE`).
pub(crate) fn free_loop(control: &File) -> Result<c_int, Errno> {
    // SAFETY: `control` is open for the call, which takes no memory.
    unsafe { raw::loop_ctl_get_free(control.as_raw_fd()) }
}

/// Puts a file behind a loop device (`LOOP_CONFIGURE`).
pub(crate) fn configure_loop(device: &File, config: &LoopConfig) -> Result<(), Errno> {
    // SAFETY: `device` is open for the call; the kernel reads one `loop_config`, and `config` is laid out as one.
    unsafe { raw::loop_configure(device.as_raw_fd(), &raw const *config) }?;
    Ok(())
}

/// What a file has beside its mode (`FS_IOC_FSGETXATTR`).
pub(crate) fn extended(file: BorrowedFd<'_>) -> Result<Extended, Errno> {
    let mut found = Extended::default();
    // SAFETY: `file` is open for the call; the kernel writes one `fsxattr`, and `found` is laid out as one.
    unsafe { raw::fsgetxattr(file.as_raw_fd(), &raw mut found) }?;
    Ok(found)
}

/// Sets it (`FS_IOC_FSSETXATTR`).
pub(crate) fn set_extended(file: BorrowedFd<'_>, wanted: &Extended) -> Result<(), Errno> {
    // SAFETY: `file` is open for the call; the kernel reads one `fsxattr`, and `wanted` is laid out as one.
    unsafe { raw::fssetxattr(file.as_raw_fd(), &raw const *wanted) }?;
    Ok(())
}

/// Makes a subvolume in a folder of Btrfs (`BTRFS_IOC_SUBVOL_CREATE`).
pub(crate) fn create_subvolume(folder: BorrowedFd<'_>, wanted: &VolumeArguments) -> Result<(), Errno> {
    // SAFETY: `folder` is open for the call; the kernel reads one `btrfs_ioctl_vol_args`, and `wanted` is laid out as one.
    unsafe { raw::btrfs_subvol_create(folder.as_raw_fd(), &raw const *wanted) }?;
    Ok(())
}

/// The number of the subvolume that a file of Btrfs is in (`BTRFS_IOC_INO_LOOKUP`).
pub(crate) fn subvolume_number(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    // Of the topmost folder of the subvolume of the file itself.
    let mut lookup = InodeLookup { tree: 0, inode: 256, name: [0; 4080] };
    // SAFETY: `file` is open for the call; the kernel reads and writes one `btrfs_ioctl_ino_lookup_args`, and `lookup` is
    // laid out as one.
    unsafe { raw::btrfs_ino_lookup(file.as_raw_fd(), &raw mut lookup) }?;
    Ok(lookup.tree)
}

/// Has a subvolume mounted where none is named (`BTRFS_IOC_DEFAULT_SUBVOL`).
pub(crate) fn set_default_subvolume(file: BorrowedFd<'_>, number: u64) -> Result<(), Errno> {
    // SAFETY: `file` is open for the call; the kernel reads one u64, and `number` is one.
    unsafe { raw::btrfs_default_subvol(file.as_raw_fd(), &raw const number) }?;
    Ok(())
}

/// The flags of a subvolume (`BTRFS_IOC_SUBVOL_GETFLAGS`).
pub(crate) fn subvolume_flags(top: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut flags = 0_u64;
    // SAFETY: `top` is open for the call; the kernel writes one u64, and `flags` is one.
    unsafe { raw::btrfs_subvol_getflags(top.as_raw_fd(), &raw mut flags) }?;
    Ok(flags)
}

/// Sets them (`BTRFS_IOC_SUBVOL_SETFLAGS`).
pub(crate) fn set_subvolume_flags(top: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    // SAFETY: `top` is open for the call; the kernel reads one u64, and `flags` is one.
    unsafe { raw::btrfs_subvol_setflags(top.as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// Has the kernel forget a device that was part of a Btrfs (`BTRFS_IOC_FORGET_DEV`).
pub(crate) fn forget_btrfs(control: &File, device: &VolumeArguments) -> Result<(), Errno> {
    // SAFETY: `control` is open for the call; the kernel reads one `btrfs_ioctl_vol_args`, and `device` is laid out as one.
    unsafe { raw::btrfs_forget_dev(control.as_raw_fd(), &raw const *device) }?;
    Ok(())
}

const _: () = assert!(size_of::<VolumeArguments>() == 4096 && size_of::<InodeLookup>() == 4096);
const _: () = assert!(size_of::<LoopConfig>() == 304 && size_of::<Extended>() == 28);
