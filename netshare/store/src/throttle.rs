//! A share that is used no faster than a person allows, so that the night's capture leaves the line to others.
//!
//! All threads share one rate, for both directions together. Each transfer takes its turn in a queue that is only a
//! time, then sleeps without holding anything; so a large object delays others by its own share and no lock. What is
//! put waits before it is sent, what is fetched after it came. A pause earns nothing: there is no burst afterwards.

use crate::{Clock, Entry, ObjectName, Put, Store, SystemClock, Watch};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An object is fetched in pieces of about this much time, so that a slow rate is not a burst and a long silence.
const PIECE: Duration = Duration::from_millis(500);
/// No smaller pieces than this: each costs a request.
const PIECE_BYTES_MIN: u64 = 256 << 10;
/// How often is looked whether to stop.
const GLANCE: Duration = Duration::from_millis(200);

/// `S` at a rate.
pub struct Throttle<S> {
    inner: S,
    bytes_per_second: u64,
    watch: Arc<dyn Watch>,
    clock: Arc<dyn Clock>,
    line: Mutex<Line>,
}

/// When the line is free again, and when that was last looked at.
#[derive(Default)]
struct Line {
    free: Duration,
    seen: Duration,
}

impl<S: Store> Throttle<S> {
    /// `rate` bytes a second in both directions together; at least one.
    pub fn new(inner: S, rate: ByteLen, watch: Arc<dyn Watch>) -> Self {
        Self::with_clock(inner, rate, watch, Arc::new(SystemClock::new()))
    }

    /// The same by another clock.
    pub fn with_clock(inner: S, rate: ByteLen, watch: Arc<dyn Watch>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, bytes_per_second: rate.get().max(1), watch, clock, line: Mutex::default() }
    }

    /// Waits for as long as `len` bytes take at the rate, behind whoever waits already.
    fn pace(&self, len: ByteLen) -> Result<()> {
        let mut left = self.reserve(len);
        while !left.is_zero() {
            if self.watch.cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "interrupted while waiting for the rate"));
            }
            let nap = left.min(GLANCE);
            self.clock.sleep(nap);
            left -= nap;
        }
        Ok(())
    }

    fn reserve(&self, len: ByteLen) -> Duration {
        let takes = Duration::from_secs_f64(len.get() as f64 / self.bytes_per_second as f64);
        let now = self.clock.now();
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that went back must not make the line busy for as long as it went.
        let busy =
            if now < line.seen { line.free.saturating_sub(line.seen) } else { line.free.saturating_sub(now) };
        let wait = busy.saturating_add(takes);
        *line = Line { free: now.saturating_add(wait), seen: now };
        wait
    }

    fn piece_bytes(&self) -> u64 {
        let piece = u128::from(self.bytes_per_second) * PIECE.as_millis() / 1000;
        u64::try_from(piece).unwrap_or(u64::MAX).max(PIECE_BYTES_MIN)
    }

    /// A part in pieces, each after the one before it had its time.
    fn fetch(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        let step = self.piece_bytes();
        if part.len().get() <= step {
            let bytes = self.inner.get_range(name, part)?;
            self.pace(ByteLen::of(&bytes))?;
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(part.len().to_usize().unwrap_or(0).min(64 << 20));
        let mut start = part.start().get();
        while start < part.end().get() {
            let len = step.min(part.end().get() - start);
            let piece = Extent::new(ByteOffset::new(start), ByteLen::new(len));
            let piece = piece.ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{part} is no part")))?;
            bytes.extend(self.inner.get_range(name, piece)?);
            self.pace(ByteLen::new(len))?;
            start += len;
        }
        Ok(bytes)
    }
}

impl<S: Store> Store for Throttle<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.pace(ByteLen::of(bytes))?;
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        match self.inner.len(name)? {
            Some(len) if len.get() > self.piece_bytes() => self.fetch(name, Extent::first(len)),
            _ => {
                let bytes = self.inner.get(name)?;
                self.pace(ByteLen::of(&bytes))?;
                Ok(bytes)
            }
        }
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.fetch(name, part)
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.inner.len(name)
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.inner.list(folder, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.inner.delete(name)
    }
}

#[cfg(test)]
mod tests {
    use super::Throttle;
    use crate::conformance::conformance;
    use crate::{Clock, DirStore, MemoryStore, Nobody, ObjectName, Store, TestClock, Watch};
    use imager_units::{ByteLen, Error, ErrorKind};
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    const MIB: u64 = 1 << 20;

    fn name(at: usize) -> ObjectName {
        ObjectName::new(format!("packs/00/{at}")).unwrap()
    }

    #[test]
    fn a_fast_rate_changes_nothing() {
        conformance(|| {
            let share = Arc::new(MemoryStore::new());
            let rate = ByteLen::new(1 << 40);
            Box::new(move || Box::new(Throttle::new(Arc::clone(&share), rate, Arc::new(Nobody))))
        });
    }

    #[test]
    fn both_directions_and_all_threads_share_the_rate_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::open(folder.path()).unwrap();
        let store = Throttle::new(store, ByteLen::new(40 * MIB), Arc::new(Nobody));
        let bytes = vec![7; 4 << 20];
        let start = Instant::now();
        thread::scope(|scope| {
            for at in 0..4 {
                let (store, bytes) = (&store, &bytes);
                scope.spawn(move || {
                    store.put(&name(at), bytes).unwrap();
                    assert!(store.get(&name(at)).unwrap() == *bytes);
                });
            }
        });
        // 32 MiB at 40 MiB/s; never faster, and slower only by what the machine itself takes.
        let took = start.elapsed().as_secs_f64();
        assert!(took > 0.79, "{took} s");
    }

    #[test]
    fn a_slow_rate_is_kept_exactly_and_in_small_steps() {
        let clock = Arc::new(TestClock::new(1));
        let (inner, rate) = (MemoryStore::new(), ByteLen::new(MIB));
        let dyn_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let store = Throttle::with_clock(inner, rate, Arc::new(Nobody), dyn_clock);
        store.put(&name(0), &vec![1; 32 << 20]).unwrap();
        assert_eq!(clock.slept(), Duration::from_secs(32));
        assert_eq!(store.get(&name(0)).unwrap().len(), 32 << 20);
        assert_eq!(clock.slept(), Duration::from_secs(64));
        assert_eq!(store.piece_bytes(), MIB / 2);
    }

    #[test]
    fn a_clock_that_jumps_neither_stops_the_line_nor_frees_it_for_long() {
        let clock = Arc::new(TestClock::new(1));
        let (inner, rate) = (MemoryStore::new(), ByteLen::new(MIB));
        let dyn_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let store = Throttle::with_clock(inner, rate, Arc::new(Nobody), dyn_clock);
        for (at, now) in [1_000_000, 5, 2_000_000, 0].into_iter().enumerate() {
            clock.set(Duration::from_secs(now));
            let before = clock.slept();
            store.put(&name(at), &vec![1; 1 << 20]).unwrap();
            let took = clock.slept() - before;
            assert!((1..=2).contains(&took.as_secs()), "{took:?}");
        }
    }

    #[derive(Debug)]
    struct Stop;

    impl Watch for Stop {
        fn cancelled(&self) -> bool {
            true
        }
        fn waiting(&self, _error: &Error, _left: Duration) {}
        fn answered(&self) {}
    }

    #[test]
    fn waiting_is_interrupted() {
        let store = Throttle::new(MemoryStore::new(), ByteLen::new(1), Arc::new(Stop));
        assert_eq!(store.put(&name(0), &[1; 1000]).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
