//! Writing a head in steps, each durable and proven before the next: first what nobody looks at, then the copies of
//! superblocks, then the beginning. So whatever is cut short is not recognised, and no copy is there before what it
//! speaks of.

use super::heads::FRONT;
use super::worker::{Worker, is_wanted};
use super::{Body, Heads, Job, Outcome, ReadBack, Shared};
use crate::map::BLOCK;
use crate::monitor::Monitor;
use crate::repository::Repository;
use crate::restore::work::{Block, UNIT_BLOCKS, UNIT_BYTES, Unit};
use imager_units::{ByteLen, ExtentSet, Result};

/// A volume that has everything but its head.
pub(in crate::restore) struct HeadWriter<'a> {
    repository: &'a Repository,
    shared: Shared<'a>,
    /// What is to be written, in order.
    blocks: Vec<Block>,
    outcome: Outcome,
    len: ByteLen,
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

impl<'a> HeadWriter<'a> {
    /// # Errors
    /// Those of the share.
    pub(in crate::restore) fn new(
        repository: &'a Repository,
        job: &'a Job<'a>,
        body: Body,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        let shared = Shared::new(repository, job, monitor)?;
        let mut blocks = shared.head_blocks(repository)?;
        blocks.retain(is_wanted);
        blocks.sort_by_key(|block| (Step::of(block), block.extent.start()));
        Ok(Self { repository, shared, blocks, outcome: body.outcome, len: body.head })
    }

    /// Writes what nobody recognises a volume by.
    ///
    /// # Errors
    /// As [`super::run`].
    pub(in crate::restore) fn write_back(&mut self) -> Result<()> {
        self.write(|block| block.extent.start().get() >= FRONT.get())
    }

    /// Writes the front: the volume is whole then.
    ///
    /// # Errors
    /// As [`super::run`].
    pub(in crate::restore) fn write_front(&mut self) -> Result<()> {
        self.write(|block| block.extent.start().get() < FRONT.get())?;
        if self.outcome.is_complete {
            self.shared.monitor.advance(self.len);
        }
        Ok(())
    }

    /// What it took.
    pub(in crate::restore) fn finish(self) -> Outcome {
        self.outcome
    }

    /// Nothing, once something of the volume is known to be damaged.
    fn write(&mut self, is_asked: impl Fn(&Block) -> bool) -> Result<()> {
        let asked: Vec<_> = self.blocks.iter().copied().filter(is_asked).collect();
        for step in asked.chunk_by(|a, b| Step::of(a) == Step::of(b)) {
            if self.outcome.is_complete {
                self.write_step(step)?;
            }
        }
        Ok(())
    }

    fn write_step(&mut self, step: &[Block]) -> Result<()> {
        let (shared, outcome) = (&self.shared, &mut self.outcome);
        let mut worker = Worker::new(shared, self.repository.frames()?);
        let mut written = ExtentSet::new();
        for unit in step.chunks(UNIT_BLOCKS) {
            let mut done = super::Done::default();
            worker.write(unit, &mut done)?;
            outcome.damaged.extend(done.damaged.iter());
            written.extend(done.written.iter());
        }
        shared.job.target.flush()?;
        outcome.written = outcome.written.saturating_add(written.total());
        if !outcome.damaged.is_empty() {
            // Found only now: what was written of the head must not stay.
            outcome.is_complete = false;
            return Heads::new(std::slice::from_ref(shared.job)).clear();
        }
        if shared.job.read_back == ReadBack::Yes {
            let mut buffer = vec![0; UNIT_BYTES];
            for unit in step.chunks(UNIT_BLOCKS) {
                let read = shared.verify_unit(Unit::Blocks(unit.to_vec()), &mut buffer)?;
                outcome.verified = outcome.verified.saturating_add(read);
            }
        }
        Ok(())
    }
}
