//! Which blocks of a volume have to be read, and which are as an earlier map has them.

use super::{Audit, Blocks, Task};
use crate::capture::dedup::Dedup;
use imager_units::{Extent, ExtentSet};
use std::sync::Mutex;

/// How the blocks that have to be read are told from those that need no look.
#[derive(Clone, Debug)]
pub enum Look {
    /// All that counts is read, and compared.
    All,
    /// Marks say what may have changed since the parent.
    Marked(Marked),
}

/// What may have changed since the parent.
#[derive(Clone, Debug)]
pub struct Marked {
    /// Where, relative to the volume; a block that shares a byte with it is read.
    pub extents: ExtentSet,
    /// What becomes of all else.
    pub rest: Rest,
    /// Which unmarked blocks are read all the same.
    pub audit: Option<Audit>,
}

/// What becomes of blocks without a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are as the parent has them, whatever counts now.
    Keep,
    /// They are as the parent has them as far as it speaks of all that counts; what does not count any more is left out.
    Check,
}

/// Whether the packs that the parent's map names may be relied on.
#[derive(Clone, Copy)]
pub enum Standing<'a, 'r> {
    /// All of them.
    Proven,
    /// Each has to be asked for.
    Asked(&'a Mutex<Dedup<'r>>),
}

impl Marked {
    /// Whether the parent knows all that counts of an unmarked block.
    pub(super) fn covers(&self, task: &Task) -> bool {
        let parent = task.parent;
        !self.extents.overlaps(task.extent) && task.mask.is_within(parent.mask) && parent.unreadable.is_none()
    }

    /// The first block of `rest`, which begins with block `from`, that has to be looked at.
    pub(super) fn next(&self, from: u64, rest: Extent) -> u64 {
        let first = |set: &ExtentSet| {
            set.overlapping(rest).next().map_or(u64::MAX, |e| Blocks::block_of(e.start()).max(from))
        };
        let marked = first(&self.extents);
        match &self.audit {
            Some(audit) => audit.sampled(from, marked).min(first(&audit.heads)),
            None => marked,
        }
    }
}
