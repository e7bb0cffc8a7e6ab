//! A volume's or disk's content as a test describes it: sparse bytes, and which of them count.

use imager_image::{BLOCK_BYTES, Mask, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};
use std::collections::BTreeMap;
use std::ops::Range;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Sparse bytes with a used map.
pub struct Source {
    size: u64,
    unit: MaskUnit,
    blocks: BTreeMap<u64, Vec<u8>>,
    used: ExtentSet,
    unreadable: ExtentSet,
}

/// A block as a capture would see it.
pub enum Block {
    /// Nothing of it counts.
    Unused,
    /// These parts count but were not readable, and no other parts count.
    Unreadable(Mask),
    /// Zero in the first parts; the second ones were not readable.
    Zero(Mask, Mask),
    /// These bytes, zero outside the first parts; the second ones were not readable.
    Data(Vec<u8>, Mask, Mask),
}

impl Source {
    /// `size` bytes of which none counts.
    pub fn new(size: u64, unit_bytes: u64) -> Self {
        let unit = MaskUnit::new(unit_bytes).expect("a mask unit");
        let (used, unreadable) = (ExtentSet::new(), ExtentSet::new());
        Self { size, unit, blocks: BTreeMap::new(), used, unreadable }
    }

    /// Bytes that count.
    pub fn used(mut self, at: u64, bytes: &[u8]) -> Self {
        self.used.insert(extent(at, bytes.len() as u64));
        self.garbage(at, bytes)
    }

    /// Zeros that count.
    pub fn zeros(mut self, at: u64, len: u64) -> Self {
        self.used.insert(extent(at, len));
        self
    }

    /// Bytes that are there but do not count.
    pub fn garbage(mut self, at: u64, bytes: &[u8]) -> Self {
        for (at, byte) in (at..).zip(bytes) {
            let block = self.blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK_BYTES]);
            block[usize::try_from(at % BLOCK).expect("small")] = *byte;
        }
        self
    }

    /// Bytes that count and cannot be read.
    pub fn unreadable(mut self, at: u64, len: u64) -> Self {
        self.unreadable.insert(extent(at, len));
        self.zeros(at, len)
    }

    /// How many bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The grain of the masks.
    pub fn unit(&self) -> MaskUnit {
        self.unit
    }

    /// How long a block is.
    pub fn block_len(&self, number: u64) -> usize {
        usize::try_from((self.size - number * BLOCK).min(BLOCK)).expect("small")
    }

    /// Block `number` as a capture would see it.
    pub fn block(&self, number: u64) -> Block {
        let unreadable = self.mask(&self.unreadable, number);
        let mask = self.mask(&self.used, number).without(unreadable);
        if mask.is_none() {
            return if unreadable.is_none() { Block::Unused } else { Block::Unreadable(unreadable) };
        }
        let mut bytes = self.blocks.get(&number).cloned().unwrap_or_else(|| vec![0; BLOCK_BYTES]);
        bytes.truncate(self.block_len(number));
        mask.clear_outside(self.unit, &mut bytes);
        if bytes.iter().all(|byte| *byte == 0) {
            Block::Zero(mask, unreadable)
        } else {
            Block::Data(bytes, mask, unreadable)
        }
    }

    /// What a restore into an empty file makes of block `number`.
    pub fn restored(&self, number: u64) -> Vec<u8> {
        match self.block(number) {
            Block::Data(bytes, ..) => bytes,
            _ => vec![0; self.block_len(number)],
        }
    }

    /// What a restore into an empty file makes of all of it; only for small ones.
    pub fn image(&self) -> Vec<u8> {
        (0..self.size.div_ceil(BLOCK)).flat_map(|number| self.restored(number)).collect()
    }

    /// The blocks that hold bytes, in order.
    pub fn touched(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.keys().copied()
    }

    /// Whether nothing of these blocks counts.
    pub fn is_untouched(&self, numbers: Range<u64>) -> bool {
        !self.used.overlaps(extent(numbers.start * BLOCK, (numbers.end - numbers.start) * BLOCK))
    }

    fn mask(&self, set: &ExtentSet, number: u64) -> Mask {
        let len = self.block_len(number);
        let start = number * BLOCK;
        let mut mask = Mask::NONE;
        for part in set.overlapping(extent(start, len as u64)) {
            let within =
                |at: ByteOffset| usize::try_from(at.get().saturating_sub(start)).expect("small").min(len);
            let unit = self.unit.bytes();
            mask.set(within(part.start()) / unit, within(part.end()).div_ceil(unit));
        }
        mask
    }
}

fn extent(at: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(at), ByteLen::new(len)).expect("an extent")
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(step).collect()
}

/// Bytes that compress well, the same for the same seed.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = (0_u64..).flat_map(|n| format!("line {} of text {seed}\n", n / 3).into_bytes());
    words.take(len).collect()
}
