//! Putting one volume back: compare with what is there, write what differs, prove it.
//!
//! The volume is recognisable only when it is whole. Before the first write its head (every place at which software
//! would recognise it) is cleared and flushed; then everything else is written and flushed; then read back past the
//! cache and compared by id; only then the head, its beginning last of all. A volume that already holds what it should
//! is not written at all.

use super::fetch::{Fetched, fetch};
use super::work::{Block, Unit, Units};
use crate::capture::worker::is_zero;
use crate::map::{BLOCK, MapReader, block_extent};
use crate::monitor::{Monitor, Stage, check_cancelled, timed};
use crate::pipeline::{Width, ordered};
use crate::repository::{FrameReader, Repository};
use imager_disk::{AlignedBuf, WriteAt};
use imager_image::manifest::Map;
use imager_image::node::{Content, Entry};
use imager_image::{BLOCK_BYTES, Keys, Mask, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, ExtentSet, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether what was written is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Everything written is read past the cache and compared by id.
    Yes,
    /// The device is believed.
    No,
}

/// What is to be written where.
pub struct Job<'a> {
    /// What messages call it.
    pub label: String,
    /// Its block map.
    pub map: &'a Map,
    /// The volume on the target.
    pub target: &'a dyn WriteAt,
    /// Where it is recognisable; whole blocks of it go last.
    pub head: ExtentSet,
    /// Which parts of the map are wanted; everything, but for the boot code of a disk that stays.
    pub only: Option<ExtentSet>,
    /// Whether what was written is read again.
    pub read_back: ReadBack,
}

/// What putting a volume back took, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Bytes read from the target to compare.
    pub compared: ByteLen,
    /// Bytes that were there already.
    pub matched: ByteLen,
    /// Bytes written, the clearing of the head not counted.
    pub written: ByteLen,
    /// Bytes read back.
    pub verified: ByteLen,
    /// Blocks whose content is damaged in the repository: not written, and the head withheld.
    pub damaged: ExtentSet,
    /// Blocks that the capture could not read.
    pub unreadable: ExtentSet,
    /// Whether the head was written (or had nothing to be written to it).
    pub is_complete: bool,
    /// Everything that was written, for accounts.
    pub extents: ExtentSet,
}

struct Shared<'a> {
    job: &'a Job<'a>,
    keys: &'a Keys,
    unit: MaskUnit,
    monitor: &'a dyn Monitor,
    /// Blocks of the head, as extents of whole blocks.
    head: ExtentSet,
    cleared: Mutex<bool>,
    /// How many units in a row did not match anywhere: then comparing is a waste and every 16th block is asked only.
    misses: AtomicUsize,
}

/// What a worker did to a unit.
#[derive(Default)]
struct Done {
    compared: ByteLen,
    matched: ByteLen,
    written: ExtentSet,
    damaged: ExtentSet,
    unreadable: ExtentSet,
    span: ByteLen,
}

/// After so many units without a match, a unit is taken as different when its first block is.
const HOPELESS: usize = 8;

/// Puts a volume back.
///
/// # Errors
/// `Io` when the target fails or does not hold what was written; `Cancelled`; errors of the share. The head is then
/// not written.
pub fn run(repository: &Repository, job: &Job<'_>, monitor: &dyn Monitor) -> Result<Outcome> {
    let size = ByteLen::new(job.map.size_bytes);
    let shared = Shared {
        job,
        keys: repository.keys(),
        unit: job.map.mask_unit()?,
        monitor,
        head: job.head.align_out(BLOCK, ByteOffset::new(size.get())),
        cleared: Mutex::new(false),
        misses: AtomicUsize::new(0),
    };
    let head = shared.head_blocks(repository)?;
    let head_matches = shared.compare_head(&head)?;
    if !head_matches {
        shared.clear_head()?;
    }
    let mut outcome = shared.write_body(repository)?;
    outcome.unreadable.extend(shared.unreadable(&head).iter());
    let changed = !head_matches || !outcome.extents.is_empty();
    outcome.is_complete = outcome.damaged.is_empty();
    if !changed {
        return Ok(outcome);
    }
    job.target.flush()?;
    if job.read_back == ReadBack::Yes {
        outcome.verified = shared.verify(repository, &outcome.extents)?;
    }
    if outcome.is_complete {
        shared.write_head(repository, head, &mut outcome)?;
    }
    Ok(outcome)
}

