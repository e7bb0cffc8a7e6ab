//! The used map: everything but what both trees of a group call free.

use super::group::Group;
use super::layout::Layout;
use super::superblock::Superblock;
use super::tree::{Free, Order, Walk};
use crate::gather::Gather;
use crate::{Certainty, UsedMap};
use imager_disk::ReadAt;
use imager_units::{Error, Extent, Result};

/// Maps the filesystem.
///
/// # Errors
/// `Io`; `Corrupt` when a tree is damaged, or the trees, their group's counts and the superblock's do not agree.
pub(super) fn map(
    volume: &dyn ReadAt,
    sb: &Superblock,
    layout: &Layout,
    counters: Counters,
) -> Result<UsedMap> {
    let mut used = Gather::default();
    let mut free = 0_u64;
    for number in 0..layout.groups {
        let group = Group::read(volume, sb, layout, number)?;
        let sums = map_group(volume, sb, layout, &group, &mut used)?;
        let own = group.agf_freeblks.saturating_add(group.agf_flcount);
        free = free.saturating_add(own).saturating_add(sums);
    }
    if counters == Counters::Final && free != sb.sb_fdblocks {
        let says = sb.sb_fdblocks;
        return Err(Error::corrupt(format!("{free} blocks are free and the superblock says {says}")));
    }
    used.push(Extent::between(layout.end(), volume.geometry().extent().end()));
    let extents = used.finish();
    if !extents.contains(layout.log) {
        return Err(Error::corrupt("blocks of its log are called free"));
    }
    Ok(UsedMap { extents, unit: layout.block(), certainty: Certainty::Exact })
}

/// What the superblock's counters are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counters {
    /// They were written at unmount.
    Final,
    /// The kernel will count anew (`xfs_initialize_perag_data`).
    Stale,
}

/// What a tree adds up to.
#[derive(Default, PartialEq, Eq)]
struct Sums {
    records: u64,
    blocks: u64,
    longest: u64,
    /// A sum over a digest of each record, so that two trees with other records differ in it.
    digest: u64,
}

impl Sums {
    fn add(&mut self, free: Free) {
        self.records = self.records.saturating_add(1);
        self.blocks = self.blocks.saturating_add(free.count);
        self.longest = self.longest.max(free.count);
        self.digest = self.digest.wrapping_add(mixed(free.start << 32 | free.count));
    }
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output.
fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// Adds what is used of a group; returns how many blocks of trees count as free in the superblock.
fn map_group(
    volume: &dyn ReadAt,
    sb: &Superblock,
    layout: &Layout,
    group: &Group,
    used: &mut Gather,
) -> Result<u64> {
    let walk = |order| Walk::new(volume, sb, layout, group, order);
    let (mut by_block, mut by_count, mut at) = (Sums::default(), Sums::default(), 0);
    let mut blocks = walk(Order::Block).run(&mut |free| {
        used.push(layout.extent(group.number, at, free.start));
        at = free.end();
        by_block.add(free);
    })?;
    used.push(layout.extent(group.number, at, group.blocks));
    blocks = blocks.saturating_add(walk(Order::Count).run(&mut |free| by_count.add(free))?);
    let wrong = |what: String| Error::corrupt(format!("allocation group {}: {what}", group.number));
    if by_block != by_count {
        return Err(wrong("its two trees of free space do not hold the same".to_owned()));
    }
    let (free, longest) = (group.agf_freeblks, group.agf_longest);
    if (by_block.blocks, by_block.longest) != (free, longest) {
        let Sums { blocks, longest: most, .. } = by_block;
        return Err(wrong(format!(
            "{blocks} blocks are free, {most} in a row, and its header says {free} and {longest}"
        )));
    }
    if !sb.features.has_lazy_counters() {
        return Ok(0);
    }
    // Roots are not counted: two, and that of the reverse map.
    let reverse = group.agf_rmap_blocks.saturating_sub(1);
    if blocks.saturating_sub(2).saturating_add(reverse) != group.agf_btreeblks {
        let says = group.agf_btreeblks;
        return Err(wrong(format!(
            "its trees of free space have {blocks} blocks, and its header says {says}"
        )));
    }
    Ok(group.agf_btreeblks)
}
