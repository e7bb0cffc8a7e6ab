//! Btrfs, on one device or several.
//!
//! The map is every extent of the extent tree (metadata and data), taken through the chunks to all places it has on a
//! device: both copies of DUP, every mirror, and of parity the whole row, for parity is over what the row holds, used
//! or not. To that come the first mebibyte, the superblock copies and what lies behind the filesystem. Everything that
//! is counted on disk is counted again: each block group, the superblock's sum, and that the nodes we met are among
//! the metadata. One disagreement makes the volume whole.
//!
//! Btrfs never overwrites what its last superblock refers to, so what is on disk is always in order, mounted or not.
//! The one exception is the log of `fsync`, whose nodes and extents no tree counts: it is walked as well.
//!
//! The trees of a filesystem on several devices lie on all of them. With one missing, or of another moment, the
//! devices that are here are whole.

mod checksum;
mod chunk;
mod devices;
mod files;
mod map;
mod node;
mod profile;
mod roots;
mod space;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;

pub use files::{Files, Subvolume};

use crate::{Filesystem, Member, UsedBlocks, UsedMap};
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Extent, Result};
use superblock::{SUPER_BYTES, SUPER_OFFSETS};

/// The kinds and profiles (`BTRFS_BLOCK_GROUP_*`) of the chunks of a filesystem on one device.
///
/// # Errors
/// `Io`, `Corrupt`, `Unsupported`.
pub(crate) fn chunk_kinds(volume: &dyn ReadAt) -> Result<Vec<u64>> {
    let devices = devices::Devices::open(&[volume])?;
    let sb = devices.first()?.sb.clone();
    let chunks = map::read_chunks(&mut tree::Forest::new(&devices, &sb), &devices, &sb)?;
    Ok(chunks.iter().map(|chunk| chunk.kind).collect())
}

/// Btrfs.
#[derive(Clone, Copy, Debug)]
pub struct Btrfs;

impl UsedBlocks for Btrfs {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        let bounds = volume.geometry().extent();
        let head = SUPER_OFFSETS.map(|at| {
            let start = ByteOffset::new(at);
            Extent::between(start, start.saturating_add(ByteLen::new(SUPER_BYTES))).intersection(bounds)
        });
        Ok(devices::superblock(volume)?.map(|sb| Filesystem {
            kind: "btrfs",
            state: sb.state(),
            block: ByteLen::new(sb.sectorsize.into()),
            size: ByteLen::new(sb.dev_total_bytes),
            uuid: sb.uuid,
            label: sb.label,
            head: head.into_iter().collect(),
        }))
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        map::map(&[volume])
    }

    fn member(&self, volume: &dyn ReadAt) -> Result<Option<Member>> {
        let sb = devices::superblock(volume)?.filter(|sb| sb.num_devices != 1);
        Ok(sb.and_then(|sb| Some(Member { set: sb.uuid?, number: sb.devid, of: sb.num_devices })))
    }

    fn used_with(&self, volume: &dyn ReadAt, others: &[&dyn ReadAt]) -> Result<UsedMap> {
        let volumes: Vec<_> = std::iter::once(volume).chain(others.iter().copied()).collect();
        map::map(&volumes)
    }
}
