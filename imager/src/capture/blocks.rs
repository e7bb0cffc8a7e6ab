//! What a capture has to do for one volume, block by block, in order.
//!
//! Unused parts and holes of sparse sources are passed over in one step however long they are; the rest comes in
//! units of up to a mebibyte, each block with its mask and with what the parent capture knows of it.

use crate::map::{BLOCK, MapReader, block_count, block_extent};
use imager_image::node::{Child, Entry};
use imager_image::{Mask, MaskUnit};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, ExtentSet, Result};

/// How many blocks to read a unit has at most.
pub const UNIT_BLOCKS: usize = 16;
/// How many runs a unit has at most.
const UNIT_RUNS: usize = 64;

/// A block to look at.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Its number in the volume.
    pub index: u64,
    /// Where it lies in the volume.
    pub extent: Extent,
    /// Which parts of it count.
    pub mask: Mask,
    /// What the parent capture knows of it.
    pub parent: Entry,
}

/// So many blocks, from the first, that need no look.
pub type Run = (u64, u64, Child);

/// A piece of work: blocks to read, and the runs that lie between them. Blocks from both sides of a gap go into one
/// unit, so that a fragmented volume still fills its frames.
#[derive(Debug, Default)]
pub struct Unit {
    /// What needs no look.
    pub runs: Vec<Run>,
    /// Blocks to read.
    pub tasks: Vec<Task>,
}

/// The units of one volume.
pub struct Blocks<'a> {
    size: ByteLen,
    count: u64,
    unit: MaskUnit,
    used: &'a ExtentSet,
    /// Where the source may hold anything but zeros.
    data: ExtentSet,
    parent: Option<MapReader<'a>>,
    next: u64,
}

impl<'a> Blocks<'a> {
    /// The units of a volume of `size` of which `used` counts and only `data` may be anything but zeros.
    pub fn new(
        size: ByteLen,
        unit: MaskUnit,
        used: &'a ExtentSet,
        data: ExtentSet,
        parent: Option<MapReader<'a>>,
    ) -> Self {
        let parent = parent.filter(|p| p.size() == size && p.unit() == unit);
        Self { size, count: block_count(size), unit, used, data, parent, next: 0 }
    }

    /// The number of the block that holds byte `at`.
    fn block_of(at: ByteOffset) -> u64 {
        at.get() / BLOCK.get()
    }

    /// The run that starts at the next block, if one does.
    fn run(&self) -> Option<(u64, Child)> {
        let here = block_extent(self.next, self.size);
        let rest = Extent::between(here.start(), ByteOffset::new(self.size.get()));
        let Some(used) = self.used.overlapping(rest).next() else {
            return Some((self.count - self.next, Child::Unused));
        };
        let first_used = Self::block_of(used.start());
        if first_used > self.next {
            return Some((first_used - self.next, Child::Unused));
        }
        let next_data = self.data.overlapping(rest).next().map_or(rest.end(), Extent::start);
        let zero = Extent::between(used.start(), used.end().min(next_data));
        let whole = if zero.end() == rest.end() { self.count } else { Self::block_of(zero.end()) };
        (zero.start() <= here.start() && whole > self.next).then(|| (whole - self.next, Child::Zero))
    }

    fn mask(&self, block: Extent) -> Mask {
        let mut mask = Mask::NONE;
        let unit = self.unit.bytes() as u64;
        for part in self.used.overlapping(block) {
            let from = part.start().saturating_since(block.start()).get() / unit;
            let to = part.end().saturating_since(block.start()).get().div_ceil(unit);
            mask.set(usize::try_from(from).unwrap_or(128), usize::try_from(to).unwrap_or(128));
        }
        mask
    }

    fn task(&mut self) -> Result<Task> {
        let extent = block_extent(self.next, self.size);
        Ok(Task { index: self.next, extent, mask: self.mask(extent), parent: self.parent_entry()? })
    }

    /// What the parent knows of the next block. A parent whose map is damaged is compared with no longer: that costs
    /// space, and a capture that fails because an old one is damaged would be worse.
    fn parent_entry(&mut self) -> Result<Entry> {
        let Some(parent) = &mut self.parent else { return Ok(Entry::UNUSED) };
        match parent.entry(self.next) {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                tracing::warn!("the last capture is damaged and no longer compared with: {error}");
                self.parent = None;
                Ok(Entry::UNUSED)
            }
            entry => entry,
        }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Unit>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut unit = Unit::default();
        while self.next < self.count && unit.tasks.len() < UNIT_BLOCKS && unit.runs.len() < UNIT_RUNS {
            if let Some((len, child)) = self.run() {
                unit.runs.push((self.next, len, child));
                self.next += len;
                continue;
            }
            match self.task() {
                Ok(task) => unit.tasks.push(task),
                Err(error) => {
                    self.next = self.count;
                    return Some(Err(error));
                }
            }
            self.next += 1;
        }
        let is_empty = unit.runs.is_empty() && unit.tasks.is_empty();
        (!is_empty).then_some(Ok(unit))
    }
}
