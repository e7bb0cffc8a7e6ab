//! Putting one volume back: compare with what is there, write what differs, prove it.
//!
//! The volume is recognisable only when it is whole. Before the first write its head (every place at which software
//! would recognise it) is cleared and flushed; then everything else is written and flushed; then read back past the
//! cache and compared by id; only then the head, its beginning last of all. A volume that already holds what it should
//! is not written at all.

mod worker;

use super::work::{Block, Unit, Units};
use crate::capture::worker::is_zero;
use crate::map::{BLOCK, MapReader};
use crate::monitor::{Monitor, Stage, check_cancelled, timed};
use crate::pipeline::{Width, ordered};
use crate::repository::Repository;
use imager_disk::{AlignedBuf, WriteAt};
use imager_image::manifest::Map;
use imager_image::node::{Content, Entry};
use imager_image::{BLOCK_BYTES, Keys, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};
use worker::{Worker, is_wanted, pieces, runs, span};

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
    if head_matches {
        let compared = head.iter().map(|block| block.extent.len()).sum();
        outcome.compared = outcome.compared.saturating_add(compared);
        outcome.matched = outcome.matched.saturating_add(if changed { ByteLen::ZERO } else { compared });
    }
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
        ordered("restore", Width::for_a_disk(), units, make, |done: Done| {
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
        ordered("read-back", Width::for_a_disk(), units, make, |read: ByteLen| {
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
