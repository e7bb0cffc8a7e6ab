//! A share that is asked again when it fails: what lets a long operation live through a server that restarts.
//!
//! Only what may pass is tried again, [`ErrorKind::Io`]; every other answer is the share's word. A call that did its work
//! and lost its answer does no harm when it is repeated: equal bytes under a name are `Present`, and deleting what is
//! gone is no error.
//!
//! The patience is counted, not read off the clock: what was slept as it was asked for, and what a failed call took up
//! to a quarter of the whole. So a clock that jumps makes it neither endless nor zero, and there are four tries at least.

mod seen;
#[cfg(test)]
mod tests;

use crate::{Clock, Entry, ObjectName, Put, Store, SystemClock};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use seen::Seen;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest wait before the second try; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait of all.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The shortest, so that chance cannot make the tries endless.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// How often is looked whether to stop.
const GLANCE: Duration = Duration::from_millis(200);
/// How long a failure has to last before anybody is told, and how often he is told again.
const SILENT: Duration = Duration::from_secs(2);
const REPEAT: Duration = Duration::from_secs(60);

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
    patience: Duration,
    watch: Arc<dyn Watch>,
    clock: Arc<dyn Clock>,
    /// The patience was used up, and there was no answer since: nobody waits a second time.
    given_up: AtomicBool,
    /// When somebody was last told.
    told: Mutex<Option<Duration>>,
}

impl<S: Store> Retry<S> {
    /// Each call may fail for `patience` in all; then it is `Lost`. None at all: the first failure counts.
    pub fn new(inner: S, patience: Duration, watch: Arc<dyn Watch>) -> Self {
        Self::with_clock(inner, patience, watch, Arc::new(SystemClock::new()))
    }

    /// The same by another clock.
    pub fn with_clock(inner: S, patience: Duration, watch: Arc<dyn Watch>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, patience, watch, clock, given_up: AtomicBool::new(false), told: Mutex::new(None) }
    }

    /// The share beneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn call<T>(&self, call: impl Fn() -> Result<T>) -> Result<T> {
        let mut outage = Outage::default();
        loop {
            let began = self.clock.now();
            match call() {
                Err(error) if error.kind() == ErrorKind::Io => self.wait(&mut outage, began, error)?,
                answer => {
                    self.answered();
                    return answer;
                }
            }
        }
    }

    /// Waits before the next try, unless there is to be none.
    fn wait(&self, outage: &mut Outage, began: Duration, error: Error) -> Result<()> {
        let took = self.clock.now().saturating_sub(began);
        outage.spent = outage.spent.saturating_add(took.min(self.patience / 4));
        let left = self.patience.saturating_sub(outage.spent);
        if left.is_zero() || self.given_up.load(Ordering::SeqCst) {
            self.given_up.store(true, Ordering::SeqCst);
            return Err(self.lost(error));
        }
        tracing::debug!("{}: {error}, asked again", self.inner.location());
        let pause = outage.pause(self.clock.random()).min(left);
        outage.spent = outage.spent.saturating_add(pause);
        // Before the wait that makes it long, not after.
        self.tell(outage, &error, left);
        self.sleep(pause)
    }

    fn lost(&self, error: Error) -> Error {
        let location = self.inner.location();
        let what = if self.patience.is_zero() {
            format!("the share {location} failed")
        } else {
            format!("the share {location} did not answer for {}", spell(self.patience))
        };
        Error::with_source(ErrorKind::Lost, what, error)
    }

    fn sleep(&self, time: Duration) -> Result<()> {
        let mut left = time;
        while !left.is_zero() {
            if self.watch.cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "interrupted while the share did not answer"));
            }
            let nap = left.min(GLANCE);
            self.clock.sleep(nap);
            left -= nap;
        }
        Ok(())
    }

    fn tell(&self, outage: &Outage, error: &Error, left: Duration) {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|told| told.abs_diff(now) >= REPEAT);
        if outage.spent >= SILENT && due {
            *told = Some(now);
            drop(told);
            self.watch.waiting(error, left);
        }
    }

    fn answered(&self) {
        self.given_up.store(false, Ordering::SeqCst);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        if told.is_some() {
            self.watch.answered();
        }
    }
}

/// The failures of one call so far.
#[derive(Debug, Default)]
struct Outage {
    tries: u32,
    spent: Duration,
}

impl Outage {
    /// How long to wait now: any time up to a bound that doubles, so that many who lost the same share do not all come
    /// back at once.
    fn pause(&mut self, random: u64) -> Duration {
        let most = FIRST_WAIT.saturating_mul(1 << self.tries.min(16)).min(LONGEST_WAIT);
        self.tries = self.tries.saturating_add(1);
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random % most.saturating_add(1)).max(SHORTEST_WAIT)
    }
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
            let began = self.clock.now();
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
                        self.answered();
                        outage = Outage::default();
                    }
                    if !seen.settle() {
                        let what = format!(
                            "the listing of {} broke off and is too long to begin again",
                            self.location()
                        );
                        return Err(Error::with_source(ErrorKind::Lost, what, error));
                    }
                    self.wait(&mut outage, began, error)?;
                }
                (None, answer) => {
                    self.answered();
                    return answer;
                }
            }
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.call(|| self.inner.delete(name))
    }
}
