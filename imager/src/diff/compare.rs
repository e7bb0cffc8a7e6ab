//! Two block maps side by side, passing over whatever subtrees they share.

use super::Difference;
use crate::map::{FANOUT, MapReader, block_extent};
use crate::monitor::{Monitor, check_cancelled};
use imager_image::node::{Child, Content, Entry, blocks_under, root_level};
use imager_image::{Mask, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Extent, Result};

/// Compares the map of before with the map of after.
pub(super) struct Comparison<'a, 'r> {
    pub(super) before: MapReader<'r>,
    pub(super) after: MapReader<'r>,
    pub(super) monitor: &'a dyn Monitor,
    pub(super) found: &'a mut Difference,
}

impl Comparison<'_, '_> {
    /// Compares everything.
    ///
    /// # Errors
    /// `Corrupt`, `NotFound`, `Io` when a map cannot be read; `Cancelled`.
    pub(super) fn run(&mut self) -> Result<()> {
        let blocks = self.before.blocks().max(self.after.blocks());
        self.subtree(root_level(blocks), 0)
    }

    fn subtree(&mut self, level: u8, index: u64) -> Result<()> {
        let (first, under) = (index.saturating_mul(blocks_under(level)), blocks_under(level));
        if first >= self.before.blocks().max(self.after.blocks()) {
            return Ok(());
        }
        let (before, after) = (self.before.child(level, index)?, self.after.child(level, index)?);
        // A block cut short by the end of a volume is not the same as a whole one, even if the maps say the same.
        let shared = first.saturating_add(under).saturating_mul(imager_image::BLOCK_BYTES as u64);
        let inside = self.before.size() == self.after.size()
            || shared <= self.before.size().min(self.after.size()).get();
        if inside && self.before.unit() == self.after.unit() && is_same(before, after) {
            return Ok(());
        }
        if let (true, Some(Child::Unused | Child::Zero), Some(Child::Unused | Child::Zero)) =
            (inside, before, after)
        {
            self.uniform(first, under, before == Some(Child::Zero), after == Some(Child::Zero));
            return Ok(());
        }
        check_cancelled(self.monitor)?;
        for below in index.saturating_mul(FANOUT)..index.saturating_add(1).saturating_mul(FANOUT) {
            match level {
                0 => self.block(below)?,
                _ => self.subtree(level.saturating_sub(1), below)?,
            }
        }
        Ok(())
    }

    /// A range that is uniform in both: zero counts, unused does not.
    fn uniform(&mut self, first: u64, blocks: u64, before: bool, after: bool) {
        let size = self.before.size().min(self.after.size());
        let end = first.saturating_add(blocks).saturating_mul(imager_image::BLOCK_BYTES as u64);
        let extent = Extent::between(block_extent(first, size).start(), ByteOffset::new(end.min(size.get())));
        match (before, after) {
            (true, false) => self.found.freed.insert(extent),
            (false, true) => self.found.added.insert(extent),
            _ => {}
        }
    }

    fn block(&mut self, index: u64) -> Result<()> {
        let (before, len_before) = side(&mut self.before, index)?;
        let (after, len_after) = side(&mut self.after, index)?;
        if len_before.max(len_after) == 0 || (len_before == len_after && before == after && self.same_unit())
        {
            return Ok(());
        }
        let unit = if self.before.unit().log2() < self.after.unit().log2() {
            self.before.unit()
        } else {
            self.after.unit()
        };
        let refine = |mask: Mask, from: MaskUnit, len: usize| {
            let mut fine = Mask::NONE;
            for run in mask.runs(from, len) {
                fine.set(run.start / unit.bytes(), run.end.div_ceil(unit.bytes()));
            }
            fine
        };
        let refined = |entry: &Entry, from: MaskUnit, len: usize| {
            (refine(entry.mask, from, len), refine(entry.unreadable, from, len))
        };
        let (had, had_lost) = refined(&before, self.before.unit(), len_before);
        let (has, has_lost) = refined(&after, self.after.unit(), len_after);
        let (counted, counts) = (had.union(had_lost), has.union(has_lost));
        let both = Mask(counted.0 & counts.0);
        let unknown = Mask(both.0 & had_lost.union(has_lost).0);
        let changed = if is_same_content(&before, &after) { Mask::NONE } else { both.without(unknown) };
        let start = block_extent(index, ByteLen::new(u64::MAX)).start();
        for (mask, len, set) in [
            (changed, len_before.min(len_after), &mut self.found.changed),
            (counts.without(counted), len_after, &mut self.found.added),
            (counted.without(counts), len_before, &mut self.found.freed),
            (unknown, len_before.min(len_after), &mut self.found.unknown),
        ] {
            for run in mask.runs(unit, len) {
                let at = |n: usize| start.saturating_add(ByteLen::new(n as u64));
                set.insert(Extent::between(at(run.start), at(run.end)));
            }
        }
        Ok(())
    }

    fn same_unit(&self) -> bool {
        self.before.unit() == self.after.unit()
    }
}

/// What a map says of a block, and how long that is; beyond the end of the volume nothing and zero.
fn side(map: &mut MapReader<'_>, index: u64) -> Result<(Entry, usize)> {
    if index >= map.blocks() {
        return Ok((Entry::UNUSED, 0));
    }
    let len = block_extent(index, map.size()).len().to_usize().unwrap_or(0);
    Ok((map.entry(index)?, len))
}

fn is_same(before: Option<Child>, after: Option<Child>) -> bool {
    match (before, after) {
        // Two captures may hold the same node in different packs.
        (Some(Child::Node(a, _)), Some(Child::Node(b, _))) => a == b,
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// Whether what both count is the same, as far as ids tell.
fn is_same_content(before: &Entry, after: &Entry) -> bool {
    match (before.content, after.content) {
        (Content::Data(a, _), Content::Data(b, _)) => a == b,
        (Content::Zero, Content::Zero) => true,
        _ => false,
    }
}
