//! What a worker of a restore does with a unit: compare it with the target, fetch and write what differs.

use super::{Done, HOPELESS, Heads, Shared};
use crate::capture::worker::is_zero;
use crate::monitor::{Stage, check_cancelled, timed};
use crate::repository::FrameReader;
use crate::restore::fetch::{Fetched, fetch};
use crate::restore::work::{Block, UNIT_BLOCKS, UNIT_BYTES, Unit};
use imager_disk::AlignedBuf;
use imager_image::node::Content;
use imager_image::{BLOCK_BYTES, Mask};
use imager_units::{ByteLen, Context, ErrorKind, Extent, ExtentSet, Result};
use std::sync::atomic::Ordering;

pub(super) struct Worker<'a, 'r> {
    shared: &'a Shared<'a>,
    frames: FrameReader<'r>,
    buffer: AlignedBuf,
}

impl<'a, 'r> Worker<'a, 'r> {
    pub(super) fn new(shared: &'a Shared<'a>, frames: FrameReader<'r>) -> Self {
        Self { shared, frames, buffer: AlignedBuf::zeroed(UNIT_BYTES) }
    }

    pub(super) fn run(&mut self, unit: Unit, heads: &Heads<'_>) -> Result<Done> {
        check_cancelled(self.shared.monitor)?;
        let mut done = Done::default();
        match unit {
            Unit::Zero(extent) => self.zero(extent, heads, &mut done)?,
            Unit::Blocks(blocks) => {
                done.span = blocks.iter().map(|block| block.extent.len()).sum();
                done.unreadable = self.shared.unreadable(&blocks);
                let different = self.compare(blocks, &mut done)?;
                if !different.is_empty() {
                    heads.clear()?;
                    self.write(&different, &mut done)?;
                }
            }
        }
        Ok(done)
    }

    /// Makes a large part zero where it is not.
    fn zero(&mut self, extent: Extent, heads: &Heads<'_>, done: &mut Done) -> Result<()> {
        let (shared, target) = (self.shared, self.shared.job.target);
        done.span = extent.len();
        for piece in pieces(&target.data(extent)?, self.buffer.len()) {
            check_cancelled(shared.monitor)?;
            let len = piece.len().to_usize().unwrap_or(0);
            let bytes = self.buffer.get_mut(..len).unwrap_or_default();
            let is_there =
                match timed(shared.monitor, Stage::Read, || target.read_exact_at(piece.start(), bytes)) {
                    Ok(()) => {
                        done.compared = done.compared.saturating_add(piece.len());
                        is_zero(bytes)
                    }
                    Err(error) if error.kind() == ErrorKind::Io => false,
                    Err(error) => return Err(error),
                };
            if !is_there {
                heads.clear()?;
                timed(shared.monitor, Stage::Write, || target.zero(piece))?;
                done.written.insert(piece);
            }
        }
        done.matched = extent.len().saturating_sub(done.written.total());
        Ok(())
    }

    /// The blocks of the unit that the target does not hold yet.
    fn compare(&mut self, blocks: Vec<Block>, done: &mut Done) -> Result<Vec<Block>> {
        let shared = self.shared;
        let hopeless = shared.misses.load(Ordering::Relaxed) >= HOPELESS;
        if let (true, Some(first)) = (hopeless, blocks.first())
            && !self.compare_run(std::slice::from_ref(first), done)?.is_empty()
        {
            return Ok(blocks.into_iter().filter(is_wanted).collect());
        }
        let before = done.matched;
        let mut different = Vec::new();
        for run in runs(&blocks) {
            different.extend(self.compare_run(run, done)?);
        }
        let missed = done.matched == before;
        if missed {
            shared.misses.fetch_add(1, Ordering::Relaxed);
        } else {
            shared.misses.store(0, Ordering::Relaxed);
        }
        Ok(different)
    }

