//! Progress: the engine says what it does to a [`Monitor`], whatever shows it. The engine itself never prints.

use imager_units::{ByteLen, Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Which stage everything else is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the source or comparing the target.
    Read,
    /// Hashing, compressing, decompressing, sealing.
    Compute,
    /// The share.
    Share,
    /// Writing the target.
    Write,
}

/// Whoever watches an operation.
pub trait Monitor: Send + Sync {
    /// A new phase begins: what it does, and how many bytes it has before it, where that is known.
    fn phase(&self, what: &str, total: Option<ByteLen>);

    /// So many bytes of the phase are done.
    fn advance(&self, done: ByteLen);

    /// So much time went into a stage, on one thread.
    fn spent(&self, stage: Stage, time: std::time::Duration);

    /// Something is missing from the result, or cost space or time.
    fn notice(&self, message: &str);

    /// Whether to stop.
    fn cancelled(&self) -> bool;
}

/// Fails if whoever watches wants to stop.
///
/// # Errors
/// `Cancelled`.
pub fn check_cancelled(monitor: &dyn Monitor) -> Result<()> {
    if monitor.cancelled() { Err(Error::new(ErrorKind::Cancelled, "interrupted")) } else { Ok(()) }
}

/// A monitor that shows nothing, counts, and can be told to stop.
#[derive(Debug, Default)]
pub struct Silent {
    done: AtomicU64,
    stop: AtomicBool,
}

impl Silent {
    /// How many bytes were reported done, over all phases.
    pub fn done(&self) -> ByteLen {
        ByteLen::new(self.done.load(Ordering::Relaxed))
    }

    /// Asks the operation to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Monitor for Silent {
    fn phase(&self, _what: &str, _total: Option<ByteLen>) {}

    fn advance(&self, done: ByteLen) {
        self.done.fetch_add(done.get(), Ordering::Relaxed);
    }

    fn spent(&self, _stage: Stage, _time: std::time::Duration) {}

    fn notice(&self, _message: &str) {}

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Measures how long `work` took and books it under `stage`.
pub fn timed<T>(monitor: &dyn Monitor, stage: Stage, work: impl FnOnce() -> T) -> T {
    let start = std::time::Instant::now();
    let result = work();
    monitor.spent(stage, start.elapsed());
    result
}
