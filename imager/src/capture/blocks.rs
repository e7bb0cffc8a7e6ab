//! What a capture has to do for one volume, block by block, in order.
//!
//! Unused parts, holes of sparse sources and what is kept of the parent's map are passed over in one step however long
//! they are; the rest comes in units of up to a mebibyte, each block with its mask and with what the parent capture
//! knows of it.
//!
//! What is kept unread must still be there to be referred to: a pack may be on its way out although a map names it. So
//! the packs of kept blocks are asked for, one by one, unless it was proven that none of the parent's can be leaving.

mod audit;
mod look;

pub use audit::Audit;
pub use look::{Look, Marked, Rest, Standing};

use crate::map::{BLOCK, MapReader, Piece, block_count, block_extent};
use imager_image::node::{Child, Content, Entry, blocks_under, root_level};
use imager_image::{Mask, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result};
use std::sync::PoisonError;

/// How many blocks to read a unit has at most.
pub const UNIT_BLOCKS: usize = 16;
/// How many runs a unit has at most.
const UNIT_RUNS: usize = 64;
/// How many blocks a unit takes over one by one, about.
const UNIT_KEPT: usize = 1024;

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
    /// What for.
    pub purpose: Purpose,
}

/// Why a block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To take what is in it.
    Take,
    /// To see whether it is as the parent has it, which is kept in any case.
    Audit,
}

/// What needs no look.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// So many blocks, from the first, that are all unused, or all zero.
    Uniform(u64, u64, Child),
    /// A node of the parent's map, by level and index.
    Node(u8, u64, Child),
    /// A block as the parent has it.
    Block(u64, Entry),
}

/// A piece of work: blocks to read, and the runs that lie between them. Blocks from both sides of a gap go into one
/// unit, so that a fragmented volume still fills its frames.
#[derive(Debug, Default)]
pub struct Unit {
    /// What needs no look.
    pub runs: Vec<Run>,
    /// Blocks to read.
    pub tasks: Vec<Task>,
}

/// What is to be captured of one volume, and what is known of it.
pub struct Scope<'a> {
    /// Its size.
    pub size: ByteLen,
    /// The grain of its masks.
    pub unit: MaskUnit,
    /// What counts.
    pub used: &'a ExtentSet,
    /// What of it may be anything but zeros.
    pub data: ExtentSet,
    /// What has to be read.
    pub look: &'a Look,
}

/// The units of one volume.
pub struct Blocks<'a, 'r> {
    scope: Scope<'a>,
    count: u64,
    parent: Option<MapReader<'r>>,
    standing: Standing<'a, 'r>,
    next: u64,
}

impl<'a, 'r> Blocks<'a, 'r> {
    /// The units of a volume.
    pub fn new(scope: Scope<'a>, parent: Option<MapReader<'r>>, standing: Standing<'a, 'r>) -> Self {
        let parent = parent.filter(|p| p.size() == scope.size && p.unit() == scope.unit);
        Self { count: block_count(scope.size), scope, parent, standing, next: 0 }
    }

    /// The number of the block that holds byte `at`.
    fn block_of(at: ByteOffset) -> u64 {
        at.get() / BLOCK.get()
    }

    /// The next block and all behind it.
    fn rest(&self) -> Extent {
        let here = block_extent(self.next, self.scope.size);
        Extent::between(here.start(), ByteOffset::new(self.scope.size.get()))
    }

    /// The run that starts at the next block, if one does.
    fn run(&self) -> Option<(u64, Child)> {
        let rest = self.rest();
        let Some(used) = self.scope.used.overlapping(rest).next() else {
            return Some((self.count - self.next, Child::Unused));
        };
        let first_used = Self::block_of(used.start());
        if first_used > self.next {
            return Some((first_used - self.next, Child::Unused));
        }
        let next_data = self.scope.data.overlapping(rest).next().map_or(rest.end(), Extent::start);
        let zero = Extent::between(used.start(), used.end().min(next_data));
        let whole = if zero.end() == rest.end() { self.count } else { Self::block_of(zero.end()) };
        (zero.start() <= rest.start() && whole > self.next).then(|| (whole - self.next, Child::Zero))
    }

    fn mask(&self, block: Extent) -> Mask {
        let mut mask = Mask::NONE;
        let unit = self.scope.unit.bytes() as u64;
        for part in self.scope.used.overlapping(block) {
            let from = part.start().saturating_since(block.start()).get() / unit;
            let to = part.end().saturating_since(block.start()).get().div_ceil(unit);
            mask.set(usize::try_from(from).unwrap_or(128), usize::try_from(to).unwrap_or(128));
        }
        mask
    }

    fn task(&self, parent: Entry) -> Task {
        let extent = block_extent(self.next, self.scope.size);
        Task { index: self.next, extent, mask: self.mask(extent), parent, purpose: Purpose::Take }
    }

    /// What the parent knows of the next block. A parent whose map is damaged is compared with no longer: that costs
    /// space, and a capture that fails because an old one is damaged would be worse. Where its word is taken for what
    /// is not read, it has to be readable.
    fn parent_entry(&mut self) -> Result<Entry> {
        let Some(parent) = &mut self.parent else { return Ok(Entry::UNUSED) };
        match parent.entry(self.next) {
            Err(error)
                if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
                    && matches!(self.scope.look, Look::All) =>
            {
                tracing::warn!("the last capture is damaged and no longer compared with: {error}");
                self.parent = None;
                Ok(Entry::UNUSED)
            }
            entry => entry,
        }
    }

