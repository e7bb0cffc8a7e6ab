//! The journal: which blocks of a running machine's disks changed, and the instant at which they stand still.
//!
//! Two seams. [`ChangeLog`] says what changed since a capture, and never less: where a write might have been missed it
//! says so, and the capture compares instead. [`Freeze`] holds the filesystems of a machine still for an instant and
//! lets go of them whatever happens.

mod about;
mod audit;
mod bits;
mod disk;
mod folder;
mod followed;
mod freeze;
pub mod guard;
mod hooks;
mod journal;
mod live;
mod log;
mod program;
mod record;
mod status;
mod support;
mod sys;
mod tracker;
mod trouble;

pub use disk::Disk;
pub use freeze::{Arena, Freeze, FreezeOptions, Freezer, FrozenFor, Urgent};
pub use hooks::{HOOKS_FOLDER, Hooks, Outcome, Ran};
pub use journal::Journal;
pub use live::live_map;
pub use log::{ChangeLog, Epoch, MARK_BYTES, Marks, Since};
#[doc(hidden)]
pub use program::Ends;
pub use status::{CursorStatus, FollowedStatus, Status};
pub use trouble::Trouble;