impl Shared<'_> {
    fn lock_cleared(&self) -> std::sync::MutexGuard<'_, bool> {
        self.cleared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the volume unrecognisable, once, before anything else is written to it: its first block first, so that
    /// power lost meanwhile does not leave a superblock without its copies.
    fn clear_head(&self) -> Result<()> {
        let mut cleared = self.lock_cleared();
        if !*cleared {
            let first = self.head.intersection(&Extent::first(BLOCK).into());
            for part in [&first, &self.head.difference(&first)] {
                part.iter().try_for_each(|extent| self.job.target.zero(extent))?;
                self.job.target.flush()?;
            }
            *cleared = true;
        }
        Ok(())
    }

    fn units<'r>(&'r self, repository: &'r Repository, part: Part) -> Result<Units<'r>> {
        let map = MapReader::new(repository.frames()?, self.job.map)?;
        Ok(Units::new(map, &self.head, part == Part::Head, self.job.only.as_ref()))
    }

    /// The blocks of the head that have content.
    fn head_blocks(&self, repository: &Repository) -> Result<Vec<Block>> {
        let mut blocks = Vec::new();
        for unit in self.units(repository, Part::Head)? {
            if let Unit::Blocks(more) = unit? {
                blocks.extend(more);
            }
        }
        Ok(blocks)
    }

    /// Whether the head on the target is what it should be.
    fn compare_head(&self, head: &[Block]) -> Result<bool> {
        let mut buffer = vec![0; BLOCK_BYTES];
        for block in head {
            let bytes = buffer.get_mut(..block.len()).unwrap_or_default();
            match self.job.target.read_exact_at(block.extent.start(), bytes) {
                Ok(()) if self.matches(&block.entry, bytes) => {}
                Ok(()) => return Ok(false),
                // What cannot be read cannot match; writing it may mend it, and is read back.
                Err(error) if error.kind() == ErrorKind::Io => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The parts of blocks that the capture could not read.
    fn unreadable(&self, blocks: &[Block]) -> ExtentSet {
        let parts = |block: &Block| {
            let start = block.extent.start();
            let at = move |n: usize| start.saturating_add(ByteLen::new(n as u64));
            let runs = block.entry.unreadable.runs(self.unit, block.len());
            runs.map(move |run| Extent::between(at(run.start), at(run.end)))
        };
        blocks.iter().flat_map(parts).collect()
    }

    /// Whether the masked bytes of a block are what the map says. Clears the others.
    fn matches(&self, entry: &Entry, bytes: &mut [u8]) -> bool {
        entry.mask.clear_outside(self.unit, bytes);
        match entry.content {
            Content::Unused | Content::Unreadable => true,
            Content::Zero => is_zero(bytes),
            Content::Data(id, _) => self.keys.block_id(bytes) == id,
        }
    }

    fn write_body(&self, repository: &Repository) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let make = || {
            let mut worker = Worker::new(self, repository.frames()?);
            Ok(move |unit| worker.run(unit))
        };
        let units = self.units(repository, Part::Body)?;
        ordered("restore", Width::for_this_machine(), units, make, |done: Done| {
            outcome.compared = outcome.compared.saturating_add(done.compared);
            outcome.matched = outcome.matched.saturating_add(done.matched);
            outcome.written = outcome.written.saturating_add(done.written.total());
            outcome.extents.extend(done.written.iter());
            outcome.damaged.extend(done.damaged.iter());
            outcome.unreadable.extend(done.unreadable.iter());
            self.monitor.advance(done.span);
            Ok(())
        })?;
        Ok(outcome)
    }

    /// Reads what was written and compares it by id.
    fn verify(&self, repository: &Repository, written: &ExtentSet) -> Result<ByteLen> {
        let mut verified = ByteLen::ZERO;
        let map = MapReader::new(repository.frames()?, self.job.map)?;
        let units = Units::new(map, &self.head, false, Some(written));
        let make = || {
            let mut buffer = AlignedBuf::zeroed(super::work::UNIT_BYTES);
            Ok(move |unit| self.verify_unit(unit, &mut buffer))
        };
        ordered("read-back", Width::for_this_machine(), units, make, |read: ByteLen| {
            verified = verified.saturating_add(read);
            Ok(())
        })?;
        Ok(verified)
    }

    fn verify_unit(&self, unit: Unit, buffer: &mut [u8]) -> Result<ByteLen> {
        check_cancelled(self.monitor)?;
        let target = self.job.target;
        let mut read = ByteLen::ZERO;
        match unit {
            Unit::Zero(extent) => {
                let written = self.job.target.data(extent)?;
                for piece in pieces(&written, buffer.len()) {
                    let bytes = buffer.get_mut(..piece.len().to_usize().unwrap_or(0)).unwrap_or_default();
                    timed(self.monitor, Stage::Write, || target.read_exact_at(piece.start(), bytes))?;
                    read = read.saturating_add(piece.len());
                    if !is_zero(bytes) {
                        return Err(self.not_held(piece));
                    }
                }
            }
            Unit::Blocks(blocks) => {
                for run in runs(&blocks) {
                    let extent = span(run);
                    let bytes = buffer.get_mut(..extent.len().to_usize().unwrap_or(0)).unwrap_or_default();
                    timed(self.monitor, Stage::Write, || target.read_exact_at(extent.start(), bytes))?;
                    read = read.saturating_add(extent.len());
                    for (block, bytes) in run.iter().zip(bytes.chunks_mut(BLOCK_BYTES)) {
                        if !timed(self.monitor, Stage::Compute, || self.matches(&block.entry, bytes)) {
                            return Err(self.not_held(block.extent));
                        }
                    }
                }
            }
        }
        Ok(read)
    }

    fn not_held(&self, extent: Extent) -> Error {
        let what = format!("{} at {extent}: the disk does not hold what was written to it", self.job.label);
        Error::new(ErrorKind::Io, what)
    }

    /// Writes the head in steps, each durable and proven before the next: first what nobody looks at, then the copies of
    /// superblocks, then the beginning. So whatever is cut short is not recognised, and no copy is there before what it
    /// speaks of.
    fn write_head(&self, repository: &Repository, mut head: Vec<Block>, outcome: &mut Outcome) -> Result<()> {
        let mut worker = Worker::new(self, repository.frames()?);
        let mut written = ExtentSet::new();
        head.retain(is_wanted);
        head.sort_by_key(|block| (Step::of(block), block.extent.start()));
        for step in head.chunk_by(|a, b| Step::of(a) == Step::of(b)) {
            for unit in step.chunks(super::work::UNIT_BLOCKS) {
                let mut done = Done::default();
                worker.write(unit, &mut done)?;
                outcome.damaged.extend(done.damaged.iter());
                written.extend(done.written.iter());
            }
            self.job.target.flush()?;
            if !outcome.damaged.is_empty() {
                // Found only now: what was written of the head must not stay.
                *self.lock_cleared() = false;
                self.clear_head()?;
                outcome.is_complete = false;
                return Ok(());
            }
            self.verify_head(step, outcome)?;
        }
        outcome.written = outcome.written.saturating_add(written.total());
        outcome.extents.extend(written.iter());
        outcome.extents.extend(self.head.iter());
        Ok(())
    }

    fn verify_head(&self, step: &[Block], outcome: &mut Outcome) -> Result<()> {
        if self.job.read_back == ReadBack::No {
            return Ok(());
        }
        let mut buffer = vec![0; super::work::UNIT_BYTES];
        for unit in step.chunks(super::work::UNIT_BLOCKS) {
            let read = self.verify_unit(Unit::Blocks(unit.to_vec()), &mut buffer)?;
            outcome.verified = outcome.verified.saturating_add(read);
        }
        Ok(())
    }
}

/// The order in which a head is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The rest of the first mebibyte.
    Rest,
    /// Copies of superblocks elsewhere.
    Copies,
    /// The second block, where a few filesystems have theirs.
    Second,
    /// The first block.
    First,
}