    fn compare_run(&mut self, run: &[Block], done: &mut Done) -> Result<Vec<Block>> {
        let shared = self.shared;
        let extent = span(run);
        let len = extent.len().to_usize().unwrap_or(0);
        let bytes = self.buffer.get_mut(..len).unwrap_or_default();
        let read =
            timed(shared.monitor, Stage::Read, || shared.job.target.read_exact_at(extent.start(), bytes));
        match read {
            Ok(()) => {}
            // What cannot be read cannot match; writing it may mend it, and is read back.
            Err(error) if error.kind() == ErrorKind::Io => {
                return Ok(run.iter().copied().filter(is_wanted).collect());
            }
            Err(error) => return Err(error),
        }
        done.compared = done.compared.saturating_add(extent.len());
        let mut different = Vec::new();
        for (block, bytes) in run.iter().zip(bytes.chunks_mut(BLOCK_BYTES)) {
            if !is_wanted(block)
                || timed(shared.monitor, Stage::Compute, || shared.matches(&block.entry, bytes))
            {
                done.matched = done.matched.saturating_add(block.extent.len());
            } else {
                different.push(*block);
            }
        }
        Ok(different)
    }

    /// Fetches the content of blocks and writes it, neighbours together.
    pub(super) fn write(&mut self, blocks: &[Block], done: &mut Done) -> Result<()> {
        let shared = self.shared;
        let fetched = timed(shared.monitor, Stage::Compute, || fetch(&mut self.frames, blocks))?;
        for run in runs(blocks) {
            let base = span(run).start();
            let mut whole = ExtentSet::new();
            for block in run {
                let from = block.extent.start().saturating_since(base).to_usize().unwrap_or(0);
                let bytes = self.buffer.get_mut(from..from + block.len()).unwrap_or_default();
                if shared.fill(&fetched, block, bytes) {
                    whole.insert(block.extent);
                } else {
                    done.damaged.insert(block.extent);
                }
            }
            for extent in whole.iter() {
                let extent = shared.wanted(extent);
                for part in extent.iter() {
                    let from = part.start().saturating_since(base).to_usize().unwrap_or(0);
                    let len = part.len().to_usize().unwrap_or(0);
                    let bytes = self.buffer.get(from..from + len).unwrap_or_default();
                    timed(shared.monitor, Stage::Write, || {
                        shared.job.target.write_all_at(part.start(), bytes)
                    })
                    .context(|| format!("writing {} at {part}", shared.job.label))?;
                    done.written.insert(part);
                }
            }
        }
        Ok(())
    }
}

impl Shared<'_> {
    /// The part of `extent` that is to be written at all.
    fn wanted(&self, extent: Extent) -> ExtentSet {
        match &self.job.only {
            Some(only) => only.overlapping(extent).collect(),
            None => ExtentSet::from(extent),
        }
    }

    /// Puts a block's content into `bytes`; false when the repository does not hold it sound.
    fn fill(&self, fetched: &Fetched, block: &Block, bytes: &mut [u8]) -> bool {
        match block.entry.content {
            Content::Zero => {
                bytes.fill(0);
                true
            }
            Content::Data(id, location) => {
                let content = fetched.block(&location, bytes.len());
                content.is_some_and(|content| {
                    bytes.copy_from_slice(content);
                    self.keys.block_id(bytes) == id
                })
            }
            Content::Unused | Content::Unreadable => false,
        }
    }
}

/// Whether there is anything to write for a block.
pub(super) fn is_wanted(block: &Block) -> bool {
    matches!(block.entry.content, Content::Zero | Content::Data(..)) && block.entry.mask != Mask::NONE
}

/// Neighbouring blocks together, at most a unit's worth.
pub(super) fn runs(blocks: &[Block]) -> impl Iterator<Item = &[Block]> {
    blocks.chunk_by(|a, b| a.extent.end() == b.extent.start()).flat_map(|run| run.chunks(UNIT_BLOCKS))
}

pub(super) fn span(run: &[Block]) -> Extent {
    match (run.first(), run.last()) {
        (Some(first), Some(last)) => Extent::between(first.extent.start(), last.extent.end()),
        _ => Extent::default(),
    }
}

/// A set in pieces of at most `most` bytes.
pub(super) fn pieces(set: &ExtentSet, most: usize) -> impl Iterator<Item = Extent> + '_ {
    set.iter().flat_map(move |extent| {
        let count = extent.len().get().div_ceil(most as u64);
        (0..count).map(move |n| {
            let from = extent.start().saturating_add(ByteLen::new(n * most as u64));
            let end = from.saturating_add(ByteLen::new(most as u64)).min(extent.end());
            Extent::between(from, end)
        })
    })
}