    /// Deals with the next block, or with all up to where something else begins.
    fn step(&mut self, unit: &mut Unit) -> Result<()> {
        match self.scope.look {
            Look::Marked(marked) if marked.rest == Rest::Keep && self.parent.is_some() => {
                self.step_keeping(marked, unit)
            }
            look => self.step_by_use(look, unit),
        }
    }

    /// What counts now decides; of that, what is marked or not in the parent is read.
    fn step_by_use(&mut self, look: &Look, unit: &mut Unit) -> Result<()> {
        if let Some((len, child)) = self.run() {
            unit.runs.push(Run::Uniform(self.next, len, child));
            self.next += len;
            return Ok(());
        }
        let parent = self.parent_entry()?;
        let task = self.task(parent);
        let kept = match look {
            Look::Marked(marked) if marked.covers(&task) => {
                self.standing.of(parent).map(|entry| (entry, marked))
            }
            _ => None,
        };
        match kept {
            Some((entry, marked)) => self.keep(entry, marked, unit),
            None => unit.tasks.push(task),
        }
        self.next += 1;
        Ok(())
    }

    /// Marks decide: all else is as the parent has it.
    fn step_keeping(&mut self, marked: &Marked, unit: &mut Unit) -> Result<()> {
        let end = marked.next(self.next, self.rest()).min(self.count);
        if end > self.next {
            return self.keep_up_to(end, unit);
        }
        let parent = self.parent_entry()?;
        let task = self.task(parent);
        match (marked.extents.overlaps(task.extent), self.standing.of(parent)) {
            (false, Some(entry)) => self.keep(entry, marked, unit),
            _ if task.mask.is_none() => unit.runs.push(Run::Block(self.next, Entry::UNUSED)),
            _ => unit.tasks.push(task),
        }
        self.next += 1;
        Ok(())
    }

    /// Takes the next block over, with a look at it where it is its turn.
    fn keep(&self, entry: Entry, marked: &Marked, unit: &mut Unit) {
        let task = self.task(entry);
        let is_data = matches!(entry.content, Content::Data(..)) && entry.unreadable.is_none();
        match &marked.audit {
            Some(audit) if is_data && audit.has(task.index, task.extent) => {
                // What cannot be read here is missed by nobody.
                unit.tasks.push(Task { mask: Mask::NONE, purpose: Purpose::Audit, ..task });
            }
            _ => unit.runs.push(Run::Block(task.index, entry)),
        }
    }

    /// Takes over the largest part of the parent's map that starts at the next block and ends at or before `end`.
    fn keep_up_to(&mut self, end: u64, unit: &mut Unit) -> Result<()> {
        let Some(parent) = &mut self.parent else { return Ok(()) };
        let fits = |level: &u8| {
            let under = blocks_under(*level);
            self.next.is_multiple_of(under) && (self.next + under <= end || end == self.count)
        };
        let level = (0..=root_level(self.count)).take_while(fits).last();
        if let (Standing::Proven, Some(level)) = (&self.standing, level) {
            let (under, index) = (blocks_under(level), self.next / blocks_under(level));
            let child = parent.child(level, index)?;
            unit.runs.push(
                match child.ok_or_else(|| Error::corrupt("a block map without a part of it"))? {
                    child @ Child::Node(..) => Run::Node(level, index, child),
                    uniform => Run::Uniform(self.next, under.min(self.count - self.next), uniform),
                },
            );
            self.next += under.min(self.count - self.next);
            return Ok(());
        }
        match parent.at(self.next)? {
            (Piece::Run(child, count), within) => {
                let count = count.saturating_sub(within as u64).min(end - self.next);
                unit.runs.push(Run::Uniform(self.next, count, child));
                self.next += count;
            }
            (Piece::Leaf(entries), within) => {
                for entry in entries.iter().skip(within) {
                    let task = self.task(*entry);
                    match self.standing.of(*entry) {
                        Some(entry) => unit.runs.push(Run::Block(self.next, entry)),
                        None if task.mask.is_none() => unit.runs.push(Run::Block(self.next, Entry::UNUSED)),
                        None => unit.tasks.push(task),
                    }
                    self.next += 1;
                    if self.next == end || unit.tasks.len() >= UNIT_BLOCKS {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Unit {
    fn has_room(&self, look: &Look) -> bool {
        let runs = if matches!(look, Look::All) { UNIT_RUNS } else { UNIT_KEPT };
        self.tasks.len() < UNIT_BLOCKS && self.runs.len() < runs
    }
}

impl Iterator for Blocks<'_, '_> {
    type Item = Result<Unit>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut unit = Unit::default();
        while self.next < self.count && unit.has_room(self.scope.look) {
            if let Err(error) = self.step(&mut unit) {
                self.next = self.count;
                return Some(Err(error));
            }
        }
        let is_empty = unit.runs.is_empty() && unit.tasks.is_empty();
        (!is_empty).then_some(Ok(unit))
    }
}

impl Standing<'_, '_> {
    /// The entry, if what it refers to may be relied on, with the place at which it is now.
    fn of(&self, entry: Entry) -> Option<Entry> {
        match (self, entry.content) {
            (Self::Asked(dedup), Content::Data(id, location)) => {
                let standing =
                    dedup.lock().unwrap_or_else(PoisonError::into_inner).standing(id, &location)?;
                Some(Entry { content: Content::Data(id, standing), ..entry })
            }
            _ => Some(entry),
        }
    }
}
