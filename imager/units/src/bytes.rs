//! Byte positions and byte lengths.

use std::fmt;

/// A position in bytes from the start of a disk, volume, file or object (which one, the context says).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(u64);

/// A length in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(u64);

impl ByteOffset {
    /// The start.
    pub const ZERO: Self = Self(0);

    /// The position `bytes` bytes from the start.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes from the start.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `len` further on, or `None` past 2^64.
    pub const fn checked_add(self, len: ByteLen) -> Option<Self> {
        match self.0.checked_add(len.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The position `len` further on, at most 2^64 - 1.
    pub const fn saturating_add(self, len: ByteLen) -> Self {
        Self(self.0.saturating_add(len.0))
    }

    /// How far this position lies behind `earlier`; zero when it does not.
    pub const fn saturating_since(self, earlier: Self) -> ByteLen {
        ByteLen(self.0.saturating_sub(earlier.0))
    }

    /// The multiple of `unit` at or before this position. A `unit` of zero changes nothing.
    pub const fn align_down(self, unit: ByteLen) -> Self {
        match self.0.checked_rem(unit.0) {
            Some(rest) => Self(self.0.saturating_sub(rest)),
            None => self,
        }
    }

    /// The multiple of `unit` at or after this position, at most 2^64 - 1. A `unit` of zero changes nothing.
    pub const fn align_up(self, unit: ByteLen) -> Self {
        match self.0.checked_rem(unit.0) {
            None | Some(0) => self,
            Some(rest) => Self(self.0.saturating_add(unit.0.saturating_sub(rest))),
        }
    }

    /// Whether this position is a multiple of `unit`.
    pub const fn is_aligned(self, unit: ByteLen) -> bool {
        matches!(self.0.checked_rem(unit.0), None | Some(0))
    }
}

impl ByteLen {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this is no byte at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The length of a slice or buffer.
    pub fn of(bytes: &[u8]) -> Self {
        Self(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
    }

    /// The length as a `usize`, or `None` where this machine cannot address so much.
    pub fn to_usize(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }

    /// The sum, or `None` past 2^64.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The sum, at most 2^64 - 1.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for ByteLen {
    /// IEC, one decimal: `512 B`, `64.0 KiB`, `3.2 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut scaled = u128::from(self.0) * 10 / 1024;
        let mut unit = 0;
        while scaled >= 10_240 && unit + 1 < UNITS.len() {
            scaled /= 1024;
            unit += 1;
        }
        f.pad(&format!("{}.{} {}", scaled / 10, scaled % 10, UNITS[unit]))
    }
}

impl std::iter::Sum for ByteLen {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteLen, ByteOffset};

    #[test]
    fn lengths_are_shown_in_iec_units() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (65_536, "64.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (3_435_973_836, "3.1 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(ByteLen::new(bytes).to_string(), shown);
        }
    }

    #[test]
    fn alignment_never_leaves_64_bits() {
        let unit = ByteLen::new(4096);
        assert_eq!(ByteOffset::new(4097).align_down(unit).get(), 4096);
        assert_eq!(ByteOffset::new(4097).align_up(unit).get(), 8192);
        assert_eq!(ByteOffset::new(u64::MAX).align_up(unit).get(), u64::MAX);
        assert_eq!(ByteOffset::new(7).align_up(ByteLen::ZERO).get(), 7);
    }
}
