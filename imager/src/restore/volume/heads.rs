//! The heads of volumes that are restored together: cleared, all of them, before the first write to any.

use super::Job;
use crate::map::BLOCK;
use imager_disk::WriteAt;
use imager_units::{ByteLen, Context, Extent, ExtentSet, Result};
use std::sync::{Mutex, PoisonError};

/// The first blocks of a volume: nothing is recognised without what they hold.
pub(super) const FRONT: ByteLen = ByteLen::new(2 * BLOCK.get());

/// Where a volume is recognisable.
struct Head<'a> {
    label: &'a str,
    target: &'a dyn WriteAt,
    blocks: ExtentSet,
}

/// The heads of volumes that are restored together, in the order in which they are cleared.
pub(in crate::restore) struct Heads<'a> {
    heads: Vec<Head<'a>>,
    cleared: Mutex<bool>,
}

impl<'a> Heads<'a> {
    /// Those of `jobs`; nothing is cleared yet.
    pub(in crate::restore) fn new(jobs: &'a [Job<'a>]) -> Self {
        let head =
            |job: &'a Job<'a>| Head { label: &job.label, target: job.target, blocks: job.head_blocks() };
        Self { heads: jobs.iter().map(head).collect(), cleared: Mutex::new(false) }
    }

    /// Whether they were cleared.
    pub(in crate::restore) fn are_cleared(&self) -> bool {
        *self.cleared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every volume unrecognisable, once: the front of each before the rest of any, each durable before the
    /// next, so that power lost meanwhile leaves no superblock without its copies, and what is named first goes first.
    ///
    /// # Errors
    /// `Io` from a target.
    pub(in crate::restore) fn clear(&self) -> Result<()> {
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*cleared {
            let front = ExtentSet::from(Extent::first(FRONT));
            self.heads.iter().try_for_each(|head| head.zero(&head.blocks.intersection(&front)))?;
            self.heads.iter().try_for_each(|head| head.zero(&head.blocks.difference(&front)))?;
            *cleared = true;
        }
        Ok(())
    }
}

impl Head<'_> {
    fn zero(&self, part: &ExtentSet) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let zeroed = part.iter().try_for_each(|extent| self.target.zero(extent));
        zeroed.and_then(|()| self.target.flush()).context(|| format!("clearing the head of {}", self.label))
    }
}
