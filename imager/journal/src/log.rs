//! What changed on the disks of a machine, and since when.
//!
//! Time is a row of epochs; each harvest ends one. A capture stands between two of them: it holds what was on the disks
//! when its last epoch ended. Its cursor is kept once it is durable, and the next capture asks for what changed since.

use imager_units::{ByteLen, Extent, ExtentSet, Result};

/// The grain of the journal: the size of a block, on the disk and not in the volume. An extent of marks is aligned to
/// it but for the disk's end.
pub const MARK_BYTES: ByteLen = ByteLen::new(64 << 10);

/// The number of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What happened to one disk in a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Where it was, or may have been, written or zeroed.
    pub written: ExtentSet,
    /// Where it was discarded. What was both is in both.
    pub discarded: ExtentSet,
}

/// What is known of the time since a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// No write was missed: the marks of each disk, in the log's order.
    Known(Vec<Marks>),
    /// A write may have been missed, for this reason: everything has to be compared.
    Unknown(String),
}

/// The record of the changes of some disks, held by one capture at a time. Disks are numbered as they were named when
/// it was opened.
pub trait ChangeLog: Send + Sync {
    /// Ends the epoch: what happened in it, disk by disk. Whatever is marked from then on belongs to the next, so a
    /// block that is read after this is final unless a later harvest has it.
    ///
    /// # Errors
    /// `Corrupt` when a write may have been missed: nothing read so far may be relied on, and no cursor is good any
    /// more. `Io` from the system.
    fn harvest(&mut self) -> Result<Vec<Marks>>;

    /// The same while the machine is frozen: allocates nothing, writes no file. Says each run of `written` marks by
    /// its disk until `each` says that it has had enough; then the rest stays marked. What was said to `each` counts
    /// as harvested, also that on which it gave up.
    ///
    /// # Errors
    /// As `harvest`.
    fn harvest_frozen(&mut self, each: &mut dyn FnMut(usize, Extent) -> bool) -> Result<Epoch>;

    /// What happened since the capture `base` (its id), up to the last harvest.
    ///
    /// # Errors
    /// `Io` from the system. State that is torn or lost is `Unknown`, not an error.
    fn since(&self, base: &str) -> Result<Since>;

    /// Whether any of `extent` of a disk was written or discarded since the last harvest; clears nothing. Bytes that
    /// were read before this said no are those of the last harvest.
    fn is_marked(&self, disk: usize, extent: Extent) -> bool;

    /// Keeps a cursor for `capture`, which is durable and holds what was there when `epoch` ended. Cursors of captures
    /// that are not in `keep` are given up.
    ///
    /// # Errors
    /// `Io` from the system; the next capture compares then.
    fn commit(&mut self, capture: &str, epoch: Epoch, keep: &[String]) -> Result<()>;

    /// Declares every cursor worthless, for this reason.
    ///
    /// # Errors
    /// `Io` from the system: then it must be stopped.
    fn taint(&mut self, why: &str) -> Result<()>;
}
