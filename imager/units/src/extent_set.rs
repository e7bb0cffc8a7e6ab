//! A set of bytes as sorted, disjoint, non-touching extents.

use crate::{ByteLen, ByteOffset, Extent};

/// The extents of a set, in order.
pub type Extents<'a> = std::iter::Copied<std::slice::Iter<'a, Extent>>;

/// A set of bytes, kept as sorted extents that neither overlap nor touch, so equal sets are equal values.
///
/// Sixteen bytes of memory an extent; [`ExtentSet::coarsen`] bounds them where a superset is as good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentSet {
    extents: Vec<Extent>,
}

impl ExtentSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { extents: Vec::new() }
    }

    /// Adds the bytes of `extent`. Cheap at the end, where a parser that walks in order adds.
    pub fn insert(&mut self, extent: Extent) {
        if extent.is_empty() {
            return;
        }
        match self.extents.last_mut() {
            Some(last) if extent.start() < last.start() => self.insert_inside(extent),
            Some(last) if extent.start() <= last.end() => {
                *last = Extent::between(last.start(), last.end().max(extent.end()));
            }
            _ => self.extents.push(extent),
        }
    }

    fn insert_inside(&mut self, extent: Extent) {
        let from = self.extents.partition_point(|e| e.end() < extent.start());
        let to = self.extents.partition_point(|e| e.start() <= extent.end());
        let joined = match (self.extents.get(from), to.checked_sub(1).and_then(|i| self.extents.get(i))) {
            (Some(first), Some(last)) if from < to => {
                Extent::between(first.start().min(extent.start()), last.end().max(extent.end()))
            }
            _ => extent,
        };
        self.extents.splice(from..to, [joined]);
    }

    /// The extents in order.
    pub fn iter(&self) -> Extents<'_> {
        self.extents.iter().copied()
    }

    /// How many extents.
    pub fn count(&self) -> usize {
        self.extents.len()
    }

    /// Whether no byte is in the set.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// How many bytes are in the set.
    pub fn total(&self) -> ByteLen {
        self.iter().map(Extent::len).sum()
    }

    /// The first byte behind the last extent; zero for the empty set.
    pub fn end(&self) -> ByteOffset {
        self.extents.last().map_or(ByteOffset::ZERO, |last| last.end())
    }

    /// The extents that share a byte with `within`, cut to it, in order.
    pub fn overlapping(&self, within: Extent) -> impl Iterator<Item = Extent> + '_ {
        let from = self.extents.partition_point(|e| e.end() <= within.start());
        let rest = self.extents.get(from..).unwrap_or_default();
        rest.iter().map(move |e| e.intersection(within)).take_while(|e| !e.is_empty())
    }

    /// Whether every byte of `extent` is in the set.
    pub fn contains(&self, extent: Extent) -> bool {
        let at = self.extents.partition_point(|e| e.end() <= extent.start());
        extent.is_empty() || self.extents.get(at).is_some_and(|e| e.contains(extent))
    }

    /// Whether some byte of `extent` is in the set.
    pub fn overlaps(&self, extent: Extent) -> bool {
        self.overlapping(extent).next().is_some()
    }

    /// The bytes in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.iter().peekable(), other.iter().peekable());
        let mut both = Self::new();
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x.start() <= y.start() => a.next(),
                (Some(_), None) => a.next(),
                (_, Some(_)) => b.next(),
                (None, None) => return both,
            };
            both.extend(next);
        }
    }

    /// The bytes in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.iter().peekable(), other.iter().peekable());
        let mut both = Self::new();
        while let (Some(x), Some(y)) = (a.peek().copied(), b.peek().copied()) {
            both.insert(x.intersection(y));
            if x.end() <= y.end() {
                a.next();
            } else {
                b.next();
            }
        }
        both
    }

    /// The bytes of `within` that are not in the set.
    #[must_use]
    pub fn complement(&self, within: Extent) -> Self {
        let mut rest = Self::new();
        let mut at = within.start();
        for extent in self.overlapping(within) {
            rest.insert(Extent::between(at, extent.start()));
            at = extent.end();
        }
        rest.insert(Extent::between(at, within.end()));
        rest
    }

    /// The bytes in this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement(Extent::between(ByteOffset::ZERO, self.end())))
    }

    /// The smallest set of whole `unit`s around this one, cut at `end`.
    #[must_use]
    pub fn align_out(&self, unit: ByteLen, end: ByteOffset) -> Self {
        let bounds = Extent::between(ByteOffset::ZERO, end);
        self.iter().map(|e| e.align_out(unit).intersection(bounds)).collect()
    }

    /// A superset of at most `most` extents (at least one): the smallest gaps are filled first, by powers of two.
    /// Bounds memory on a filesystem fragmented beyond reason, where copying too much is harmless.
    #[must_use]
    pub fn coarsen(mut self, most: usize) -> Self {
        let mut gap = ByteLen::new(4096);
        while self.extents.len() > most.max(1) {
            self.extents.dedup_by(|next, kept| {
                let near = next.start().saturating_since(kept.end()) <= gap;
                if near {
                    *kept = Extent::between(kept.start(), next.end());
                }
                near
            });
            gap = gap.saturating_add(gap);
        }
        self
    }
}