impl Step {
    fn of(block: &Block) -> Self {
        match block.extent.start().get() / BLOCK.get() {
            0 => Self::First,
            1 => Self::Second,
            2..16 => Self::Rest,
            _ => Self::Copies,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Body,
}

struct Worker<'a, 'r> {
    shared: &'a Shared<'a>,
    frames: FrameReader<'r>,
    buffer: AlignedBuf,
}

impl<'a, 'r> Worker<'a, 'r> {
    fn new(shared: &'a Shared<'a>, frames: FrameReader<'r>) -> Self {
        Self { shared, frames, buffer: AlignedBuf::zeroed(super::work::UNIT_BYTES) }
    }

    fn run(&mut self, unit: Unit) -> Result<Done> {
        check_cancelled(self.shared.monitor)?;
        let mut done = Done::default();
        match unit {
            Unit::Zero(extent) => self.zero(extent, &mut done)?,
            Unit::Blocks(blocks) => {
                done.span = blocks.iter().map(|block| block.extent.len()).sum();
                done.unreadable = self.shared.unreadable(&blocks);
                let different = self.compare(blocks, &mut done)?;
                if !different.is_empty() {
                    self.shared.clear_head()?;
                    self.write(&different, &mut done)?;
                }
            }
        }
        Ok(done)
    }

    /// Makes a large part zero where it is not.
    fn zero(&mut self, extent: Extent, done: &mut Done) -> Result<()> {
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
                shared.clear_head()?;
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
    fn write(&mut self, blocks: &[Block], done: &mut Done) -> Result<()> {
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
fn is_wanted(block: &Block) -> bool {
    matches!(block.entry.content, Content::Zero | Content::Data(..)) && block.entry.mask != Mask::NONE
}

/// Neighbouring blocks together, at most a unit's worth.
fn runs(blocks: &[Block]) -> impl Iterator<Item = &[Block]> {
    blocks
        .chunk_by(|a, b| a.extent.end() == b.extent.start())
        .flat_map(|run| run.chunks(super::work::UNIT_BLOCKS))
}

fn span(run: &[Block]) -> Extent {
    match (run.first(), run.last()) {
        (Some(first), Some(last)) => Extent::between(first.extent.start(), last.extent.end()),
        _ => Extent::default(),
    }
}

/// A set in pieces of at most `most` bytes.
fn pieces(set: &ExtentSet, most: usize) -> impl Iterator<Item = Extent> + '_ {
    set.iter().flat_map(move |extent| {
        let count = extent.len().get().div_ceil(most as u64);
        (0..count).map(move |n| {
            let from = extent.start().saturating_add(ByteLen::new(n * most as u64));
            let end = from.saturating_add(ByteLen::new(most as u64)).min(extent.end());
            Extent::between(from, end)
        })
    })
}

/// Where block `index` of a volume of `size` lies; for reports.
pub fn extent_of(index: u64, size: ByteLen) -> Extent {
    block_extent(index, size)
}
