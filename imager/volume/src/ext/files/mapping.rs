//! Which blocks of the volume a file's blocks are: extents, or the older trees of block numbers.
//!
//! fs/ext4/ext4_extents.h, `ext4_extent_header`, `ext4_extent`, `ext4_extent_idx`; fs/ext4/indirect.c.

use super::super::checksum::crc32c;
use super::ExtFiles;
use super::inode::Inode;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

const EXT4_EXT_MAGIC: u16 = 0xF30A;
const ENTRY_BYTES: usize = 12;
const MOST_DEPTH: u16 = 5;
/// Longer extents are allocated but were never written.
const EXT_INIT_MAX_LEN: u16 = 1 << 15;
const DIRECT: u64 = 12;

/// Blocks of a file that are all holes, or lie one behind the other.
pub(super) struct Run {
    /// Where the first lies; `None` reads as zeros.
    pub(super) physical: Option<u64>,
    /// How many; at least 1.
    pub(super) len: u64,
}

/// The entries of one node of an extent tree, each of 12 bytes.
struct ExtentNode {
    entries: Vec<[u8; ENTRY_BYTES]>,
    depth: u16,
}

impl ExtentNode {
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let b = Bytes(bytes);
        let (entries, most, depth) = (usize::from(b.le16(2)?), usize::from(b.le16(4)?), b.le16(6)?);
        if b.le16(0)? != EXT4_EXT_MAGIC || entries > most || depth > MOST_DEPTH {
            return None;
        }
        let end = ENTRY_BYTES.checked_add(most.checked_mul(ENTRY_BYTES)?)?;
        let entries = b.slice(ENTRY_BYTES, entries.checked_mul(ENTRY_BYTES)?)?;
        let entries = entries.chunks_exact(ENTRY_BYTES).filter_map(|entry| entry.try_into().ok()).collect();
        Some((Self { entries, depth }, end))
    }

    /// The last entry that begins at `logical` or before, and where the next begins.
    fn at(&self, logical: u64) -> (Option<&[u8; ENTRY_BYTES]>, Option<u64>) {
        let first = |entry: &[u8; ENTRY_BYTES]| u64::from(Bytes(entry).le32(0).unwrap_or_default());
        let behind = self.entries.partition_point(|entry| first(entry) <= logical);
        let next = self.entries.get(behind).map(first);
        (behind.checked_sub(1).and_then(|place| self.entries.get(place)), next)
    }
}

impl ExtFiles<'_> {
    /// The run of blocks of the file that begins with `logical`.
    pub(super) fn map(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let run =
            if inode.has_extents() { self.extent(inode, logical)? } else { self.indirect(inode, logical)? };
        let first = self.layout.first_data_block.max(1);
        let inside = |block: u64| {
            block >= first && block.checked_add(run.len).is_some_and(|end| end <= self.layout.blocks)
        };
        if run.physical.is_some_and(|block| !inside(block)) {
            return Err(Error::corrupt(format!("inode {} has blocks outside the filesystem", inode.number)));
        }
        Ok(run)
    }

    fn extent(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let wrong = || Error::corrupt(format!("the extents of inode {} cannot be", inode.number));
        let (mut node, _) = ExtentNode::parse(inode.blocks_area()).ok_or_else(wrong)?;
        let mut until = 1_u64 << 32;
        loop {
            let (entry, next) = node.at(logical);
            until = until.min(next.unwrap_or(u64::MAX));
            let hole = Run { physical: None, len: until.saturating_sub(logical).max(1) };
            let Some(entry) = entry else { return Ok(hole) };
            let b = Bytes(entry);
            if node.depth == 0 {
                return leaf(b, logical, hole).ok_or_else(wrong);
            }
            let child =
                u64::from(b.le16(8).ok_or_else(wrong)?) << 32 | u64::from(b.le32(4).ok_or_else(wrong)?);
            let bytes = self.block(child)?;
            let (below, end) = ExtentNode::parse(&bytes).ok_or_else(wrong)?;
            if Some(below.depth) != node.depth.checked_sub(1) || !self.extents_are_right(inode, &bytes, end) {
                return Err(wrong());
            }
            node = below;
        }
    }

    /// The checksum behind the last entry that there is room for.
    fn extents_are_right(&self, inode: &Inode, bytes: &[u8], end: usize) -> bool {
        let sum = bytes.get(..end).map(|counted| crc32c(inode.csum_seed, &[counted]));
        !self.sb.has_metadata_csum() || sum.is_some() && sum == Bytes(bytes).le32(end)
    }

    fn indirect(&self, inode: &Inode, logical: u64) -> Result<Run> {
        let area = Bytes(inode.blocks_area());
        let per_block = self.layout.block_bytes / 4;
        if logical < DIRECT {
            return Ok(consecutive(area.slice(0, 48).unwrap_or_default(), logical));
        }
        let mut rest = logical.saturating_sub(DIRECT);
        for level in 1..=3_u32 {
            let under = per_block.saturating_pow(level);
            if rest < under {
                let slot = usize::try_from(level).unwrap_or_default().saturating_add(11).saturating_mul(4);
                let block = u64::from(area.le32(slot).unwrap_or_default());
                return self.descend(block, rest, under);
            }
            rest = rest.saturating_sub(under);
        }
        Err(Error::corrupt(format!("inode {} is longer than it can be", inode.number)))
    }

    /// Block number `place` of the `under` that a tree at `block` maps.
    fn descend(&self, block: u64, place: u64, under: u64) -> Result<Run> {
        let (mut block, mut place, mut under) = (block, place, under);
        let per_block = self.layout.block_bytes / 4;
        loop {
            if block == 0 {
                return Ok(Run { physical: None, len: under.saturating_sub(place).max(1) });
            }
            let numbers = self.block(block)?;
            under = under.checked_div(per_block).unwrap_or(1).max(1);
            if under == 1 {
                return Ok(consecutive(&numbers, place));
            }
            let slot = place.checked_div(under).unwrap_or_default();
            place = place.checked_rem(under).unwrap_or_default();
            let slot = usize::try_from(slot.saturating_mul(4)).unwrap_or(usize::MAX);
            block = u64::from(Bytes(&numbers).le32(slot).unwrap_or_default());
        }
    }
}

/// What an extent says of `logical`: in it, or behind it in the hole before the next.
fn leaf(b: Bytes<'_>, logical: u64, hole: Run) -> Option<Run> {
    let first = u64::from(b.le32(0)?);
    let (len, written) = match b.le16(4)? {
        len if len > EXT_INIT_MAX_LEN => (len.saturating_sub(EXT_INIT_MAX_LEN), false),
        len => (len, true),
    };
    let into = logical.checked_sub(first)?;
    let len = u64::from(len);
    if into >= len {
        return Some(hole);
    }
    let start = u64::from(b.le16(6)?) << 32 | u64::from(b.le32(8)?);
    let physical = if written { Some(start.checked_add(into)?) } else { None };
    Some(Run { physical, len: len.saturating_sub(into) })
}

/// The run that begins with number `place` of a list of blocks.
fn consecutive(numbers: &[u8], place: u64) -> Run {
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let mut numbers =
        numbers.chunks_exact(4).skip(place).filter_map(|number| Bytes(number).le32(0).map(u64::from));
    let first = numbers.next().unwrap_or_default();
    let mut len = 1_u64;
    for number in numbers {
        let follows = if first == 0 { number == 0 } else { number == first.saturating_add(len) };
        if !follows {
            break;
        }
        len = len.saturating_add(1);
    }
    Run { physical: Some(first).filter(|&first| first != 0), len }
}
