//! Putting one volume back: compare with what is there, write what differs, prove it.
//!
//! The volume is recognisable only when it is whole. Before the first write its head (every place at which software
//! would recognise it) is cleared and flushed, and with it those of all that are restored together (`Heads`); then
//! everything else is written and flushed; then read back past the cache and compared by id; only then the head, its
//! beginning last of all. What already is what it should be is not written at all.

mod head;
mod heads;
mod worker;

use super::work::{Block, Unit, Units};
use crate::capture::worker::is_zero;
use crate::map::{BLOCK, MapReader};
use crate::monitor::{Monitor, Stage, check_cancelled, timed};
use crate::pipeline::{Width, ordered};
use crate::repository::Repository;
use crate::restore::volumes::Bodies;
use imager_disk::{AlignedBuf, WriteAt};
use imager_image::manifest::Map;
use imager_image::node::{Content, Entry};
use imager_image::{BLOCK_BYTES, Keys, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result};
use std::sync::atomic::AtomicUsize;
use worker::{Worker, pieces, runs, span};

pub(super) use head::HeadWriter;
pub(super) use heads::Heads;

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
}

/// A volume of which everything but the head is on the target.
pub(super) struct Body {
    /// What it took so far.
    pub(super) outcome: Outcome,
    /// How much of the head has content.
    pub(super) head: ByteLen,
}

pub(super) struct Shared<'a> {
    job: &'a Job<'a>,
    keys: &'a Keys,
    unit: MaskUnit,
    monitor: &'a dyn Monitor,
    /// Blocks of the head, as extents of whole blocks.
    head: ExtentSet,
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

/// Puts a volume back by itself.
///
/// # Errors
/// `Io` when the target fails or does not hold what was written; `Cancelled`; errors of the share. The head is then
/// not written.
pub fn run(repository: &Repository, job: &Job<'_>, monitor: &dyn Monitor) -> Result<Outcome> {
    let jobs = std::slice::from_ref(job);
    let outcomes = Bodies::write(repository, jobs, monitor)?.write_heads(repository, jobs, monitor)?;
    Ok(outcomes.into_iter().next().unwrap_or_default())
}

/// Puts everything but the head back; the `heads` are cleared before anything is written.
///
/// # Errors
/// As [`run`].
pub(super) fn write_body(
    repository: &Repository,
    job: &Job<'_>,
    heads: &Heads<'_>,
    monitor: &dyn Monitor,
) -> Result<Body> {
    let shared = Shared::new(repository, job, monitor)?;
    let head = shared.head_blocks(repository)?;
    let head_len = head.iter().map(|block| block.extent.len()).sum();
    let mut compared = ByteLen::ZERO;
    if !heads.are_cleared() {
        match shared.compare_head(&head)? {
            true => compared = head_len,
            false => heads.clear()?,
        }
    }
    let (mut outcome, written) = shared.write_units(repository, heads)?;
    outcome.compared = outcome.compared.saturating_add(compared);
    outcome.unreadable.extend(shared.unreadable(&head).iter());
    outcome.is_complete = outcome.damaged.is_empty();
    if !written.is_empty() {
        job.target.flush()?;
        if job.read_back == ReadBack::Yes {
            outcome.verified = shared.verify(repository, &written)?;
        }
    }
    Ok(Body { outcome, head: head_len })
}

impl Job<'_> {
    /// The whole blocks in which the volume is recognisable.
    fn head_blocks(&self) -> ExtentSet {
        self.head.align_out(BLOCK, ByteOffset::new(self.map.size_bytes))
    }
}

impl<'a> Shared<'a> {
    fn new(repository: &'a Repository, job: &'a Job<'a>, monitor: &'a dyn Monitor) -> Result<Self> {
        Ok(Self {
            job,
            keys: repository.keys(),
            unit: job.map.mask_unit()?,
            monitor,
            head: job.head_blocks(),
            misses: AtomicUsize::new(0),
        })
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

    /// Writes everything but the head; says also where.
    fn write_units(&self, repository: &Repository, heads: &Heads<'_>) -> Result<(Outcome, ExtentSet)> {
        let (mut outcome, mut written) = (Outcome::default(), ExtentSet::new());
        let make = || {
            let mut worker = Worker::new(self, repository.frames()?);
            Ok(move |unit| worker.run(unit, heads))
        };
        let units = self.units(repository, Part::Body)?;
        ordered("restore", Width::for_a_disk(), units, make, |done: Done| {
            outcome.compared = outcome.compared.saturating_add(done.compared);
            outcome.matched = outcome.matched.saturating_add(done.matched);
            outcome.written = outcome.written.saturating_add(done.written.total());
            written.extend(done.written.iter());
            outcome.damaged.extend(done.damaged.iter());
            outcome.unreadable.extend(done.unreadable.iter());
            self.monitor.advance(done.span);
            Ok(())
        })?;
        Ok((outcome, written))
    }

    /// Reads what was written and compares it by id.
    fn verify(&self, repository: &Repository, written: &ExtentSet) -> Result<ByteLen> {
        let mut verified = ByteLen::ZERO;
        let map = MapReader::new(repository.frames()?, self.job.map)?;
        let units = Units::new(map, &self.head, false, Some(written));
        let make = || {
            let mut buffer = AlignedBuf::zeroed(super::work::UNIT_BYTES);
            Ok(move |unit| {
                check_cancelled(self.monitor)?;
                self.verify_unit(unit, &mut buffer)
            })
        };
        ordered("read-back", Width::for_a_disk(), units, make, |read: ByteLen| {
            verified = verified.saturating_add(read);
            Ok(())
        })?;
        Ok(verified)
    }

    fn verify_unit(&self, unit: Unit, buffer: &mut [u8]) -> Result<ByteLen> {
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
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Body,
}
