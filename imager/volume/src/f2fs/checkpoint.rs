//! Checkpoints (`struct f2fs_checkpoint`): two packs in turns, of which the newer counts. Where one is not whole, the
//! kernel takes the other. That is right where it was never finished; where it was and has been damaged since, the other
//! is older, and its map too small for who repairs the filesystem. So both have to be whole.

use super::superblock::{BLOCK_BYTES, MAGIC, SEGMENT_BLOCKS, Superblock, crc32, extent, segments};
use crate::bytes::Bytes;
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{Error, Result};

const UMOUNT: u32 = 0x1;
const COMPACT_SUM: u32 = 0x4;
const ERROR: u32 = 0x8;
const FSCK: u32 = 0x10;
const LARGE_NAT_BITMAP: u32 = 0x400;
const QUOTA_NEED_FSCK: u32 = 0x800;
const DISABLED: u32 = 0x1000;
const RESIZEFS: u32 = 0x4000;
const KNOWN: u32 = 0x7FFF;

/// Where the version bitmaps begin.
const BITMAPS_AT: usize = 192;
/// Where the checksum is; there is one in front of the bitmaps where these are large.
const CHECKSUMS_AT: [usize; 2] = [BITMAPS_AT, 4092];
/// `SUM_JOURNAL_SIZE`, and where a summary block has it.
const JOURNAL_BYTES: usize = 507;
const JOURNAL_AT: usize = 3584;
/// Blocks of a pack behind the summaries of data: summaries of nodes and the checkpoint's second block.
const SUMMARIES: u64 = 6;
const COLD_DATA: u64 = 2;
/// The log of nodes that `fsync` writes to, and where `struct node_footer` has the version.
const WARM_NODE: usize = 1;
const NODE_VERSION_AT: usize = 4084;

/// The newest checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// Its first block, then the payload.
    bytes: Vec<u8>,
    start: u64,
    version: u64,
    flags: u32,
    blocks: u64,
    start_sum: u64,
    pub(super) valid_block_count: u64,
    has_payload: bool,
}

