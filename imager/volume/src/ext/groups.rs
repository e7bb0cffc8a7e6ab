//! Group descriptors (fs/ext4/ext4.h, `struct ext4_group_desc`).

use super::checksum::{crc16, crc32c};
use super::features::RO_COMPAT_GDT_CSUM;
use super::layout::Layout;
use super::superblock::Superblock;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

const EXT4_BG_INODE_UNINIT: u16 = 1;
const EXT4_BG_BLOCK_UNINIT: u16 = 2;
const EXT4_BG_INODE_ZEROED: u16 = 4;
const BG_CHECKSUM_OFFSET: usize = 0x1E;
/// Descriptors longer than this have upper halves.
const UPPER_OFFSET: usize = 0x20;
const BG_BLOCK_BITMAP_CSUM_HI_END: u64 = 0x3A;

/// One group: where its structures lie and what its bitmap must add up to.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) number: u64,
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    pub(super) free_clusters: u64,
    /// The bitmap was never written: only the group's own structures are used.
    pub(super) block_uninit: bool,
    /// The inode table has no inode and was never cleared: whoever uses it first does that.
    pub(super) table_unwritten: bool,
    bitmap_csum: u32,
}

impl Group {
    /// Reads group `number` from its descriptor.
    ///
    /// # Errors
    /// `Corrupt` when its checksum is wrong or a structure of it would lie outside the filesystem.
    pub(super) fn parse(number: u64, desc: &[u8], sb: &Superblock, layout: &Layout) -> Result<Self> {
        if !checksum_is_right(number, desc, sb) {
            return Err(Error::corrupt(format!("the checksum of group descriptor {number} is wrong")));
        }
        let group = fields(number, desc, sb);
        let group = group.ok_or_else(|| Error::corrupt(format!("group descriptor {number} is cut off")))?;
        let table_end = group.inode_table.checked_add(layout.inode_table_blocks);
        let inside = |block| (layout.first_data_block..layout.blocks).contains(&block);
        let sound = inside(group.block_bitmap)
            && inside(group.inode_bitmap)
            && inside(group.inode_table)
            && table_end.is_some_and(|end| end <= layout.blocks);
        if !sound {
            return Err(Error::corrupt(format!("group {number} has its structures outside the filesystem")));
        }
        Ok(group)
    }

    /// Whether `bitmap` (a block) has the checksum that the descriptor holds; without checksums, any has.
    pub(super) fn bitmap_is_right(&self, bitmap: &[u8], sb: &Superblock, layout: &Layout) -> bool {
        if !sb.has_metadata_csum() {
            return true;
        }
        // ext4_block_bitmap_csum_verify: the bytes that hold a whole group's clusters.
        let len = usize::try_from(layout.group_clusters / 8).unwrap_or(usize::MAX);
        let Some(bytes) = bitmap.get(..len) else { return false };
        let mask = if layout.desc_bytes >= BG_BLOCK_BITMAP_CSUM_HI_END { u32::MAX } else { 0xFFFF };
        crc32c(sb.csum_seed, &[bytes]) & mask == self.bitmap_csum
    }

    /// Its own structures as runs of blocks: superblock and descriptor copies, bitmaps, inode table. With `flex_bg`
    /// they may lie in another group.
    pub(super) fn structures(&self, layout: &Layout) -> [(u64, u64); 4] {
        let first = layout.first_block(self.number);
        let run = |from: u64, len: u64| (from, from.saturating_add(len));
        [
            run(first, layout.base_blocks(self.number)),
            run(self.block_bitmap, 1),
            run(self.inode_bitmap, 1),
            run(self.inode_table, layout.inode_table_blocks),
        ]
    }
}

fn fields(number: u64, desc: &[u8], sb: &Superblock) -> Option<Group> {
    let b = Bytes(desc);
    let has_upper = desc.len() > UPPER_OFFSET;
    let wide = |lo: usize, hi: usize| {
        let upper = if has_upper { b.le32(hi)? } else { 0 };
        Some(u64::from(upper) << 32 | u64::from(b.le32(lo)?))
    };
    let pair = |lo: usize, hi: usize| {
        let upper = if has_upper { b.le16(hi)? } else { 0 };
        Some(u32::from(upper) << 16 | u32::from(b.le16(lo)?))
    };
    let bg_flags = b.le16(0x12)?;
    let has_flags = sb.features.has_group_desc_csum();
    Some(Group {
        number,
        block_bitmap: wide(0x00, 0x20)?,
        inode_bitmap: wide(0x04, 0x24)?,
        inode_table: wide(0x08, 0x28)?,
        free_clusters: u64::from(pair(0x0C, 0x2C)?),
        block_uninit: has_flags && bg_flags & EXT4_BG_BLOCK_UNINIT != 0,
        table_unwritten: has_flags
            && bg_flags & (EXT4_BG_INODE_UNINIT | EXT4_BG_INODE_ZEROED) == EXT4_BG_INODE_UNINIT,
        bitmap_csum: pair(0x18, 0x38)?,
    })
}

/// fs/ext4/super.c, `ext4_group_desc_csum`.
fn checksum_is_right(number: u64, desc: &[u8], sb: &Superblock) -> bool {
    let (Ok(number), Some(body)) = (u32::try_from(number), desc.get(..BG_CHECKSUM_OFFSET)) else {
        return false;
    };
    let number = number.to_le_bytes();
    let upper = desc.get(UPPER_OFFSET..).unwrap_or_default();
    let sum = if sb.has_metadata_csum() {
        let [a, b, ..] = crc32c(sb.csum_seed, &[&number, body, &[0, 0], upper]).to_le_bytes();
        u16::from_le_bytes([a, b])
    } else if sb.features.ro_compat(RO_COMPAT_GDT_CSUM) {
        crc16(&[&sb.s_uuid, &number, body, upper])
    } else {
        return true;
    };
    Bytes(desc).le16(BG_CHECKSUM_OFFSET) == Some(sum)
}
