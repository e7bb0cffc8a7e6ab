//! The two trees of a group's free space, by block and by length (fs/xfs/libxfs/xfs_alloc_btree.c,
//! `struct xfs_btree_block` with short pointers).
//!
//! Both hold the same records in another order. A walk goes down level by level and left to right; since each record
//! must lie behind the one before, a tree that leads back into itself ends at the second look at a leaf.

use super::checksum;
use super::group::{Group, Root};
use super::layout::Layout;
use super::superblock::Superblock;
use crate::bytes::Bytes;
use crate::read::read_into;
use imager_disk::ReadAt;
use imager_units::{Error, Result};

const NULLAGBLOCK: u32 = u32::MAX;
/// `XFS_BTREE_SBLOCK_LEN`, `XFS_BTREE_SBLOCK_CRC_LEN`.
const SHORT_HEADER_BYTES: usize = 16;
const SHORT_CRC_HEADER_BYTES: usize = 56;
const BLKNO_OFFSET: usize = 16;
const UUID_OFFSET: usize = 32;
const OWNER_OFFSET: usize = 48;
const CRC_OFFSET: usize = 52;
const RECORD_BYTES: usize = 8;
const POINTER_BYTES: usize = 4;
/// `blkno` counts these, whatever the sector.
const BASIC_BLOCK_BYTES: u64 = 512;

/// In what order a tree has its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Block,
    Count,
}

/// A run of free blocks of a group: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) start: u64,
    pub(super) count: u64,
}

impl Free {
    pub(super) fn end(self) -> u64 {
        self.start.saturating_add(self.count)
    }
}

