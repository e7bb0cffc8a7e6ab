//! The log as a ring of blocks of 512 bytes, and what was written to it last.
//!
//! Every block begins with the number of its turn round the ring (its *cycle*), a record's header with a magic number
//! and then the cycle. So the head is where the cycle falls by one: in front of it lies this turn, behind it the one
//! before. Writes of a crashed kernel may lie around it in any order, up to a certain distance: within that, every
//! block must be of its turn.

use crate::bytes::Bytes;
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

/// `BBSIZE`.
pub(super) const BASIC_BLOCK_BYTES: usize = 512;
const BLOCK: ByteLen = ByteLen::new(512);
/// How much may be written at once and out of order, in blocks (`XLOG_TOTAL_REC_SHIFT`: eight buffers of 256 KiB).
const RECENT_BLOCKS: u64 = (8 * 256) << (10 - 9);
/// `XLOG_HEADER_MAGIC_NUM`.
pub(super) const HEADER_MAGIC: u32 = 0xFEED_BABE;

/// The blocks in front of the head: 2 MiB, or the whole ring.
pub(super) struct Recent {
    bytes: Vec<u8>,
    /// Behind the last block that was written; the ring's length when that was its last.
    head: u64,
    /// The ring's length.
    ring: u64,
    /// The turn of the block in front of the head.
    cycle: u32,
}

impl Recent {
    /// Finds the head of the log that lies at `log`.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when a block around it is not of its turn.
    pub(super) fn read(volume: &dyn ReadAt, log: Extent) -> Result<Self> {
        let ring = Ring::new(volume, log);
        let (head, cycle) = ring.head()?;
        let before = cycle.wrapping_sub(1);
        let len = ring.blocks.min(RECENT_BLOCKS);
        let wrapped = len.saturating_sub(head);
        let mut bytes = ring.turn(ring.blocks.saturating_sub(wrapped), ring.blocks, before)?;
        bytes.extend(ring.turn(head.saturating_sub(len), head, cycle)?);
        ring.turn(head, head.saturating_add(len).min(ring.blocks), before)?;
        Ok(Self { bytes, head, ring: ring.blocks, cycle })
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> usize {
        self.bytes.len() / BASIC_BLOCK_BYTES
    }

    /// The bytes from block `at` on.
    pub(super) fn from(&self, at: usize) -> &[u8] {
        self.bytes.get(at.saturating_mul(BASIC_BLOCK_BYTES)..).unwrap_or_default()
    }

    /// The sequence number (turn and place in the ring) of block `at`.
    pub(super) fn lsn(&self, at: usize) -> u64 {
        let back = u64::try_from(self.blocks().saturating_sub(at)).unwrap_or(u64::MAX);
        let (cycle, place) = match self.head.checked_sub(back) {
            Some(place) => (self.cycle, place),
            None => (self.cycle.wrapping_sub(1), self.head.saturating_add(self.ring).saturating_sub(back)),
        };
        u64::from(cycle) << 32 | place
    }

    /// The block with a sequence number.
    pub(super) fn find(&self, lsn: u64) -> Option<usize> {
        (0..self.blocks()).find(|&at| self.lsn(at) == lsn)
    }
}

struct Ring<'a> {
    volume: &'a dyn ReadAt,
    start: ByteOffset,
    blocks: u64,
}

/// The first and the last 2 MiB of the log that lies at `log`, without what the first has of the last.
///
/// # Errors
/// `Io`.
pub(super) fn edges(volume: &dyn ReadAt, log: Extent) -> Result<(Vec<u8>, Vec<u8>)> {
    let ring = Ring::new(volume, log);
    let first = ring.blocks.min(RECENT_BLOCKS);
    let last = ring.blocks.saturating_sub(RECENT_BLOCKS).max(first);
    Ok((ring.bytes(0, first)?, ring.bytes(last, ring.blocks)?))
}

impl<'a> Ring<'a> {
    fn new(volume: &'a dyn ReadAt, log: Extent) -> Self {
        Self { volume, start: log.start(), blocks: log.len().get().checked_div(BLOCK.get()).unwrap_or(0) }
    }

    /// The head and the turn in front of it, as `xlog_find_head` finds them.
    fn head(&self) -> Result<(u64, u32)> {
        let (cycle, last) = (self.cycle(0)?, self.cycle(self.blocks.saturating_sub(1))?);
        if cycle == 0 {
            return Err(Error::corrupt("its log was never written"));
        }
        if last == cycle {
            return Ok((self.blocks, cycle));
        }
        let (mut low, mut high) = (0, self.blocks);
        while low < high {
            let middle = low.midpoint(high);
            if self.cycle(middle)? == last {
                high = middle;
            } else {
                low = middle.saturating_add(1);
            }
        }
        Ok((low, cycle))
    }

    fn cycle(&self, at: u64) -> Result<u32> {
        Ok(cycle(&self.bytes(at, at.saturating_add(1))?))
    }

    /// Blocks `from..to`, all of which must be of turn `turn`.
    fn turn(&self, from: u64, to: u64, turn: u32) -> Result<Vec<u8>> {
        let bytes = self.bytes(from, to)?;
        match bytes.chunks(BASIC_BLOCK_BYTES).all(|block| cycle(block) == turn) {
            true => Ok(bytes),
            false => Err(Error::corrupt("it was not unmounted: its log was being written to")),
        }
    }

    fn bytes(&self, from: u64, to: u64) -> Result<Vec<u8>> {
        let at = |block: u64| self.start.saturating_add(ByteLen::new(block.saturating_mul(BLOCK.get())));
        read(self.volume, Extent::between(at(from), at(to)))
    }
}

/// Of which turn a block is (`xlog_get_cycle`).
pub(super) fn cycle(block: &[u8]) -> u32 {
    let word = |at| Bytes(block).be32(at).unwrap_or(0);
    if word(0) == HEADER_MAGIC { word(4) } else { word(0) }
}
