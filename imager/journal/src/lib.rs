//! The journal: which blocks of a running machine's disks changed, and the instant at which they stand still.
//!
//! Two seams. [`ChangeLog`] says what changed since a capture, and never less: where a write might have been missed it
//! says so, and the capture compares instead. [`Freeze`] holds the filesystems of a machine still for an instant and
//! lets go of them whatever happens.

mod freeze;
pub mod guard;
mod log;
mod sys;

pub use freeze::{Arena, Freeze, FreezeOptions, Freezer, FrozenFor};
pub use log::{ChangeLog, Epoch, MARK_BYTES, Marks, Since};
