//! The segment information table (`struct f2fs_sit_entry`), which says of each block of the main area whether it is
//! valid.

use super::checkpoint::Checkpoint;
use super::superblock::{SEGMENT_BLOCKS, Superblock, extent, segments};
use crate::bitmap::runs;
use crate::bytes::Bytes;
use crate::gather::Gather;
use crate::read::read_into;
use imager_disk::ReadAt;
use imager_units::{Error, Extent, ExtentSet, Result};
use std::collections::BTreeMap;

const ENTRY_BYTES: usize = 74;
const MAP_BYTES: usize = 64;
/// `SIT_ENTRY_PER_BLOCK`.
const BLOCK_ENTRIES: u64 = 55;
/// The bits of `vblocks` that count.
const VALID_BLOCKS: u16 = 0x3FF;
/// `SIT_JOURNAL_ENTRIES`, each with the number of its segment in front.
const MOST_JOURNALED: usize = 6;
const JOURNALED_BYTES: usize = 4 + ENTRY_BYTES;
/// How many blocks of the table are read at once.
const READ_BLOCKS: u64 = 256;

/// Everything that is in use.
///
/// # Errors
/// `Io`; `Corrupt` when the table contradicts itself or the checkpoint.
pub(super) fn map(volume: &dyn ReadAt, sb: &Superblock, checkpoint: &Checkpoint) -> Result<ExtentSet> {
    let mut map = Map { sb, used: Gather::default(), valid_blocks: 0 };
    map.used.push(extent(0, sb.main_blkaddr));
    let journal = journal(&checkpoint.sit_journal(volume)?, sb)?;
    let table = Table::new(sb, checkpoint)?;
    let mut buffer = Vec::new();
    let mut block = 0_u64;
    while block < table.blocks {
        let (at, count) = table.run(block);
        read_into(volume, extent(at, count), &mut buffer)?;
        for (number, bytes) in (block..).zip(buffer.chunks_exact(4096)) {
            let first = number.saturating_mul(BLOCK_ENTRIES);
            let numbers = first..sb.segment_count_main.min(first.saturating_add(BLOCK_ENTRIES));
            for (segment, entry) in numbers.zip(bytes.chunks_exact(ENTRY_BYTES)) {
                map.segment(segment, journal.get(&segment).map_or(entry, Vec::as_slice))?;
            }
        }
        block = block.saturating_add(count);
    }
    map.finish(volume, checkpoint)
}

/// The entries that the journal overrides.
fn journal(bytes: &[u8], sb: &Superblock) -> Result<BTreeMap<u64, Vec<u8>>> {
    let count = usize::from(Bytes(bytes).le16(0).unwrap_or(u16::MAX));
    if count > MOST_JOURNALED {
        return Err(Error::corrupt("the journal of the segment table is too long"));
    }
    let entries = bytes.get(2..).unwrap_or_default().chunks_exact(JOURNALED_BYTES).take(count);
    let mut journal = BTreeMap::new();
    for entry in entries {
        let segment = u64::from(Bytes(entry).le32(0).unwrap_or(u32::MAX));
        let is_new = journal.insert(segment, entry.get(4..).unwrap_or_default().to_vec()).is_none();
        if segment >= sb.segment_count_main || !is_new {
            return Err(Error::corrupt(format!("the journal of the segment table names segment {segment}")));
        }
    }
    Ok(journal)
}

/// Where the blocks of the table lie.
struct Table<'a> {
    start: u64,
    /// How far apart the copies are.
    distance: u64,
    /// How many blocks have entries.
    blocks: u64,
    versions: &'a [u8],
}

impl<'a> Table<'a> {
    fn new(sb: &Superblock, checkpoint: &'a Checkpoint) -> Result<Self> {
        let distance = segments(sb.segment_count_sit / 2);
        let blocks = sb.segment_count_main.div_ceil(BLOCK_ENTRIES);
        let versions = checkpoint.sit_bitmap().unwrap_or_default();
        // As the kernel asks in `f2fs_sanity_check_ckpt`.
        let is_right = u64::try_from(versions.len()).is_ok_and(|len| len == distance / 8);
        if !is_right || blocks > distance {
            return Err(Error::corrupt("the version bitmap of the segment table has a wrong length"));
        }
        Ok(Self { start: sb.sit_blkaddr, distance, blocks, versions })
    }

    /// Where block `first` lies, and how many of the following lie in the same copy.
    fn run(&self, first: u64) -> (u64, u64) {
        let is_second = self.is_second(first);
        let end = self.blocks.min(first.saturating_add(READ_BLOCKS));
        let same = (first..end).take_while(|&block| self.is_second(block) == is_second).count();
        let copy = if is_second { self.distance } else { 0 };
        let at = self.start.saturating_add(copy).saturating_add(first);
        (at, u64::try_from(same).unwrap_or(1).max(1))
    }

    fn is_second(&self, block: u64) -> bool {
        let byte = usize::try_from(block / 8).ok().and_then(|at| Bytes(self.versions).byte(at));
        let bit = u32::try_from(block % 8).unwrap_or_default();
        byte.is_some_and(|byte| byte.reverse_bits().checked_shr(bit).is_some_and(|byte| byte & 1 == 1))
    }
}

struct Map<'a> {
    sb: &'a Superblock,
    used: Gather,
    valid_blocks: u64,
}

impl Map<'_> {
    fn segment(&mut self, number: u64, entry: &[u8]) -> Result<()> {
        let b = Bytes(entry);
        let says = b.le16(0).map(|vblocks| vblocks & VALID_BLOCKS);
        // The highest bit of a byte is the first block.
        let bitmap = b.array::<MAP_BYTES>(2).map(|bytes| bytes.map(u8::reverse_bits));
        let (Some(says), Some(bitmap)) = (says, bitmap) else {
            return Err(Error::corrupt("an entry of the segment table is cut off"));
        };
        let first = self.sb.main_blkaddr.saturating_add(segments(number));
        let used = &mut self.used;
        let valid = runs(&bitmap, SEGMENT_BLOCKS, |from, to| {
            used.push(extent(first.saturating_add(from), to.saturating_sub(from)));
        });
        if valid != u64::from(says) {
            let what = format!("segment {number} has {valid} valid blocks and says {says}");
            return Err(Error::corrupt(what));
        }
        self.valid_blocks = self.valid_blocks.saturating_add(valid);
        Ok(())
    }

    fn finish(mut self, volume: &dyn ReadAt, checkpoint: &Checkpoint) -> Result<ExtentSet> {
        let (valid, says) = (self.valid_blocks, checkpoint.valid_block_count);
        if valid != says {
            return Err(Error::corrupt(format!("{valid} blocks are valid and the checkpoint says {says}")));
        }
        let end = self.sb.main_blkaddr.saturating_add(segments(self.sb.segment_count_main));
        self.used.push(Extent::between(extent(end, 0).start(), volume.geometry().extent().end()));
        Ok(self.used.finish())
    }
}
