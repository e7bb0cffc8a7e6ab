//! Asking again: when, how often, for how long, and who is told.

use super::{Watch, spell};
use crate::Clock;
use imager_units::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest wait before the second try; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait of all.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The shortest, so that chance cannot make the tries endless.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// How often is looked whether to stop.
pub(super) const GLANCE: Duration = Duration::from_millis(200);
/// How long a failure has to last before anybody is told, and how often he is told again.
const SILENT: Duration = Duration::from_secs(2);
const REPEAT: Duration = Duration::from_secs(60);

/// A patience with one share.
pub(super) struct Persistence {
    patience: Duration,
    watch: Arc<dyn Watch>,
    clock: Arc<dyn Clock>,
    /// The patience was used up, and there was no answer since: nobody waits a second time.
    given_up: AtomicBool,
    /// When somebody was last told.
    told: Mutex<Option<Duration>>,
}

impl Persistence {
    pub(super) fn new(patience: Duration, watch: Arc<dyn Watch>, clock: Arc<dyn Clock>) -> Self {
        Self { patience, watch, clock, given_up: AtomicBool::new(false), told: Mutex::new(None) }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Calls until there is an answer, or a failure that does not pass.
    pub(super) fn call<T>(
        &self,
        location: &dyn Fn() -> String,
        may_pass: &dyn Fn(&Error) -> bool,
        call: impl Fn() -> Result<T>,
    ) -> Result<T> {
        let mut outage = Outage::default();
        loop {
            let began = self.now();
            match call() {
                Err(error) if may_pass(&error) => self.wait(location, &mut outage, began, error)?,
                answer => {
                    self.answered();
                    return answer;
                }
            }
        }
    }

    /// Waits before the next try, unless there is to be none.
    pub(super) fn wait(
        &self,
        location: &dyn Fn() -> String,
        outage: &mut Outage,
        began: Duration,
        error: Error,
    ) -> Result<()> {
        let took = self.now().saturating_sub(began);
        outage.spent = outage.spent.saturating_add(took.min(self.patience / 4));
        let left = self.patience.saturating_sub(outage.spent);
        if left.is_zero() || self.given_up.load(Ordering::SeqCst) {
            self.given_up.store(true, Ordering::SeqCst);
            return Err(self.lost(location(), error));
        }
        tracing::debug!("{}: {error}, asked again", location());
        let pause = outage.pause(self.clock.random()).min(left);
        outage.spent = outage.spent.saturating_add(pause);
        // Before the wait that makes it long, not after.
        self.tell(outage, &error, left);
        self.sleep(pause)
    }

    fn lost(&self, location: String, error: Error) -> Error {
        // Nothing was waited for, and it says as much already.
        if self.patience.is_zero() && error.kind() == ErrorKind::Lost {
            return error;
        }
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

    pub(super) fn answered(&self) {
        self.given_up.store(false, Ordering::SeqCst);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        if told.is_some() {
            self.watch.answered();
        }
    }
}

/// The failures of one call so far.
#[derive(Debug, Default)]
pub(super) struct Outage {
    pub(super) tries: u32,
    pub(super) spent: Duration,
}

impl Outage {
    /// How long to wait now: any time up to a bound that doubles, so that many who lost the same share do not all come
    /// back at once.
    pub(super) fn pause(&mut self, random: u64) -> Duration {
        let most = FIRST_WAIT.saturating_mul(1 << self.tries.min(16)).min(LONGEST_WAIT);
        self.tries = self.tries.saturating_add(1);
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random % most.saturating_add(1)).max(SHORTEST_WAIT)
    }
}
