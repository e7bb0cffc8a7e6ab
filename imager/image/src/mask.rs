//! Which parts of a block count.
//!
//! A block is divided into units of 512 to 65536 bytes, so a mask has 1 to 128 bits: one `u128`. Bit 0 is the first
//! unit. The unit is a property of a volume; every leaf of its map repeats it.

use crate::BLOCK_BYTES;
use imager_units::{Error, Result};

/// The grain of a volume's masks: a power of two from 512 to 65536 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskUnit(u32);

/// The units of one block that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mask(pub u128);

impl MaskUnit {
    /// The grain of 512 bytes.
    pub const SECTOR: Self = Self(9);
    /// The grain of a whole block.
    pub const BLOCK: Self = Self(16);

    /// A grain of `bytes` bytes.
    ///
    /// # Errors
    /// `Corrupt` when it is no power of two from 512 to 65536.
    pub fn new(bytes: u64) -> Result<Self> {
        match u8::try_from(bytes.trailing_zeros()) {
            Ok(log2) if bytes.is_power_of_two() => Self::from_log2(log2),
            _ => Err(Error::corrupt(format!("a mask unit of {bytes} bytes"))),
        }
    }

    /// A grain of 2^`log2` bytes, 9 to 16.
    ///
    /// # Errors
    /// `Corrupt` when it is out of that range.
    pub fn from_log2(log2: u8) -> Result<Self> {
        if (9..=16).contains(&log2) {
            return Ok(Self(log2.into()));
        }
        Err(Error::corrupt(format!("a mask unit of 2^{log2} bytes")))
    }

    /// The exponent, 9 to 16.
    pub fn log2(self) -> u8 {
        u8::try_from(self.0).unwrap_or(u8::MAX)
    }

    /// The grain in bytes.
    pub const fn bytes(self) -> usize {
        1_usize.unbounded_shl(self.0)
    }

    /// How many bytes a mask takes in the format: a bit a unit of a full block, at least one byte.
    pub const fn encoded_len(self) -> usize {
        BLOCK_BYTES.unbounded_shr(self.0).div_ceil(8)
    }

    /// Every unit of a block of `block_len` bytes; the last unit of a volume may be shorter.
    pub fn full(self, block_len: usize) -> Mask {
        let units = u32::try_from(block_len.div_ceil(self.bytes())).unwrap_or(128);
        Mask(u128::MAX.unbounded_shr(128_u32.saturating_sub(units)))
    }
}

impl Mask {
    /// No unit.
    pub const NONE: Self = Self(0);

    /// Whether no unit counts.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether every unit of `self` is in `other`.
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The units of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The units of this one that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Adds the units `from..to`.
    pub fn set(&mut self, from: usize, to: usize) {
        let below = |n: usize| u32::try_from(n).map_or(u128::MAX, |n| !u128::MAX.unbounded_shl(n));
        self.0 |= below(to) & !below(from);
    }

    /// Runs of counting units as half-open byte ranges inside a block of `block_len` bytes, in order.
    pub fn runs(self, unit: MaskUnit, block_len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let mut at = 0_u32;
        let bytes = move |unit_no: u32| {
            usize::try_from(unit_no).map_or(block_len, |n| n.saturating_mul(unit.bytes()).min(block_len))
        };
        std::iter::from_fn(move || {
            let skip = self.0.unbounded_shr(at).trailing_zeros();
            let from = at.saturating_add(skip).min(128);
            let run = self.0.unbounded_shr(from).trailing_ones();
            at = from.saturating_add(run);
            (run > 0).then(|| bytes(from)..bytes(at))
        })
    }

    /// Sets every byte of `block` outside the mask to zero.
    pub fn clear_outside(self, unit: MaskUnit, block: &mut [u8]) {
        let len = block.len();
        if unit.full(len).is_within(self) {
            return;
        }
        let outside = unit.full(len).without(self);
        for run in outside.runs(unit, len) {
            if let Some(bytes) = block.get_mut(run) {
                bytes.fill(0);
            }
        }
    }

    /// The mask as the format stores it.
    pub(crate) fn encode(self, unit: MaskUnit, out: &mut Vec<u8>) {
        out.extend(self.0.to_le_bytes().iter().take(unit.encoded_len()));
    }

    /// A mask as the format stores it.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut wide = [0; 16];
        wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self(u128::from_le_bytes(wide))
    }
}

#[cfg(test)]
mod tests {
    use super::{Mask, MaskUnit};
    use crate::BLOCK_BYTES;
    use proptest::prelude::{any, proptest};

    #[test]
    fn a_full_mask_has_a_bit_for_each_unit_even_a_short_last_one() {
        assert_eq!(MaskUnit::SECTOR.full(BLOCK_BYTES), Mask(u128::MAX));
        assert_eq!(MaskUnit::BLOCK.full(BLOCK_BYTES), Mask(1));
        assert_eq!(MaskUnit::SECTOR.full(513), Mask(3));
        assert_eq!(MaskUnit::SECTOR.full(0), Mask(0));
        assert!(MaskUnit::new(256).is_err() && MaskUnit::new(131_072).is_err() && MaskUnit::new(0).is_err());
    }

    proptest! {
        #[test]
        fn runs_are_the_bits_and_clearing_spares_exactly_them(
            bits in any::<u128>(), log2 in 9_u8..=16, len in 1..=BLOCK_BYTES,
        ) {
            let unit = MaskUnit::from_log2(log2).unwrap();
            let mask = Mask(bits & unit.full(len).0);
            let mut block = vec![1_u8; len];
            mask.clear_outside(unit, &mut block);
            let mut expected = vec![0_u8; len];
            for run in mask.runs(unit, len) {
                expected[run].fill(1);
            }
            assert_eq!(block, expected);
            let kept = (0..128).filter(|n| mask.0 >> n & 1 == 1).map(|n| {
                (n * unit.bytes()).min(len)..((n + 1) * unit.bytes()).min(len)
            });
            assert_eq!(kept.map(|r| r.len()).sum::<usize>(), expected.iter().filter(|&&b| b == 1).count());
            let mut encoded = Vec::new();
            mask.encode(unit, &mut encoded);
            assert_eq!((Mask::decode(&encoded), encoded.len()), (mask, unit.encoded_len()));
            let mut rebuilt = Mask::NONE;
            for run in mask.runs(unit, len) {
                rebuilt.set(run.start / unit.bytes(), run.end.div_ceil(unit.bytes()));
            }
            assert_eq!(rebuilt, mask);
        }
    }
}
