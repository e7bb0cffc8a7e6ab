//! That something changed among the devices, told by whoever hears of it to whoever waits for a device.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When nothing came for so long, the kernel is done for now.
const QUIET: Duration = Duration::from_millis(400);
/// A link that comes up makes no event, and events may stop: it is looked each second all the same.
const LOOK: Duration = Duration::from_secs(1);

/// How often something changed.
#[derive(Clone, Default)]
pub(crate) struct Changes(Arc<(Mutex<u64>, Condvar)>);

impl Changes {
    /// Something did.
    pub(crate) fn tell(&self) {
        let mut count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.wrapping_add(1);
        self.0.1.notify_all();
    }

    fn count(&self) -> u64 {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change since `seen`, for at most `most`; whether there was one.
    fn wait(&self, seen: u64, most: Duration) -> bool {
        let count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(count, most, |count| *count == seen);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits until the kernel is quiet, for at most `most`.
    pub(crate) fn settle(&self, most: Duration) {
        let begun = Instant::now();
        while self.wait(self.count(), QUIET) && begun.elapsed() < most {}
    }

    /// Waits until `is_there` says so, looking again whenever something changed; whether it did within `most`.
    pub(crate) fn wait_for(&self, most: Duration, is_there: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        loop {
            let seen = self.count();
            if is_there() {
                return true;
            }
            let left = most.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            self.wait(seen, left.min(LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Changes;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[test]
    fn who_waits_looks_again_when_something_changed() {
        let (changes, is_there) = (Changes::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| changes.wait_for(Duration::from_secs(60), || is_there.load(Ordering::SeqCst)));
            is_there.store(true, Ordering::SeqCst);
            changes.tell();
            assert!(waiting.join().expect("no panic"));
        });
        assert!(!changes.wait_for(Duration::from_millis(10), || false));
    }
}
