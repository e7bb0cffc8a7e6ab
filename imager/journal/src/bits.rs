//! The marks of a disk as the kernel's program makes them: a bit a block, in three levels.
//!
//! A bit of the second level stands for a word (64 bits) of the first, one of the third for a word of the second, so
//! that a range of any length is marked in few steps (`journal.bpf.c`). Whoever harvests first spreads the upper levels
//! over the first, then takes the first word by word. Each word is taken by an atomic exchange with zero: a mark that
//! is set after that belongs to the next harvest, and none is lost, however the two interleave.

use crate::log::MARK_BYTES;
use imager_units::{ByteLen, ByteOffset, Extent};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Bits in a word.
const WORD: u64 = 64;

/// Where the levels of a disk lie in its array of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    size: ByteLen,
    starts: [usize; 3],
    words: usize,
}

impl Levels {
    /// Those of a disk of this size; `None` when it is empty or beyond what can be tracked.
    pub(crate) fn of(size: ByteLen) -> Option<Self> {
        let mut count = size.get().div_ceil(MARK_BYTES.get());
        let (mut starts, mut words) = ([0; 3], 0_u64);
        for start in &mut starts {
            *start = usize::try_from(words).ok()?;
            count = count.div_ceil(WORD);
            words = words.checked_add(count)?;
        }
        // The kernel numbers the entries of an array by 32 bits.
        u32::try_from(words).ok().filter(|_| !size.is_zero())?;
        Some(Self { size, starts, words: usize::try_from(words).ok()? })
    }

    /// How many words all of them take.
    pub(crate) const fn words(self) -> usize {
        self.words
    }

    /// The first words of the second and third level.
    pub(crate) const fn upper(self) -> [usize; 2] {
        [self.starts[1], self.starts[2]]
    }

    /// How many blocks the disk has.
    pub(crate) fn blocks(self) -> u64 {
        self.size.get().div_ceil(MARK_BYTES.get())
    }

    /// Takes marks: each run by its extent, until `each` has had enough; the rest stays marked. The run on which it gave
    /// up counts as taken.
    pub(crate) fn sweep(self, words: &[AtomicU64], each: &mut dyn FnMut(Extent) -> bool) {
        self.spread(words, 2);
        self.spread(words, 1);
        let first = words.get(..self.starts[1]).unwrap_or_default();
        for (number, word) in (0_u64..).zip(first) {
            let bits = if word.load(SeqCst) == 0 { 0 } else { word.swap(0, SeqCst) };
            for (from, run) in runs(bits) {
                let extent = self.extent(number * WORD + u64::from(from), run.into());
                // Where all blocks of a word were marked, some may be behind the end.
                if !extent.is_empty() && !each(extent) {
                    word.fetch_or(bits & behind(from + run), SeqCst);
                    return;
                }
            }
        }
    }

    /// Says the marks of a level by those of the level below. They are set there before they go here, so that
    /// [`Levels::is_marked`] never misses one.
    fn spread(self, words: &[AtomicU64], level: usize) {
        let upper = words.get(self.starts[level]..self.end(level)).unwrap_or_default();
        let lower = words.get(self.starts[level - 1]..self.end(level - 1)).unwrap_or_default();
        for (word, below) in upper.iter().zip(lower.chunks(64)) {
            let bits = word.load(SeqCst);
            for (bit, word) in below.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1) {
                debug_assert!(bit < 64);
                word.store(u64::MAX, SeqCst);
            }
            word.fetch_and(!bits, SeqCst);
        }
    }

    /// The runs of a copy of the first level.
    pub(crate) fn each_run(self, words: &[u64], each: &mut dyn FnMut(Extent)) {
        for (number, &word) in (0_u64..).zip(words) {
            for (from, run) in runs(word) {
                each(self.extent(number * WORD + u64::from(from), run.into()));
            }
        }
    }

    fn end(self, level: usize) -> usize {
        self.starts.get(level + 1).copied().unwrap_or(self.words)
    }

    /// Whether a byte of `extent` is marked.
    pub(crate) fn is_marked(self, words: &[AtomicU64], extent: Extent) -> bool {
        let extent = extent.intersection(Extent::first(self.size));
        if extent.is_empty() {
            return false;
        }
        let mut first = extent.start().get() / MARK_BYTES.get();
        let mut last = (extent.end().get() - 1) / MARK_BYTES.get();
        // From the top: a mark that moves down meanwhile is met below.
        let mut ranges = [(0, 0); 3];
        for range in &mut ranges {
            *range = (first, last);
            (first, last) = (first / WORD, last / WORD);
        }
        (0..3).rev().any(|level| {
            let level_words = words.get(self.starts[level]..self.end(level)).unwrap_or_default();
            let (first, last) = ranges[level];
            any_set(level_words, first, last)
        })
    }

    /// How much is marked now, without taking it.
    pub(crate) fn marked(self, words: &[AtomicU64]) -> ByteLen {
        let mut marked = 0_u64;
        for (level, blocks) in [1, WORD, WORD * WORD].into_iter().enumerate() {
            let words = words.get(self.starts[level]..self.end(level)).unwrap_or_default();
            let bits: u64 = words.iter().map(|word| u64::from(word.load(SeqCst).count_ones())).sum();
            marked += bits * blocks;
        }
        // What is marked on two levels counts twice here, and never for more than there is.
        ByteLen::new(marked.saturating_mul(MARK_BYTES.get())).min(self.size)
    }

    fn extent(self, block: u64, count: u64) -> Extent {
        let at = |block: u64| ByteOffset::new(block.saturating_mul(MARK_BYTES.get()));
        Extent::between(at(block), at(block + count)).intersection(Extent::first(self.size))
    }
}

/// A bit a block, in memory of our own that is there from the beginning.
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Of a disk; without any block.
    pub(crate) fn of(levels: Levels) -> Self {
        Self { words: vec![0; levels.starts[1]] }
    }

    /// Adds the blocks of an extent.
    pub(crate) fn insert(&mut self, extent: Extent) {
        let unit = MARK_BYTES.get();
        for block in extent.start().get() / unit..extent.end().get().div_ceil(unit) {
            let word = usize::try_from(block / WORD).ok().and_then(|word| self.words.get_mut(word));
            if let Some(word) = word {
                *word |= 1 << (block % WORD);
            }
        }
    }

    /// Adds all blocks.
    pub(crate) fn fill(&mut self) {
        self.words.fill(u64::MAX);
    }

    /// Takes all away.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// A bit a block.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }
}

/// The bits from `from` on.
fn behind(from: u32) -> u64 {
    u64::MAX.checked_shl(from).unwrap_or(0)
}

/// The runs of set bits in a word: the first bit, and how many.
fn runs(mut bits: u64) -> impl Iterator<Item = (u32, u32)> {
    std::iter::from_fn(move || {
        let from = (bits != 0).then(|| bits.trailing_zeros())?;
        let run = (bits >> from).trailing_ones();
        bits &= behind(from + run);
        Some((from, run))
    })
}

fn any_set(words: &[AtomicU64], first: u64, last: u64) -> bool {
    (first / WORD..=last / WORD).any(|number| {
        let Some(word) = usize::try_from(number).ok().and_then(|number| words.get(number)) else {
            return false;
        };
        let from = first.saturating_sub(number * WORD);
        let to = (last - number * WORD).min(WORD - 1);
        word.load(SeqCst) & (u64::MAX << from) & (u64::MAX >> (WORD - 1 - to)) != 0
    })
}

#[cfg(test)]
mod tests;
