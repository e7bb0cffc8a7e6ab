//! Which of the blocks that are said to be unchanged are read all the same.
//!
//! The journal is an optimisation and never the truth: each capture that relies on it looks at a hundredth of what it
//! would not have to, and at every superblock, and compares. Neighbours are looked at together, so that this is a
//! hundredth of the reads too, and most nodes of the map need not be fetched for it.

use imager_units::{Extent, ExtentSet};

/// How many neighbours are looked at together.
const TOGETHER: u64 = 16;
/// One in so many is.
const ONE_IN: u64 = 100;
/// Among so many groups one is.
const GROUPS_MOST: usize = 10_000;

/// A seeded choice of blocks.
#[derive(Clone, Debug)]
pub struct Audit {
    /// What the choice depends on.
    pub seed: u64,
    /// What is looked at always, relative to the volume.
    pub heads: ExtentSet,
}

impl Audit {
    /// Whether a block is looked at.
    pub(super) fn has(&self, index: u64, extent: Extent) -> bool {
        self.hits(index / TOGETHER) || self.heads.overlaps(extent)
    }

    /// The first block of the sample from `from` on, or `end`.
    pub(super) fn sampled(&self, from: u64, end: u64) -> u64 {
        let groups = from / TOGETHER..=end / TOGETHER;
        // Where nothing is marked the end is far behind the volume's, and a hit comes before.
        let hit = groups.take(GROUPS_MOST).find(|group| self.hits(*group));
        hit.map_or(end, |group| (group * TOGETHER).max(from).min(end))
    }

    /// SplitMix64's finisher over the group's number.
    fn hits(&self, group: u64) -> bool {
        let mut x = self.seed.wrapping_add(group.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)).is_multiple_of(ONE_IN)
    }
}
