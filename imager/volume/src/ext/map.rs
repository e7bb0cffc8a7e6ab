//! The used map: every group's bitmap, and every structure whether the bitmaps have it or not.
//!
//! Descriptors are read a block at a time and the bitmaps of neighbouring groups (side by side with `flex_bg`) in one
//! read, so memory does not depend on the size of the filesystem. Groups whose bitmap was never written cost nothing.

use super::groups::Group;
use super::layout::Layout;
use super::superblock::Superblock;
use crate::bitmap::runs;
use crate::gather::Gather;
use crate::read::{read, read_into};
use crate::{Certainty, UsedMap};
use imager_disk::ReadAt;
use imager_units::{Error, Extent, ExtentSet, Result};

/// How much of the bitmaps is read at once.
const READ_BYTES: u64 = 1 << 20;

/// Maps the filesystem.
///
/// # Errors
/// `Io`; `Corrupt` when checksums or free counts do not agree with the bitmaps.
pub(super) fn map(volume: &dyn ReadAt, sb: &Superblock, layout: &Layout) -> Result<UsedMap> {
    let mut walk =
        Walk { volume, sb, layout, used: Gather::default(), free_clusters: 0, bitmaps: Vec::new() };
    walk.used.push(layout.primary().intersection(volume.geometry().extent()));
    for index in 0..layout.desc_blocks {
        let groups = walk.read_groups(index)?;
        walk.map_groups(&groups)?;
    }
    walk.finish()
}

/// The inode tables that nobody wrote to since `mkfs` (fs/ext4/ialloc.c, `ext4_init_inode_table`).
///
/// # Errors
/// `Io`; `Corrupt` when a descriptor is wrong.
pub(super) fn unwritten(volume: &dyn ReadAt, sb: &Superblock, layout: &Layout) -> Result<ExtentSet> {
    let walk = Walk { volume, sb, layout, used: Gather::default(), free_clusters: 0, bitmaps: Vec::new() };
    let mut found = ExtentSet::new();
    for index in 0..layout.desc_blocks {
        for group in walk.read_groups(index)?.iter().filter(|group| group.table_unwritten) {
            let [.., (from, to)] = group.structures(layout);
            found.insert(layout.extent(from, to));
        }
    }
    Ok(found)
}

struct Walk<'a> {
    volume: &'a dyn ReadAt,
    sb: &'a Superblock,
    layout: &'a Layout,
    used: Gather,
    free_clusters: u64,
    bitmaps: Vec<u8>,
}

impl Walk<'_> {
    fn read_groups(&self, index: u64) -> Result<Vec<Group>> {
        let layout = self.layout;
        let at = layout.desc_block(index);
        let block = read(self.volume, layout.extent(at, at.saturating_add(1)))?;
        let first = index.saturating_mul(layout.descs_per_block);
        let len = usize::try_from(layout.desc_bytes).unwrap_or(usize::MAX);
        let groups = (first..layout.groups).zip(block.chunks_exact(len));
        groups.map(|(number, desc)| Group::parse(number, desc, self.sb, layout)).collect()
    }

    fn map_groups(&mut self, groups: &[Group]) -> Result<()> {
        let most = READ_BYTES.checked_div(self.layout.block_bytes).unwrap_or(1);
        let most = usize::try_from(most).unwrap_or(1).max(1);
        let side_by_side = |a: &Group, b: &Group| {
            !a.block_uninit && !b.block_uninit && a.block_bitmap.checked_add(1) == Some(b.block_bitmap)
        };
        for run in groups.chunk_by(side_by_side).flat_map(|run| run.chunks(most)) {
            match run {
                [group] if group.block_uninit => self.map_uninit(group)?,
                _ => self.map_bitmaps(run)?,
            }
        }
        for (from, to) in groups.iter().flat_map(|group| group.structures(self.layout)) {
            self.used.push(self.layout.extent(from, to));
        }
        Ok(())
    }

    /// Maps groups whose bitmaps lie side by side.
    fn map_bitmaps(&mut self, groups: &[Group]) -> Result<()> {
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return Ok(()) };
        let extent = self.layout.extent(first.block_bitmap, last.block_bitmap.saturating_add(1));
        let mut bitmaps = std::mem::take(&mut self.bitmaps);
        read_into(self.volume, extent, &mut bitmaps)?;
        let len = usize::try_from(self.layout.block_bytes).unwrap_or(usize::MAX);
        for (group, bitmap) in groups.iter().zip(bitmaps.chunks_exact(len)) {
            self.map_bitmap(group, bitmap)?;
        }
        self.bitmaps = bitmaps;
        Ok(())
    }

    fn map_bitmap(&mut self, group: &Group, bitmap: &[u8]) -> Result<()> {
        let number = group.number;
        if !group.bitmap_is_right(bitmap, self.sb, self.layout) {
            return Err(Error::corrupt(format!(
                "the checksum of the block bitmap of group {number} is wrong"
            )));
        }
        let (layout, used) = (self.layout, &mut self.used);
        let clusters = layout.clusters_of(number);
        let block = |cluster: u64| {
            let blocks = cluster.saturating_mul(layout.cluster_blocks);
            layout.first_block(number).saturating_add(blocks).min(layout.end_block(number))
        };
        let set = runs(bitmap, clusters, |from, to| used.push(layout.extent(block(from), block(to))));
        self.count_free(group, clusters.saturating_sub(set))
    }

    /// Maps a group without a bitmap as the kernel does (`ext4_init_block_bitmap`): its own structures, as far as
    /// they lie in it, are used.
    fn map_uninit(&mut self, group: &Group) -> Result<()> {
        let layout = self.layout;
        let bounds = layout.extent(layout.first_block(group.number), layout.end_block(group.number));
        let own: ExtentSet = group
            .structures(layout)
            .into_iter()
            .map(|(from, to)| layout.extent(from, to).intersection(bounds))
            .collect::<ExtentSet>()
            .align_out(layout.cluster(), bounds.end());
        let cluster = layout.cluster().get();
        let set: u64 = own.iter().map(|extent| extent.len().get().div_ceil(cluster)).sum();
        own.iter().for_each(|extent| self.used.push(extent));
        self.count_free(group, layout.clusters_of(group.number).saturating_sub(set))
    }

    fn count_free(&mut self, group: &Group, free: u64) -> Result<()> {
        if free != group.free_clusters {
            let (number, says) = (group.number, group.free_clusters);
            let what = format!("group {number} has {free} free clusters and its descriptor says {says}");
            return Err(Error::corrupt(what));
        }
        self.free_clusters = self.free_clusters.saturating_add(free);
        Ok(())
    }

    fn finish(mut self) -> Result<UsedMap> {
        let (sb, layout) = (self.sb, self.layout);
        let free = self.free_clusters.saturating_mul(layout.cluster_blocks);
        if free != sb.s_free_blocks_count {
            let says = sb.s_free_blocks_count;
            return Err(Error::corrupt(format!("{free} blocks are free and the superblock says {says}")));
        }
        if (1..layout.blocks).contains(&sb.s_mmp_block) {
            self.used.push(layout.extent(sb.s_mmp_block, sb.s_mmp_block.saturating_add(1)));
        }
        let end = layout.extent(0, layout.blocks).end();
        self.used.push(Extent::between(end, self.volume.geometry().extent().end()));
        Ok(UsedMap { extents: self.used.finish(), unit: layout.block(), certainty: Certainty::Exact })
    }
}
