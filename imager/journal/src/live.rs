//! What a mounted filesystem has allocated at this moment, as it tells itself.
//!
//! The map on the disk of a live filesystem is of the past: blocks with data that is durable are free in it until the log
//! is written back. So the kernel is asked: ext and XFS for their map (`FS_IOC_GETFSMAP`, ioctl_getfsmap(2)), of which only
//! what they say is free is left out; Btrfs for its trees. Any doubt is no map. While it is told, blocks may be allocated:
//! what is written there is marked by the journal, which must have been started before.

mod btrfs;

use crate::freeze::chosen;
use crate::sys::{self, MapPage};
use imager_disk::DeviceNumber;
use imager_disk::usage::MountedFilesystem;
use imager_units::{ByteLen, ByteOffset, Error, Extent, ExtentSet, Result};
use nix::errno::Errno;
use std::fs::File;

/// `fmh_oflags`: devices are told by their numbers.
const BY_NUMBER: u32 = 1;
/// `fmr_flags`: the owner is a special one; no record comes after this one.
const SPECIAL: u32 = 0x10;
const LAST: u32 = 0x20;
/// `fmr_owner`, if special: nobody.
const FREE: u64 = 1;
/// The most extents of a map; beyond, small gaps count as used.
const EXTENTS_MAX: usize = 1 << 19;

/// The used bytes of a filesystem on a device of `size` bytes. `None` where it does not tell: on several devices, of a
/// kind that cannot, or in a way that is not understood.
///
/// # Errors
/// `Io` from the system; `NotFound` when it is not mounted any more.
pub fn live_map(filesystem: &MountedFilesystem, size: ByteLen) -> Result<Option<ExtentSet>> {
    match (filesystem.devices.as_slice(), filesystem.kind.as_str()) {
        ([device], "ext2" | "ext3" | "ext4" | "xfs") => told(&chosen::open(filesystem)?, *device, size),
        ([_], "btrfs") => btrfs::map(&chosen::open(filesystem)?, size),
        _ => Ok(None),
    }
}

/// What the filesystem on a device tells by itself.
fn told(folder: &File, device: DeviceNumber, size: ByteLen) -> Result<Option<ExtentSet>> {
    let (device, mut free) = (device.to_string(), ExtentSet::new());
    let mut page = Box::new(MapPage::whole());
    loop {
        match sys::map(folder, &mut page) {
            Ok(()) if page.oflags & BY_NUMBER != 0 => {}
            Ok(()) | Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL) => return Ok(None),
            Err(error) => return Err(Error::io("asking the filesystem for its map", error.into())),
        }
        for record in page.records() {
            if record.flags & SPECIAL != 0 && record.owner == FREE && number(record.device) == device {
                let (start, len) = (ByteOffset::new(record.physical), ByteLen::new(record.length));
                let Some(extent) = Extent::new(start, len) else { return Ok(None) };
                free.insert(extent);
            }
        }
        match page.records().last().copied() {
            Some(last) if last.flags & LAST == 0 => page.keys[0] = last,
            // Nothing at all is no map.
            None if page.keys[0].length == 0 => return Ok(None),
            _ => break,
        }
    }
    Ok(Some(free.complement(Extent::first(size)).coarsen(EXTENTS_MAX)))
}

/// The number in a kernel's encoding (`new_encode_dev`).
fn number(encoded: u32) -> String {
    let (major, minor) = ((encoded >> 8) & 0xFFF, (encoded & 0xFF) | ((encoded >> 12) & 0xF_FF00));
    format!("{major}:{minor}")
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn device_numbers_are_decoded() {
        assert_eq!([0x0701, 0x0010_0801, 0x00F0_FD12].map(number), ["7:1", "8:257", "253:3858"]);
    }
}
