//! A share that is asked again when it fails: what lets a long operation live through a server that restarts.
//!
//! Only what may pass is tried again, [`ErrorKind::Io`]; every other answer is the share's word. A call that did its work
//! and lost its answer does no harm when it is repeated: equal bytes under a name are `Present`, and deleting what is
//! gone is no error.
//!
//! The patience is counted, not read off the clock: what was slept as it was asked for, and what a failed call took up
//! to a quarter of the whole. So a clock that jumps makes it neither endless nor zero, and there are four tries at least.

mod persistence;
mod seen;
#[cfg(test)]
mod tests;

use crate::{Clock, Entry, ObjectName, Put, Store, SystemClock};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use persistence::{Outage, Persistence};
use seen::Seen;
use std::sync::Arc;
use std::time::Duration;

/// Whoever waits for the share with us.
pub trait Watch: std::fmt::Debug + Send + Sync {
    /// Whether to stop waiting.
    fn cancelled(&self) -> bool;

    /// The share failed with `error` and is asked again, for `left` at most.
    fn waiting(&self, error: &Error, left: Duration);

    /// It answers again; told only after `waiting` was.
    fn answered(&self);
}

/// Nobody: waits as long as it takes and is told nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Watch for Nobody {
    fn cancelled(&self) -> bool {
        false
    }

    fn waiting(&self, _error: &Error, _left: Duration) {}

    fn answered(&self) {}
}

/// `S`, asked again within a patience.
pub struct Retry<S> {
    inner: S,
    persistence: Persistence,
}

impl<S: Store> Retry<S> {
    /// Each call may fail for `patience` in all; then it is `Lost`. None at all: the first failure counts.
    pub fn new(inner: S, patience: Duration, watch: Arc<dyn Watch>) -> Self {
        Self::with_clock(inner, patience, watch, Arc::new(SystemClock::new()))
    }

    /// The same by another clock.
    pub fn with_clock(inner: S, patience: Duration, watch: Arc<dyn Watch>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, persistence: Persistence::new(patience, watch, clock) }
    }

    /// The share beneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn call<T>(&self, call: impl Fn() -> Result<T>) -> Result<T> {
        self.persistence.call(&|| self.inner.location(), &may_pass, call)
    }
}

/// Whether a failure may pass.
fn may_pass(error: &Error) -> bool {
    error.kind() == ErrorKind::Io
}

/// Opens a share, again and again within a patience while that fails in a way that may pass (`Io`, or what `also`
/// says); `location` is for messages.
///
/// # Errors
/// `Lost` when the patience is over, `Cancelled`, and whatever does not pass.
pub fn open<T>(
    location: &str,
    patience: Duration,
    watch: Arc<dyn Watch>,
    also: fn(&Error) -> bool,
    open: impl Fn() -> Result<T>,
) -> Result<T> {
    let persistence = Persistence::new(patience, watch, Arc::new(SystemClock::new()));
    persistence.call(&|| location.to_owned(), &|error| may_pass(error) || also(error), open)
}

/// A duration as people say it, in the largest unit that does not hide much: `10 min`, `45 s`.
pub fn spell(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

impl<S: Store> Store for Retry<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.call(|| self.inner.put(name, bytes))
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.call(|| self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.call(|| self.inner.get_range(name, part))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.call(|| self.inner.len(name))
    }

    /// A listing that broke off begins again; what was handed out already is passed over. A try that brought anything
    /// new counts as an answer.
    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let (mut outage, mut seen) = (Outage::default(), Seen::default());
        loop {
            let began = self.persistence.now();
            let mut stopped = None;
            let before = seen.count();
            let result = self.inner.list(folder, &mut |entry| {
                if !seen.is_new(&entry.name) {
                    return Ok(());
                }
                each(entry).map_err(|error| {
                    stopped = Some(error);
                    Error::new(ErrorKind::Cancelled, "the listing is stopped")
                })
            });
            match (stopped, result) {
                (Some(error), _) => return Err(error),
                (None, Err(error)) if error.kind() == ErrorKind::Io => {
                    if seen.count() > before {
                        self.persistence.answered();
                        outage = Outage::default();
                    }
                    if !seen.settle() {
                        let what = format!(
                            "the listing of {} broke off and is too long to begin again",
                            self.location()
                        );
                        return Err(Error::with_source(ErrorKind::Lost, what, error));
                    }
                    self.persistence.wait(&|| self.location(), &mut outage, began, error)?;
                }
                (None, answer) => {
                    self.persistence.answered();
                    return answer;
                }
            }
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.call(|| self.inner.delete(name))
    }
}