/// Visits the records of a tree in its order.
pub(super) struct Walk<'a> {
    volume: &'a dyn ReadAt,
    sb: &'a Superblock,
    layout: &'a Layout,
    group: &'a Group,
    order: Order,
    /// The last record.
    last: Option<Free>,
    /// For each level, the last block and its right neighbour.
    row: Vec<(u32, u32)>,
    blocks: u64,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        volume: &'a dyn ReadAt,
        sb: &'a Superblock,
        layout: &'a Layout,
        group: &'a Group,
        order: Order,
    ) -> Self {
        Self { volume, sb, layout, group, order, last: None, row: Vec::new(), blocks: 0, buffer: Vec::new() }
    }

    /// Calls `visit` with each record; returns how many blocks the tree has.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for a block that is damaged or not of this tree, and for records out of order or place.
    pub(super) fn run(mut self, visit: &mut dyn FnMut(Free)) -> Result<u64> {
        let root = self.root();
        self.row = vec![(NULLAGBLOCK, NULLAGBLOCK); usize::try_from(root.levels).unwrap_or(0)];
        let mut down = vec![vec![root.block]];
        while let Some(blocks) = down.last_mut() {
            let Some(block) = blocks.pop() else {
                down.pop();
                continue;
            };
            let depth = u32::try_from(down.len()).unwrap_or(u32::MAX);
            let level = root.levels.saturating_sub(depth);
            let records = self.read(block, level)?;
            if level > 0 {
                down.push(self.pointers(records));
            } else {
                self.leaf(records, visit)?;
            }
        }
        match self.row.iter().all(|&(_, right)| right == NULLAGBLOCK) {
            true => Ok(self.blocks),
            false => Err(self.wrong("goes on behind its end")),
        }
    }

    fn root(&self) -> Root {
        match self.order {
            Order::Block => self.group.by_block,
            Order::Count => self.group.by_count,
        }
    }

    fn wrong(&self, what: &str) -> Error {
        let order = match self.order {
            Order::Block => "block",
            Order::Count => "length",
        };
        Error::corrupt(format!("allocation group {}: its free space by {order} {what}", self.group.number))
    }

    /// Reads a block into the buffer and checks that it is the next one of its level; returns its number of records.
    fn read(&mut self, block: u32, level: u32) -> Result<usize> {
        let at = u64::from(block);
        if !(self.layout.header_blocks()..self.group.blocks).contains(&at) {
            return Err(self.wrong("leads out of its group"));
        }
        let extent = self.layout.extent(self.group.number, at, at.saturating_add(1));
        let mut buffer = std::mem::take(&mut self.buffer);
        read_into(self.volume, extent, &mut buffer)?;
        self.buffer = buffer;
        self.blocks = self.blocks.saturating_add(1);
        if !self.is_of_this_tree(extent.start().get()) {
            return Err(self.wrong("leads to a block that is damaged or not its own"));
        }
        let b = Bytes(&self.buffer);
        let records = b.be16(6).map_or(0, usize::from);
        let may_be_empty = self.root().levels == 1;
        if b.be16(4).map(u32::from) != Some(level)
            || records > self.most_records(level)
            || (records == 0 && !may_be_empty)
        {
            return Err(self.wrong("has a block with a wrong level or number of records"));
        }
        let (left, right) = (b.be32(8).unwrap_or(0), b.be32(12).unwrap_or(0));
        let place = usize::try_from(level).ok().and_then(|level| self.row.get_mut(level));
        let before = place.map_or((0, 0), |place| std::mem::replace(place, (block, right)));
        let is_first = before == (NULLAGBLOCK, NULLAGBLOCK) && left == NULLAGBLOCK;
        if !is_first && before != (left, block) {
            return Err(self.wrong("has blocks that do not name each other as neighbours"));
        }
        Ok(records)
    }

    fn is_of_this_tree(&self, at: u64) -> bool {
        let b = Bytes(&self.buffer);
        let crc = self.sb.features.has_crc();
        let magic: &[u8] = match (self.order, crc) {
            (Order::Block, false) => b"ABTB",
            (Order::Block, true) => b"AB3B",
            (Order::Count, false) => b"ABTC",
            (Order::Count, true) => b"AB3C",
        };
        b.is(0, magic)
            && (!crc
                || checksum::is_right(&self.buffer, CRC_OFFSET)
                    && b.be64(BLKNO_OFFSET) == at.checked_div(BASIC_BLOCK_BYTES)
                    && b.array(UUID_OFFSET) == Some(self.sb.meta_uuid)
                    && b.be32(OWNER_OFFSET).map(u64::from) == Some(self.group.number))
    }

    fn header_bytes(&self) -> usize {
        if self.sb.features.has_crc() { SHORT_CRC_HEADER_BYTES } else { SHORT_HEADER_BYTES }
    }

    /// As many as fit: records in leaves, keys (of the same size) and pointers above.
    fn most_records(&self, level: u32) -> usize {
        let room = self.buffer.len().saturating_sub(self.header_bytes());
        let each = if level == 0 { RECORD_BYTES } else { RECORD_BYTES.saturating_add(POINTER_BYTES) };
        room.checked_div(each).unwrap_or(0)
    }

    /// The blocks below, the last one first. All keys stand before all pointers.
    fn pointers(&self, records: usize) -> Vec<u32> {
        let keys = self.most_records(1).saturating_mul(RECORD_BYTES);
        let body = self.buffer.get(self.header_bytes().saturating_add(keys)..).unwrap_or_default();
        let pointers = body.chunks_exact(POINTER_BYTES).take(records);
        let mut blocks: Vec<u32> = pointers.filter_map(|pointer| Bytes(pointer).be32(0)).collect();
        blocks.reverse();
        blocks
    }

    fn leaf(&mut self, records: usize, visit: &mut dyn FnMut(Free)) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let body = buffer.get(self.header_bytes()..).unwrap_or_default();
        for record in body.chunks_exact(RECORD_BYTES).take(records) {
            let at = |at| Bytes(record).be32(at).map_or(0, u64::from);
            let free = Free { start: at(0), count: at(4) };
            if free.count == 0 || free.start < self.layout.header_blocks() || free.end() > self.group.blocks {
                return Err(self.wrong("names blocks outside of its group"));
            }
            let ascends = self.last.is_none_or(|last| match self.order {
                Order::Block => last.end() <= free.start,
                Order::Count => (last.count, last.start) < (free.count, free.start),
            });
            if !ascends {
                return Err(self.wrong("is out of order"));
            }
            self.last = Some(free);
            visit(free);
        }
        self.buffer = buffer;
        Ok(())
    }
}
