//! ext2, ext3 and ext4.
//!
//! The map is the union of two sources that do not trust each other: the block bitmaps of all groups, and every
//! structure whose place follows from the superblock and the group descriptors (superblock and descriptor copies with
//! the room reserved for more, bitmaps, inode tables), plus the boot block and the tail behind the filesystem. What
//! can be cross-checked is: checksums of descriptors and bitmaps, and free counts against bits. One disagreement
//! makes the volume whole.
//!
//! A filesystem that was not left in order (journal to be replayed, error flag, not unmounted) is whole too: the
//! bitmaps on disk may be older than the files. A frozen one has an empty journal, so a hot capture gets a map. The
//! flag decides, as it does for the kernel: a log without it is never replayed (`jbd2_journal_wipe`).
//! Inodes on the orphan list still own their blocks in the bitmaps; they change nothing here.

mod checksum;
mod features;
mod files;
mod groups;
mod layout;
mod map;
mod superblock;
#[cfg(test)]
mod tests;

use crate::read::read_if_inside;
use crate::{Filesystem, State, UsedBlocks, UsedMap};
use features::INCOMPAT_JOURNAL_DEV;
pub(crate) use files::files;
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, ExtentSet, Result};
use layout::Layout;
use superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};

/// The ext family, external journals included.
#[derive(Clone, Copy, Debug)]
pub struct Ext;

impl UsedBlocks for Ext {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        let size = volume.geometry().size;
        Ok(superblock(volume)?.map(|sb| filesystem(&sb, size)))
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let sb = superblock(volume)?.ok_or_else(|| Error::corrupt("there is no ext superblock"))?;
        if sb.features.incompat(INCOMPAT_JOURNAL_DEV) {
            return Err(Error::unsupported("an external journal has no map of its own"));
        }
        sb.check()?;
        let layout = Layout::new(&sb, volume.geometry().size)?;
        map::map(volume, &sb, &layout)
    }
}

/// The inode tables that nobody wrote to since `mkfs`: whoever uses one first clears it.
///
/// # Errors
/// `Io`; `Corrupt` when what says so is wrong.
pub(crate) fn unwritten(volume: &dyn ReadAt) -> Result<ExtentSet> {
    let sb = superblock(volume)?.ok_or_else(|| Error::corrupt("there is no ext superblock"))?;
    sb.check()?;
    let layout = Layout::new(&sb, volume.geometry().size)?;
    map::unwritten(volume, &sb, &layout)
}

fn superblock(volume: &dyn ReadAt) -> Result<Option<Superblock>> {
    let bytes = read_if_inside(volume, SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)?;
    Ok(bytes.as_deref().and_then(Superblock::parse))
}

fn filesystem(sb: &Superblock, size: ByteLen) -> Filesystem {
    let block = 1024_u64.checked_shl(sb.s_log_block_size).unwrap_or(u64::MAX);
    let whole = Extent::first(size);
    let mut filesystem = Filesystem {
        kind: sb.features.kind(),
        uuid: sb.uuid.clone(),
        label: sb.s_volume_name.clone(),
        block: ByteLen::new(block),
        size: ByteLen::new(sb.s_blocks_count.saturating_mul(block)),
        state: sb.state(),
        head: Extent::first(ByteLen::new(block.max(2048))).intersection(whole).into(),
    };
    if sb.features.incompat(INCOMPAT_JOURNAL_DEV) {
        return filesystem;
    }
    match Layout::new(sb, size) {
        Ok(layout) => {
            filesystem.block = layout.cluster();
            filesystem.head = head(&layout);
        }
        Err(error) if filesystem.state == State::Clean => filesystem.state = State::Dirty(error.to_string()),
        Err(_) => {}
    }
    filesystem
}

/// The primary superblock with the boot block, and every copy.
fn head(layout: &Layout) -> ExtentSet {
    let copies = layout.super_groups().into_iter().filter(|&group| group > 0).map(|group| {
        let block = layout.first_block(group);
        layout.extent(block, block.saturating_add(1))
    });
    std::iter::once(layout.primary()).chain(copies).collect()
}
