//! What keeps a process from waiting for others while filesystems are frozen: its memory is locked, so that nothing has
//! to be written to a frozen filesystem to get it back, and its thread runs before all that are not real-time; so does its I/O.
//!
//! A container may allow neither. Then a freeze takes longer, and the guard ends it if it takes too long.

use crate::sys;
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use std::ffi::c_int;

/// Locks what memory the process has.
pub(crate) fn lock_memory() {
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT) {
        tracing::debug!("memory cannot be locked: {error}");
    }
}

/// Lets go of it again.
pub(crate) fn unlock_memory() {
    if let Err(error) = munlockall() {
        tracing::debug!("memory cannot be unlocked: {error}");
    }
}

/// Real-time I/O of the highest priority (`linux/ioprio.h`).
const IO_REALTIME: c_int = 1 << 13;

/// How urgent a thread is that works while everything is frozen: below the guard.
pub(crate) const PRIORITY: c_int = 40;

/// The calling thread runs before others, and its I/O is done before theirs, until this is dropped.
pub struct Urgent {
    before: Option<c_int>,
    io_before: Option<c_int>,
}

impl Urgent {
    /// As whoever freezes is.
    pub fn as_a_freeze() -> Self {
        Self::new(PRIORITY)
    }

    /// `priority` above that of others who are urgent.
    pub(crate) fn new(priority: c_int) -> Self {
        let before = sys::scheduling();
        let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        let set = before.and_then(|before| sys::schedule(policy, priority).map(|()| before));
        let io_before = sys::io_priority();
        let io = io_before.and_then(|before| sys::set_io_priority(IO_REALTIME).map(|()| before));
        Self {
            before: set.inspect_err(|error| tracing::debug!("no real-time scheduling: {error}")).ok(),
            io_before: io.inspect_err(|error| tracing::debug!("no real-time I/O: {error}")).ok(),
        }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        // Whoever was real-time before stays so.
        let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
        if let Some(before) = self.before.filter(|before| ordinary.contains(before)) {
            let _nothing_lost = sys::schedule(before, 0);
        }
        if let Some(before) = self.io_before {
            let _nothing_lost = sys::set_io_priority(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Urgent;
    use crate::sys;

    #[test]
    fn a_thread_is_as_before_when_it_is_urgent_no_more() {
        // As a scheduled capture is.
        let idle = 3 << 13;
        if sys::set_io_priority(idle).is_err() {
            return;
        }
        let before = sys::scheduling().unwrap();
        {
            let urgent = Urgent::new(1);
            assert_eq!(sys::io_priority().unwrap() == idle, urgent.io_before.is_none());
            assert_eq!(sys::scheduling().unwrap() == before, urgent.before.is_none());
        }
        assert_eq!((sys::io_priority(), sys::scheduling()), (Ok(idle), Ok(before)));
    }
}