impl Extend<Extent> for ExtentSet {
    fn extend<I: IntoIterator<Item = Extent>>(&mut self, extents: I) {
        extents.into_iter().for_each(|extent| self.insert(extent));
    }
}

impl FromIterator<Extent> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        let mut set = Self::new();
        set.extend(extents);
        set
    }
}

impl From<Extent> for ExtentSet {
    fn from(extent: Extent) -> Self {
        [extent].into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::ExtentSet;
    use crate::{ByteLen, ByteOffset, Extent};
    use proptest::prelude::{Strategy, proptest};

    const SPACE: usize = 200;

    fn extent(start: usize, len: usize) -> Extent {
        Extent::new(ByteOffset::new(start as u64), ByteLen::new(len as u64)).unwrap()
    }

    /// The naive model: one bool a byte.
    fn model(set: &ExtentSet) -> Vec<bool> {
        (0..SPACE).map(|at| set.overlaps(extent(at, 1))).collect()
    }

    fn is_canonical(set: &ExtentSet) -> bool {
        let extents: Vec<_> = set.iter().collect();
        extents.iter().all(|e| !e.is_empty())
            && extents.windows(2).all(|pair| pair[0].end() < pair[1].start())
    }

    fn sets() -> impl Strategy<Value = Vec<(usize, usize)>> {
        proptest::collection::vec((0..SPACE - 20, 0..20_usize), 0..12)
    }

    proptest! {
        #[test]
        fn operations_agree_with_one_bool_a_byte(a in sets(), b in sets(), unit in 1..16_u64) {
            let build = |parts: &[(usize, usize)]| parts.iter().map(|&(s, l)| extent(s, l)).collect::<ExtentSet>();
            let (x, y) = (build(&a), build(&b));
            let mut bits = vec![false; SPACE];
            a.iter().for_each(|&(s, l)| bits[s..s + l].fill(true));
            assert_eq!(model(&x), bits);
            let all = extent(0, SPACE);
            for set in [&x, &x.union(&y), &x.intersection(&y), &x.complement(all), &x.difference(&y)] {
                assert!(is_canonical(set));
            }
            for at in 0..SPACE {
                let (p, q) = (model(&x)[at], model(&y)[at]);
                assert_eq!(model(&x.union(&y))[at], p || q);
                assert_eq!(model(&x.intersection(&y))[at], p && q);
                assert_eq!(model(&x.complement(all))[at], !p);
                assert_eq!(model(&x.difference(&y))[at], p && !q);
            }
            assert_eq!(x.total().get(), bits.iter().filter(|&&bit| bit).count() as u64);
            let aligned = x.align_out(ByteLen::new(unit), all.end());
            assert_eq!(aligned.union(&x), aligned);
            let coarse = x.clone().coarsen(3);
            assert!(coarse.count() <= 3);
            assert_eq!(coarse.union(&x), coarse);
        }
    }
}
