//! Time and chance as decorators see them, so that a test of ten minutes takes none.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A clock to wait by. It may be wrong: whoever uses it must neither wait for ever nor not at all because it jumped.
pub trait Clock: Send + Sync {
    /// The time since a beginning of the clock's own.
    fn now(&self) -> Duration;

    /// Returns when about so much time has gone by.
    fn sleep(&self, time: Duration);

    /// Any number.
    fn random(&self) -> u64;
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn random(&self) -> u64 {
        // Keyed anew each time; nothing here has to be secret.
        RandomState::new().build_hasher().finish()
    }
}

/// A clock that only goes on when somebody sleeps by it, or when it is told to jump. For tests.
#[derive(Debug, Default)]
pub struct TestClock(Mutex<Hands>);

#[derive(Debug, Default)]
struct Hands {
    now: Duration,
    slept: Duration,
    state: u64,
    jumps: Vec<Duration>,
}

impl TestClock {
    /// A clock at zero whose chance follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Hands { state: seed, ..Hands::default() }))
    }

    /// The time that was slept by it, jumps apart.
    pub fn slept(&self) -> Duration {
        self.hands().slept
    }

    /// Sets the clock, whatever it showed.
    pub fn set(&self, now: Duration) {
        self.hands().now = now;
    }

    /// Whenever it is looked at from now on, it shows the next of these, over and over.
    pub fn jump(&self, jumps: impl IntoIterator<Item = Duration>) {
        self.hands().jumps = jumps.into_iter().collect();
    }

    fn hands(&self) -> std::sync::MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        let mut hands = self.hands();
        if let Some(next) = hands.jumps.first().copied() {
            hands.jumps.rotate_left(1);
            hands.now = next;
        }
        hands.now
    }

    fn sleep(&self, time: Duration) {
        let mut hands = self.hands();
        hands.now = hands.now.saturating_add(time);
        hands.slept = hands.slept.saturating_add(time);
    }

    fn random(&self) -> u64 {
        let mut hands = self.hands();
        hands.state =
            hands.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        hands.state ^ (hands.state >> 32)
    }
}
