//! What a worker of a capture does with a unit: read, mask, compare, look up, compress.

use super::blocks::{Purpose, Run, Task, UNIT_BLOCKS, Unit};
use super::dedup::{Dedup, Site};
use crate::map::{Draft, Place};
use crate::monitor::{Monitor, Stage, check_cancelled, timed};
use imager_disk::{AlignedBuf, ReadAt};
use imager_image::frame::FrameKind;
use imager_image::node::{Content, Entry};
use imager_image::pack::Item;
use imager_image::{BLOCK_BYTES, BlockId, Codec, Mask, MaskUnit};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, ExtentSet, Result};
use std::sync::{Mutex, PoisonError};

/// How often an unreadable part is tried again on its own.
const RETRIES: usize = 2;

/// What a worker found out about a unit.
#[derive(Default)]
pub struct Output {
    /// The runs that needed no look.
    pub runs: Vec<Run>,
    /// The blocks looked at.
    pub blocks: Vec<(u64, Found)>,
    /// New frames, sealed, with what is in them.
    pub frames: Vec<(Vec<u8>, Vec<Item>)>,
    /// Bytes read from the source.
    pub read: ByteLen,
    /// Bytes of blocks that the repository does not have.
    pub new: ByteLen,
    /// Bytes of the unit that count.
    pub used: ByteLen,
    /// Parts that could not be read.
    pub unreadable: ExtentSet,
    /// Bytes of blocks that were read only to see whether they are as they should be.
    pub audited: ByteLen,
    /// Blocks that are not.
    pub differing: Vec<Extent>,
}

/// What became of a block.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// All is known.
    Draft(Draft),
    /// New content, in a frame of this output.
    New {
        /// Its id.
        id: BlockId,
        /// Which frame.
        frame: usize,
        /// Where in it.
        at: u32,
        /// Which parts it speaks of.
        mask: Mask,
        /// Which parts could not be read.
        unreadable: Mask,
    },
}

/// A worker's tools.
pub struct Worker<'a, 'r> {
    source: &'a dyn ReadAt,
    unit: MaskUnit,
    codec: Codec<'r>,
    frame_bytes: usize,
    dedup: &'a Mutex<Dedup<'r>>,
    monitor: &'a dyn Monitor,
    buffer: AlignedBuf,
    raw: Vec<u8>,
    items: Vec<Item>,
}

impl<'a, 'r> Worker<'a, 'r> {
    /// A worker that reads `source`.
    pub fn new(
        source: &'a dyn ReadAt,
        unit: MaskUnit,
        codec: Codec<'r>,
        frame_bytes: usize,
        dedup: &'a Mutex<Dedup<'r>>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let buffer = AlignedBuf::zeroed(UNIT_BLOCKS * BLOCK_BYTES);
        let (raw, items) = (Vec::with_capacity(frame_bytes), Vec::new());
        Self { source, unit, codec, frame_bytes, dedup, monitor, buffer, raw, items }
    }

    /// Does the unit.
    ///
    /// # Errors
    /// `Cancelled`; whatever sealing or the share fail with. What cannot be read is in the output.
    pub fn run(&mut self, unit: Unit) -> Result<Output> {
        check_cancelled(self.monitor)?;
        let Unit { runs, tasks } = unit;
        let mut output = Output { runs, ..Output::default() };
        let mut buffer = std::mem::replace(&mut self.buffer, AlignedBuf::zeroed(0));
        let monitor = self.monitor;
        let bad = timed(monitor, Stage::Read, || self.read(&tasks, &mut buffer, &mut output));
        let result = timed(monitor, Stage::Compute, || self.digest(&tasks, &bad?, &mut buffer, &mut output));
        self.buffer = buffer;
        result.map(|()| output)
    }

