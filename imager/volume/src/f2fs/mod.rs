//! F2FS.
//!
//! `include/linux/f2fs_fs.h` and fs/f2fs of Linux. The map is all metadata (superblocks, checkpoints, SIT, NAT, SSA),
//! every block of the main area that is valid in the segment information table, and everything behind the last segment.
//! The table has two copies of each block; the checkpoint says which counts, and its journal overrides entries.
//!
//! Only a checkpoint that an unmount wrote is believed, and only when nothing was synced behind it: a mount writes
//! none, and what `fsync` leaves until the next one is in no table. Both checkpoints must be whole. The counts of a
//! segment and of the checkpoint must be those of the bitmaps: the table and its journal have no checksum, so damage that
//! leaves all counts as they are is not seen. Otherwise, and with zones, several devices or unknown features: the whole volume.

mod checkpoint;
mod sit;
mod superblock;
#[cfg(test)]
mod tests;

use crate::detect::chain;
use crate::{Certainty, Filesystem, State, UsedBlocks, UsedMap};
use checkpoint::Checkpoint;
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use superblock::{BLOCK_BYTES, Superblock};

/// F2FS.
#[derive(Clone, Copy, Debug)]
pub struct F2fs;

impl UsedBlocks for F2fs {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        let Some(sb) = Superblock::read(volume)? else { return Ok(None) };
        let size = volume.geometry().size;
        let verdict = sb.check(volume).and_then(|()| Checkpoint::newest(volume, &sb)?.check(volume, &sb));
        let state = match verdict {
            Ok(()) => State::Clean,
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            Err(error) => State::Dirty(chain(&error)),
        };
        Ok(Some(Filesystem {
            kind: "f2fs",
            uuid: sb.uuid(),
            label: sb.label(),
            block: ByteLen::new(BLOCK_BYTES),
            size: superblock::extent(0, sb.block_count).len(),
            state,
            head: superblock::extent(0, superblock::COPIES).intersection(Extent::first(size)).into(),
        }))
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let sb = Superblock::read(volume)?.ok_or_else(|| Error::corrupt("there is no F2FS superblock"))?;
        sb.check(volume)?;
        let checkpoint = Checkpoint::newest(volume, &sb)?;
        checkpoint.check(volume, &sb)?;
        let extents = sit::map(volume, &sb, &checkpoint)?;
        Ok(UsedMap { extents, unit: ByteLen::new(BLOCK_BYTES), certainty: Certainty::Exact })
    }
}
