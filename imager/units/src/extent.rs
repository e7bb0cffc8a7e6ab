//! A run of bytes.

use crate::{ByteLen, ByteOffset};
use std::fmt;

/// A half-open run of bytes `start .. start + len` that ends at or before 2^64 - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    start: ByteOffset,
    len: ByteLen,
}

impl Extent {
    /// The run of `len` bytes from `start`, or `None` when it would end past 2^64 - 1.
    pub const fn new(start: ByteOffset, len: ByteLen) -> Option<Self> {
        match start.checked_add(len) {
            Some(_) => Some(Self { start, len }),
            None => None,
        }
    }

    /// The run from `start` up to `end`; empty when `end` is not behind `start`.
    pub const fn between(start: ByteOffset, end: ByteOffset) -> Self {
        Self { start, len: end.saturating_since(start) }
    }

    /// The run of the first `len` bytes.
    pub const fn first(len: ByteLen) -> Self {
        Self { start: ByteOffset::ZERO, len }
    }

    /// The first byte.
    pub const fn start(self) -> ByteOffset {
        self.start
    }

    /// How many bytes.
    pub const fn len(self) -> ByteLen {
        self.len
    }

    /// The first byte behind the run.
    pub const fn end(self) -> ByteOffset {
        self.start.saturating_add(self.len)
    }

    /// Whether the run holds no byte.
    pub const fn is_empty(self) -> bool {
        self.len.is_zero()
    }

    /// Whether every byte of `other` is in this run; an empty run is in any.
    pub fn contains(self, other: Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end() <= self.end())
    }

    /// Whether the two share a byte.
    pub fn overlaps(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// The bytes in both; empty when there are none.
    pub fn intersection(self, other: Self) -> Self {
        Self::between(self.start.max(other.start), self.end().min(other.end()))
    }

    /// The smallest run of whole `unit`s around this one.
    pub const fn align_out(self, unit: ByteLen) -> Self {
        Self::between(self.start.align_down(unit), self.end().align_up(unit))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.start, self.len.get())
    }
}