    /// Reads the parts that count (or counted for the parent), neighbours together; says what could not be read.
    fn read(&mut self, tasks: &[Task], buffer: &mut [u8], output: &mut Output) -> Result<Vec<Mask>> {
        let mut bad = vec![Mask::NONE; tasks.len()];
        let mut from = 0;
        while from < tasks.len() {
            let adjacent = |at: &usize| tasks[*at].index == tasks[from].index + (*at - from) as u64;
            let to = (from..tasks.len()).take_while(adjacent).last().map_or(from + 1, |last| last + 1);
            let wanted: ExtentSet = tasks[from..to].iter().flat_map(|task| self.wanted(task)).collect();
            let span =
                Extent::between(wanted.iter().next().map_or(ByteOffset::ZERO, Extent::start), wanted.end());
            let base = tasks[from].extent.start();
            let place = &mut buffer[from * BLOCK_BYTES..];
            output.read = output.read.saturating_add(span.len());
            match self.source.read_exact_at(span.start(), part(place, base, span)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Io => {
                    for (at, task) in (from..to).zip(&tasks[from..to]) {
                        let block = &mut buffer[at * BLOCK_BYTES..];
                        bad[at] = self.salvage(task, block, &mut output.unreadable);
                    }
                }
                Err(error) => return Err(error),
            }
            from = to;
        }
        Ok(bad)
    }

    /// The bytes of a block that have to be read.
    fn wanted(&self, task: &Task) -> Vec<Extent> {
        let mask = task.mask.union(task.parent.mask);
        let len = task.extent.len().to_usize().unwrap_or(0);
        mask.runs(self.unit, len).map(|run| inside(task.extent, run)).collect()
    }

    /// Reads a block unit by unit, each unreadable one again a few times; says which remain.
    fn salvage(&self, task: &Task, block: &mut [u8], lost: &mut ExtentSet) -> Mask {
        let mut bad = Mask::NONE;
        for extent in self.wanted(task) {
            let mut at = extent.start();
            while at < extent.end() {
                let end = at.saturating_add(ByteLen::new(self.unit.bytes() as u64)).min(extent.end());
                let piece = Extent::between(at, end);
                let place = part(block, task.extent.start(), piece);
                if !(0..=RETRIES).any(|_| self.source.read_exact_at(at, place).is_ok()) {
                    place.fill(0);
                    let from = at.saturating_since(task.extent.start()).get() / self.unit.bytes() as u64;
                    let from = usize::try_from(from).unwrap_or(128);
                    let mut this = Mask::NONE;
                    this.set(from, from + 1);
                    bad = bad.union(this);
                    // What only the parent had is missed by nobody.
                    if this.is_within(task.mask) {
                        lost.insert(piece);
                    }
                }
                at = end;
            }
        }
        bad
    }

    fn digest(&mut self, tasks: &[Task], bad: &[Mask], buffer: &mut [u8], output: &mut Output) -> Result<()> {
        for ((task, bad), block) in tasks.iter().zip(bad).zip(buffer.chunks_mut(BLOCK_BYTES)) {
            let len = task.extent.len().to_usize().unwrap_or(0);
            let block = &mut block[..len];
            output.used = output.used.saturating_add(masked_bytes(task.mask, self.unit, len));
            let found = match task.purpose {
                Purpose::Take => self.block(task, *bad, block, output)?,
                Purpose::Audit => self.audit(task, *bad, block, output),
            };
            output.blocks.push((task.index, found));
        }
        self.close_frame(output)
    }

    fn block(&mut self, task: &Task, bad: Mask, block: &mut [u8], output: &mut Output) -> Result<Found> {
        if let Some(same) = self.same_as_parent(task, bad, block) {
            return Ok(Found::Draft(Draft::Known(same)));
        }
        let (mask, unreadable) = (task.mask.without(bad), Mask(task.mask.0 & bad.0));
        let known = |content| Found::Draft(Draft::Known(Entry { content, mask, unreadable }));
        if mask.is_none() {
            return Ok(known(Content::Unreadable));
        }
        mask.clear_outside(self.unit, block);
        if is_zero(block) {
            return Ok(known(Content::Zero));
        }
        let id = self.codec.keys().block_id(block);
        if let Some(twin) = twin(&output.blocks, id) {
            return Ok(twin.with_masks(mask, unreadable));
        }
        let found = self.dedup.lock().unwrap_or_else(PoisonError::into_inner).find(id);
        match found {
            Some(Site::Stored(location)) => Ok(known(Content::Data(id, location))),
            Some(Site::Ours(place)) => Ok(Found::Draft(Draft::New { id, place, mask, unreadable })),
            None => {
                if self.raw.len() + block.len() > self.frame_bytes {
                    self.close_frame(output)?;
                }
                let at = u32::try_from(self.raw.len()).unwrap_or(u32::MAX);
                let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
                self.raw.extend_from_slice(block);
                output.new = output.new.saturating_add(ByteLen::of(block));
                self.items.push(Item { id: id.0, len });
                Ok(Found::New { id, frame: output.frames.len(), at, mask, unreadable })
            }
        }
    }

