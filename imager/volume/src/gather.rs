//! Collects the extents of a map in bounded memory.

use imager_units::{Extent, ExtentSet};

/// More extents than this are merged over their smallest gaps (32 MiB of memory at sixteen bytes each).
const MOST_EXTENTS: usize = 1 << 21;
/// What such a merge leaves, so that the next one is not due at once.
const MERGED_EXTENTS: usize = 3 << 19;
/// How many extents out of order wait until they are sorted in together.
const MOST_PENDING: usize = 1 << 16;

/// A set of extents that arrive mostly, but not all, in order.
///
/// An [`ExtentSet`] takes what comes in order at once, and moves everything behind what does not. A hostile volume
/// would make every insertion a move, so the latter are kept aside and merged many at a time.
#[derive(Default)]
pub(crate) struct Gather {
    set: ExtentSet,
    pending: Vec<Extent>,
}

impl Gather {
    /// Adds the bytes of `extent`.
    pub(crate) fn push(&mut self, extent: Extent) {
        if extent.start() >= self.set.end() {
            self.set.insert(extent);
        } else if !self.set.contains(extent) {
            self.pending.push(extent);
        }
        if self.pending.len() >= MOST_PENDING {
            self.settle();
        }
        if self.set.count() >= MOST_EXTENTS {
            self.set = std::mem::take(&mut self.set).coarsen(MERGED_EXTENTS);
        }
    }

    fn settle(&mut self) {
        self.pending.sort_unstable();
        let late: ExtentSet = self.pending.drain(..).collect();
        self.set = self.set.union(&late);
    }

    /// Everything that was added.
    pub(crate) fn finish(mut self) -> ExtentSet {
        if !self.pending.is_empty() {
            self.settle();
        }
        self.set
    }
}

#[cfg(test)]
mod tests {
    use super::{Gather, MOST_EXTENTS};
    use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        let parts: Vec<_> = (0..200_000_u64).map(|n| extent((n * 7919) % 1_000_003 * 10, 5)).collect();
        let mut gather = Gather::default();
        parts.iter().for_each(|&part| gather.push(part));
        let mut sorted = parts;
        sorted.sort_unstable();
        assert_eq!(gather.finish(), sorted.into_iter().collect::<ExtentSet>());
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_lost() {
        let mut gather = Gather::default();
        let most = u64::try_from(MOST_EXTENTS).unwrap();
        for n in 0..=most {
            let gap = if n % 2 == 0 { 1024 } else { 65_536 };
            gather.push(extent(n * 131_072 + gap, 1024));
        }
        let set = gather.finish();
        assert!(set.count() < MOST_EXTENTS);
        assert!((0..=most).all(|n| set.overlaps(extent(n * 131_072, 131_072))));
    }
}