impl Checkpoint {
    /// As the kernel's `f2fs_get_valid_checkpoint`, where both packs are whole.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when one of the packs is not whole.
    pub(super) fn newest(volume: &dyn ReadAt, sb: &Superblock) -> Result<Self> {
        let first = Self::read(volume, sb, sb.cp_blkaddr)?;
        let second = Self::read(volume, sb, sb.cp_blkaddr.saturating_add(SEGMENT_BLOCKS))?;
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            (None, None) => return Err(Error::corrupt("no checkpoint is whole")),
            _ => {
                return Err(Error::corrupt(
                    "one of the two checkpoints is not whole, and may be the newer one",
                ));
            }
        };
        // `ver_after`: versions may wrap around.
        let is_after = second.version.wrapping_sub(first.version).wrapping_sub(1) < 1 << 63;
        Ok(if is_after { second } else { first })
    }

    /// The pack at block `start`; `None` when it is not whole.
    fn read(volume: &dyn ReadAt, sb: &Superblock, start: u64) -> Result<Option<Self>> {
        let bytes = read(volume, extent(start, sb.cp_payload.saturating_add(1)))?;
        let Some(checkpoint) = Self::parse(bytes, sb, start) else { return Ok(None) };
        let last = start.saturating_add(checkpoint.blocks).saturating_sub(1);
        let last = read(volume, extent(last, 1))?;
        let is_whole = has_right_checksum(&last) && Bytes(&last).le64(0) == Some(checkpoint.version);
        Ok(is_whole.then_some(checkpoint))
    }

    fn parse(bytes: Vec<u8>, sb: &Superblock, start: u64) -> Option<Self> {
        let b = Bytes(&bytes);
        let checkpoint = Self {
            start,
            version: b.le64(0)?,
            valid_block_count: b.le64(16)?,
            flags: b.le32(132)?,
            blocks: b.le32(136)?.into(),
            start_sum: b.le32(140)?.into(),
            has_payload: sb.cp_payload > 0,
            bytes,
        };
        let is_right = has_right_checksum(checkpoint.bytes.get(..4096)?);
        (is_right && (SUMMARIES..=SEGMENT_BLOCKS).contains(&checkpoint.blocks)).then_some(checkpoint)
    }

    /// Whether an unmount wrote the checkpoint and nothing came after it.
    ///
    /// # Errors
    /// `Io`; `Unsupported` and `Corrupt` with the reason.
    pub(super) fn check(&self, volume: &dyn ReadAt, sb: &Superblock) -> Result<()> {
        let refused = [
            (self.flags & UMOUNT == 0, "it was not unmounted"),
            (self.flags & ERROR != 0, "errors were found in it"),
            (self.flags & (FSCK | QUOTA_NEED_FSCK) != 0, "it is to be checked"),
            (self.flags & DISABLED != 0, "checkpoints are switched off"),
            (self.flags & RESIZEFS != 0, "its size was being changed"),
            (self.is_followed_by_nodes(volume, sb)?, "files were synced and the last checkpoint lacks them"),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(is_so, _)| *is_so) {
            return Err(Error::corrupt(why));
        }
        match self.flags & !KNOWN {
            0 => Ok(()),
            unknown => Err(Error::unsupported(format!("flags {unknown:#x} of the checkpoint are not known"))),
        }
    }

    /// Whether the kernel would find nodes to roll forward to (`f2fs_recover_fsync_data`): the next free block of the
    /// log of nodes has this checkpoint's version. The half of the version that may be a checksum is not compared.
    fn is_followed_by_nodes(&self, volume: &dyn ReadAt, sb: &Superblock) -> Result<bool> {
        let b = Bytes(&self.bytes);
        let at = |first: usize, width: usize| WARM_NODE.saturating_mul(width).saturating_add(first);
        let (Some(segment), Some(block)) = (b.le32(at(36, 4)), b.le16(at(68, 2))) else { return Ok(true) };
        if u64::from(segment) >= sb.segment_count_main || u64::from(block) >= SEGMENT_BLOCKS {
            return Ok(u64::from(segment) >= sb.segment_count_main);
        }
        let next = sb.main_blkaddr.saturating_add(segments(segment.into())).saturating_add(block.into());
        let node = read(volume, extent(next, 1))?;
        Ok(Bytes(&node).le32(NODE_VERSION_AT) == b.le32(0))
    }

    /// Which copy of each block of the segment information table counts (`__bitmap_ptr`), first bit highest.
    pub(super) fn sit_bitmap(&self) -> Option<&[u8]> {
        let b = Bytes(&self.bytes);
        let len = usize::try_from(b.le32(156)?).ok()?;
        let nat_len = usize::try_from(b.le32(160)?).ok()?;
        let at = match (self.flags & LARGE_NAT_BITMAP != 0, self.has_payload) {
            (true, _) => nat_len.checked_add(BITMAPS_AT)?.checked_add(4)?,
            (false, true) => usize::try_from(BLOCK_BYTES).ok()?,
            (false, false) => BITMAPS_AT,
        };
        b.slice(at, len)
    }

    /// The journal of the segment information table: with the other summaries in short, or in that of cold data.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when it would lie outside the pack.
    pub(super) fn sit_journal(&self, volume: &dyn ReadAt) -> Result<Vec<u8>> {
        let (block, at) = match self.flags & COMPACT_SUM != 0 {
            true => (self.start_sum, JOURNAL_BYTES),
            false => {
                let behind = SUMMARIES.saturating_add(1).saturating_sub(COLD_DATA);
                (self.blocks.saturating_sub(behind), JOURNAL_AT)
            }
        };
        if block == 0 || block >= self.blocks {
            return Err(Error::corrupt("the summaries lie outside the checkpoint"));
        }
        let summary = read(volume, extent(self.start.saturating_add(block), 1))?;
        Ok(Bytes(&summary).slice(at, JOURNAL_BYTES).unwrap_or_default().to_vec())
    }
}

/// `f2fs_checkpoint_chksum`: over the block without the checksum itself.
fn has_right_checksum(block: &[u8]) -> bool {
    let b = Bytes(block);
    let Some(at) = b.le32(164).and_then(|at| usize::try_from(at).ok()) else { return false };
    let behind = at.saturating_add(4);
    let parts = (b.slice(0, at), block.get(behind..), b.le32(at));
    let (true, (Some(before), Some(after), Some(stored))) = (CHECKSUMS_AT.contains(&at), parts) else {
        return false;
    };
    crc32(crc32(MAGIC, before), after) == stored
}
