//! What a directory, symlink or kept file has beside its name and content, from one filesystem to another.
//!
//! The order matters: the owner before the mode, which loses its set-id bits otherwise; the mode before the access list,
//! whose mask it would change; what forbids changes last but for the times, which come when nothing else is to come.

use imager_disk::inode::{extended, set_extended};
use imager_units::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, IFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

/// `FS_XFLAG_IMMUTABLE` and `FS_XFLAG_APPEND`.
const FORBIDDING: u32 = 0x18;
/// `FS_XFLAG_HASATTR`: a state.
const HAS_ATTRIBUTES: u32 = 0x8000_0000;
/// Flags that say how something is stored, and are the filesystem's business (encrypted, with an index, inline, …).
const OF_STORAGE: IFlags =
    IFlags::from_bits_retain(0x1000_0000 | 0x8_0000 | 0x1000 | 0x800 | 0x4_0000 | 0x20_0000 | 0x10_0000);
/// `FS_CASEFOLD_FL`: only of empty directories.
const CASEFOLD: IFlags = IFlags::from_bits_retain(0x4000_0000);
/// `FS_ENCRYPT_FL`.
const ENCRYPTED: IFlags = IFlags::from_bits_retain(0x800);

/// Why an entry is not as it should be.
pub(super) type Failed = std::io::Error;

/// Whether the names in a directory are encrypted, so that nobody without the key can make them.
pub(super) fn is_encrypted(directory: BorrowedFd<'_>) -> bool {
    flags(directory).contains(ENCRYPTED)
}

fn flags(file: BorrowedFd<'_>) -> IFlags {
    rustix::fs::ioctl_getflags(file).unwrap_or(IFlags::empty())
}

/// What has to be so before there is anything in a directory: its project, which is inherited, and how it compares names.
pub(super) fn prepare(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let wanted = extended(from)?;
    let is_plain = wanted.project == 0 && wanted.flags & !FORBIDDING & !HAS_ATTRIBUTES == 0;
    if !is_plain {
        let mut there = extended(to)?;
        there.flags |= wanted.flags & !FORBIDDING & !HAS_ATTRIBUTES;
        (there.project, there.extent_size) = (wanted.project, wanted.extent_size);
        there.copy_extent_size = wanted.copy_extent_size;
        set_extended(to, &there)?;
    }
    let folded = flags(from) & CASEFOLD;
    if !folded.is_empty() {
        let there = flags(to);
        let set = rustix::fs::ioctl_setflags(to, there | folded);
        set.map_err(Failed::from).context(|| "having it compare names without case".to_owned())?;
    }
    Ok(())
}

/// Everything else of an open directory or file.
pub(super) fn finish(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
) -> std::result::Result<(), Failed> {
    rustix::fs::fchown(to, Some(owner(stat)), Some(group(stat)))?;
    rustix::fs::fchmod(to, rustix::fs::Mode::from_raw_mode(stat.st_mode))?;
    let names = list(|buffer| rustix::fs::flistxattr(from, buffer))?;
    for name in names {
        let value = read(|buffer| rustix::fs::fgetxattr(from, &*name, buffer))?;
        rustix::fs::fsetxattr(to, &*name, &value, XattrFlags::empty()).map_err(|code| named(&name, code))?;
    }
    rustix::fs::futimens(to, &times(stat))?;
    let (wanted, there) = (flags(from) - OF_STORAGE, flags(to));
    if wanted != there - OF_STORAGE {
        rustix::fs::ioctl_setflags(to, wanted | there & OF_STORAGE)?;
    }
    let wanted = extended(from).map_err(|error| Failed::other(imager_volume::chain(&error)))?;
    if wanted.flags & FORBIDDING != 0 {
        let mut there = extended(to).map_err(|error| Failed::other(imager_volume::chain(&error)))?;
        let forbidding = wanted.flags & FORBIDDING;
        if there.flags & FORBIDDING != forbidding {
            there.flags |= forbidding;
            set_extended(to, &there).map_err(|error| Failed::other(imager_volume::chain(&error)))?;
        }
    }
    Ok(())
}

/// Everything else of a symlink.
pub(super) fn finish_symlink(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
) -> std::result::Result<(), Failed> {
    rustix::fs::chownat(to, name, Some(owner(stat)), Some(group(stat)), AtFlags::SYMLINK_NOFOLLOW)?;
    // There are no such calls beside a descriptor.
    let path = |folder: BorrowedFd<'_>| {
        let prefix = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd());
        CString::new([prefix.as_bytes(), name.to_bytes()].concat()).unwrap_or_default()
    };
    let (from, at) = (path(from), path(to));
    for name in list(|buffer| rustix::fs::llistxattr(&*from, buffer))? {
        let value = read(|buffer| rustix::fs::lgetxattr(&*from, &*name, buffer))?;
        rustix::fs::lsetxattr(&*at, &*name, &value, XattrFlags::empty())
            .map_err(|code| named(&name, code))?;
    }
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn named(name: &CStr, code: Errno) -> Failed {
    let error = Failed::from(code);
    Failed::new(error.kind(), format!("attribute {}: {error}", name.to_string_lossy()))
}

fn owner(stat: &Stat) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(stat.st_uid)
}

fn group(stat: &Stat) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(stat.st_gid)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The names of extended attributes; none where there are no such things.
fn list(
    call: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>,
) -> std::result::Result<Vec<CString>, Failed> {
    let bytes = match read(call) {
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

/// A value of at most 64 KiB (`XATTR_SIZE_MAX`), which is also the longest list.
fn read(
    call: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>,
) -> std::result::Result<Vec<u8>, Failed> {
    let mut buffer = vec![0; 512];
    loop {
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 16 => buffer.resize(1 << 16, 0),
            Err(code) => return Err(code.into()),
        }
    }
}
