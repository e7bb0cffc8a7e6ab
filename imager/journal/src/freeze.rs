//! An instant at which nothing changes.

mod arena;
pub(crate) mod chosen;
mod freezer;
pub(crate) mod urgent;

pub use arena::Arena;
pub use freezer::{FreezeOptions, Freezer};
pub use urgent::Urgent;

use imager_units::Result;
use std::time::{Duration, Instant};

/// How long a freeze took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrozenFor {
    /// From the first filesystem asked to freeze until the last was frozen; the kernel's part.
    pub freezing: Duration,
    /// From then until the first was thawed; ours.
    pub work: Duration,
    /// Until all were thawed.
    pub thawing: Duration,
}

/// The filesystems of a machine, which can be held still.
pub trait Freeze {
    /// Writes back what can be written back beforehand, so that freezing is short.
    ///
    /// # Errors
    /// `Io` from a filesystem.
    fn sync(&mut self) -> Result<()>;

    /// Freezes all, runs `work`, which is told when it has to be done, and thaws all, also when `work` panics or this
    /// process dies. `work` allocates nothing, writes no file and logs nothing.
    ///
    /// # Errors
    /// `Denied` when a filesystem is frozen by somebody else; `Io` from the system; `Cancelled` when somebody thawed a
    /// filesystem before `work` was done: what `work` saw is worthless then. None is frozen afterwards in any case.
    fn frozen(&mut self, work: &mut dyn FnMut(Instant)) -> Result<FrozenFor>;
}