    /// The parent's entry in any case. What cannot be read tells nothing.
    fn audit(&self, task: &Task, bad: Mask, block: &mut [u8], output: &mut Output) -> Found {
        output.audited = output.audited.saturating_add(ByteLen::of(block));
        if let Content::Data(id, _) = task.parent.content
            && bad.is_none()
        {
            task.parent.mask.clear_outside(self.unit, block);
            if self.codec.keys().block_id(block) != id {
                output.differing.push(task.extent);
            }
        }
        Found::Draft(Draft::Known(task.parent))
    }

    /// The parent's entry, if it speaks of everything that counts now and its bytes are still the same.
    fn same_as_parent(&self, task: &Task, bad: Mask, block: &mut [u8]) -> Option<Entry> {
        let parent = task.parent;
        let speaks = task.mask.is_within(parent.mask) && parent.unreadable.is_none() && bad.is_none();
        if !speaks || parent.mask.is_none() {
            return None;
        }
        parent.mask.clear_outside(self.unit, block);
        let same = match parent.content {
            Content::Zero => is_zero(block),
            Content::Data(id, location) => {
                if self.codec.keys().block_id(block) != id {
                    return None;
                }
                let mut dedup = self.dedup.lock().unwrap_or_else(PoisonError::into_inner);
                let standing = dedup.standing(id, &location)?;
                return Some(Entry { content: Content::Data(id, standing), ..parent });
            }
            Content::Unused | Content::Unreadable => false,
        };
        same.then_some(parent)
    }

    fn close_frame(&mut self, output: &mut Output) -> Result<()> {
        if !self.raw.is_empty() {
            let frame = self.codec.seal(FrameKind::Blocks, &self.raw)?;
            output.frames.push((frame, std::mem::take(&mut self.items)));
            self.raw.clear();
        }
        Ok(())
    }
}

impl Found {
    /// The same content with other masks.
    fn with_masks(self, mask: Mask, unreadable: Mask) -> Self {
        match self {
            Self::New { id, frame, at, .. } => Self::New { id, frame, at, mask, unreadable },
            Self::Draft(Draft::New { id, place, .. }) => {
                Self::Draft(Draft::New { id, place, mask, unreadable })
            }
            Self::Draft(Draft::Known(entry)) => {
                Self::Draft(Draft::Known(Entry { content: entry.content, mask, unreadable }))
            }
        }
    }

    /// The draft, once the frames of its output have their places.
    pub fn draft(self, places: &[Place]) -> Option<Draft> {
        match self {
            Self::Draft(draft) => Some(draft),
            Self::New { id, frame, at, mask, unreadable, .. } => {
                let place = Place { at, ..*places.get(frame)? };
                Some(Draft::New { id, place, mask, unreadable })
            }
        }
    }
}

/// An earlier block of the unit with the same content.
fn twin(blocks: &[(u64, Found)], id: BlockId) -> Option<Found> {
    let same = |found: &Found| match found {
        Found::New { id: other, .. } | Found::Draft(Draft::New { id: other, .. }) => *other == id,
        Found::Draft(Draft::Known(entry)) => matches!(entry.content, Content::Data(other, _) if other == id),
    };
    blocks.iter().map(|(_, found)| *found).find(same)
}

/// The part of `buffer`, whose first byte is the volume's byte `base`, that holds `extent`.
fn part(buffer: &mut [u8], base: ByteOffset, extent: Extent) -> &mut [u8] {
    let from = extent.start().saturating_since(base).to_usize().unwrap_or(0);
    let len = extent.len().to_usize().unwrap_or(0);
    &mut buffer[from..from + len]
}

fn inside(block: Extent, run: std::ops::Range<usize>) -> Extent {
    let at = |n: usize| block.start().saturating_add(ByteLen::new(n as u64));
    Extent::between(at(run.start), at(run.end))
}

fn masked_bytes(mask: Mask, unit: MaskUnit, len: usize) -> ByteLen {
    mask.runs(unit, len).map(|run| ByteLen::new(run.len() as u64)).sum()
}

/// Whether every byte is zero: 4 KiB at a time, so the first difference ends it and the loop stays vectorised.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}
