//! Volumes that go back together: what was looked at as one system is never half of one.
//!
//! Nothing is written before all of them are unrecognisable, and none is recognisable again before everything but their
//! fronts is written and proven. What is cleared first comes back last: the first job, an operating system, is
//! recognised only when all the others are whole. If they are all what they should be, nothing is written.

use super::volume::{self, Body, HeadWriter, Heads, Job, Outcome};
use crate::monitor::{Monitor, check_cancelled};
use crate::repository::Repository;
use imager_units::{Context, Result};

/// Volumes of which everything but the heads is on the target. The calls take the same jobs in the same order; their
/// targets may have been opened anew.
pub struct Bodies {
    bodies: Vec<Body>,
    are_cleared: bool,
}

impl Bodies {
    /// Compares everything and writes what differs, but for the heads: with the first difference they are cleared.
    ///
    /// # Errors
    /// As [`volume::run`].
    pub fn write(repository: &Repository, jobs: &[Job<'_>], monitor: &dyn Monitor) -> Result<Self> {
        let heads = Heads::new(jobs);
        let write = |job| {
            let written = volume::write_body(repository, job, &heads, monitor);
            written.context(|| format!("restoring {}", job.label))
        };
        let bodies = jobs.iter().map(write).collect::<Result<_>>()?;
        Ok(Self { bodies, are_cleared: heads.are_cleared() })
    }

    /// Clears the heads because something else is to be written that belongs to these volumes.
    ///
    /// # Errors
    /// `Io` from a target.
    pub fn clear_heads(&mut self, jobs: &[Job<'_>]) -> Result<()> {
        if !self.are_cleared {
            Heads::new(jobs).clear()?;
            self.are_cleared = true;
        }
        Ok(())
    }

    /// Whether blocks of job number `n` are damaged in the repository.
    pub fn is_damaged(&self, n: usize) -> bool {
        self.bodies.get(n).is_some_and(|body| !body.outcome.damaged.is_empty())
    }

    /// Writes the heads, the last job's first. Once the first front is written nobody can cancel it any more: what was
    /// cancelled is not whole.
    ///
    /// # Errors
    /// As [`volume::run`].
    pub fn write_heads(
        self,
        repository: &Repository,
        jobs: &[Job<'_>],
        monitor: &dyn Monitor,
    ) -> Result<Vec<Outcome>> {
        if !self.are_cleared {
            return Ok(self.bodies.into_iter().map(|body| untouched(body, monitor)).collect());
        }
        let say = |job: &Job<'_>| format!("restoring {}", job.label);
        let mut heads = Vec::new();
        for (job, body) in jobs.iter().zip(self.bodies) {
            heads.push((job, HeadWriter::new(repository, job, body, monitor).context(|| say(job))?));
        }
        for (job, head) in heads.iter_mut().rev() {
            check_cancelled(monitor)?;
            head.write_back().context(|| say(job))?;
        }
        check_cancelled(monitor)?;
        for (job, head) in heads.iter_mut().rev() {
            head.write_front().context(|| say(job))?;
        }
        Ok(heads.into_iter().map(|(_, head)| head.finish()).collect())
    }
}

/// A volume whose head was there already.
fn untouched(body: Body, monitor: &dyn Monitor) -> Outcome {
    let Body { mut outcome, head } = body;
    outcome.matched = outcome.matched.saturating_add(head);
    monitor.advance(head);
    outcome
}
