//! The one shape of parallel work in the engine: units in order, several workers, results in order.
//!
//! Workers take the next unit themselves, so there is no queue to fill; each may wait for a disk or a share while the
//! others compute, which keeps both busy. Results come to the caller's thread in the order of the units. A worker
//! that is too far ahead waits, so at most `window` units are in memory. The first error stops everything.

use imager_units::Result;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How wide a pipeline is.
#[derive(Clone, Copy, Debug)]
pub struct Width {
    /// How many workers.
    pub workers: usize,
    /// How many units may be under way or waiting for their turn.
    pub window: usize,
}

impl Width {
    /// As many workers as keep every core computing while as many again wait for I/O, four to eight: more would
    /// only take more memory, since by then the disk or the share decides.
    pub fn for_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let workers = (cores * 2).clamp(4, 8);
        Self { workers, window: workers * 2 }
    }

    /// For work that mostly waits for a disk: eight reads in flight keep any disk busy, however few the cores.
    pub fn for_a_disk() -> Self {
        Self { workers: 8, window: 16 }
    }
}

struct State<I, O> {
    units: I,
    /// Number of the next unit to be taken.
    next: u64,
    /// Number of the next result to be handed on.
    turn: u64,
    done: BTreeMap<u64, O>,
    /// Units taken whose result is not there yet.
    running: usize,
    exhausted: bool,
    failed: Option<imager_units::Error>,
    stopped: bool,
}

struct Shared<I, O> {
    state: Mutex<State<I, O>>,
    changed: Condvar,
}

/// Runs `units` through workers made by `worker`, handing each result to `sink` in the units' order.
///
/// # Errors
/// The first error of the units, a worker or the sink.
pub fn ordered<U, O, W>(
    name: &str,
    width: Width,
    units: impl Iterator<Item = Result<U>> + Send,
    worker: impl Fn() -> Result<W> + Sync,
    sink: impl FnMut(O) -> Result<()>,
) -> Result<()>
where
    U: Send,
    O: Send,
    W: FnMut(U) -> Result<O>,
{
    let shared = Shared {
        state: Mutex::new(State {
            units,
            next: 0,
            turn: 0,
            done: BTreeMap::new(),
            running: 0,
            exhausted: false,
            failed: None,
            stopped: false,
        }),
        changed: Condvar::new(),
    };
    let (shared, worker) = (&shared, &worker);
    std::thread::scope(|scope| {
        for number in 0..width.workers.max(1) {
            let builder = std::thread::Builder::new().name(format!("{name}-{number}"));
            let started = builder.spawn_scoped(scope, move || {
                let guard = StopOnPanic(shared);
                match worker() {
                    Ok(work) => shared.work(width.window as u64, work),
                    Err(error) => shared.fail(error),
                }
                drop(guard);
            });
            if let Err(error) = started {
                shared.fail(imager_units::Error::io("starting a worker thread", error));
                break;
            }
        }
        // A sink that panics must not leave the workers waiting for their turn.
        let guard = StopOnPanic(shared);
        let outcome = shared.hand_on(sink);
        shared.stop();
        drop(guard);
        outcome
    })
}

/// A worker that panics must not leave the others, or whoever waits for its result, waiting for ever.
struct StopOnPanic<'s, I: Iterator<Item = Result<U>>, U, O>(&'s Shared<I, O>);

impl<I: Iterator<Item = Result<U>>, U, O> Drop for StopOnPanic<'_, I, U, O> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(imager_units::Error::new(imager_units::ErrorKind::Io, "a worker thread panicked"));
        }
    }
}

impl<U, O, I: Iterator<Item = Result<U>>> Shared<I, O> {
    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<I, O>>) -> MutexGuard<'s, State<I, O>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: imager_units::Error) {
        let mut state = self.lock();
        state.failed.get_or_insert(error);
        state.stopped = true;
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// A worker's life.
    fn work(&self, window: u64, mut work: impl FnMut(U) -> Result<O>) {
        while let Some((number, unit)) = self.take(window) {
            match work(unit) {
                Ok(output) => {
                    let mut state = self.lock();
                    state.done.insert(number, output);
                    state.running -= 1;
                    self.changed.notify_all();
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    fn take(&self, window: u64) -> Option<(u64, U)> {
        let mut state = self.lock();
        while !state.stopped && !state.exhausted && state.next >= state.turn + window {
            state = self.wait(state);
        }
        if state.stopped || state.exhausted {
            return None;
        }
        match state.units.next() {
            Some(Ok(unit)) => {
                let number = state.next;
                state.next += 1;
                state.running += 1;
                Some((number, unit))
            }
            Some(Err(error)) => {
                // Under the same lock: behind an error there may be nothing, and whoever saw that first would say all is done.
                state.failed.get_or_insert(error);
                state.stopped = true;
                self.changed.notify_all();
                None
            }
            None => {
                state.exhausted = true;
                self.changed.notify_all();
                None
            }
        }
    }

    /// The caller's side: results in order until all are there or something failed.
    fn hand_on(&self, mut sink: impl FnMut(O) -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        loop {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            let turn = state.turn;
            if let Some(output) = state.done.remove(&turn) {
                drop(state);
                sink(output)?;
                state = self.lock();
                state.turn += 1;
                self.changed.notify_all();
            } else if state.exhausted && state.running == 0 && state.done.is_empty() {
                return Ok(());
            } else {
                state = self.wait(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Width, ordered};
    use imager_units::{Error, Result};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const WIDTH: Width = Width { workers: 4, window: 6 };

    fn run(fail_unit: Option<u64>, fail_work: Option<u64>, fail_sink: Option<u64>) -> (Result<()>, Vec<u64>) {
        let mut seen = Vec::new();
        let fails = |at: Option<u64>, n: u64| {
            if at == Some(n) { Err(Error::corrupt("asked to fail")) } else { Ok(n) }
        };
        let units = (0..200_u64).map(|n| fails(fail_unit, n));
        let result = ordered(
            "test",
            WIDTH,
            units,
            || {
                Ok(move |n: u64| {
                    std::thread::sleep(std::time::Duration::from_micros((n * 7919) % 300));
                    fails(fail_work, n)
                })
            },
            |n| {
                seen.push(n);
                fails(fail_sink, n).map(|_| ())
            },
        );
        (result, seen)
    }

    #[test]
    fn results_come_in_order_and_all_of_them() {
        let (result, seen) = run(None, None, None);
        assert!(result.is_ok());
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_anywhere_stops_everything_and_nothing_is_handed_on_behind_it() {
        for at in [0, 1, 57, 199] {
            for (unit, work, sink) in [(Some(at), None, None), (None, Some(at), None), (None, None, Some(at))]
            {
                let (result, seen) = run(unit, work, sink);
                assert!(result.is_err());
                assert!(seen.iter().copied().eq(0..seen.len() as u64));
                assert!(seen.len() as u64 <= at + 1);
            }
        }
    }

    #[test]
    fn an_error_behind_which_nothing_comes_is_never_lost() {
        for count in 0..2000_u64 {
            let last = std::iter::once(Err(Error::corrupt("asked to fail")));
            let units = (0..count % 3).map(Ok).chain(last);
            let result = ordered("test", WIDTH, units, || Ok(|n: u64| Ok(n)), |_| Ok(()));
            assert!(result.is_err(), "run {count}");
        }
    }

    #[test]
    fn a_slow_sink_bounds_what_is_in_memory() {
        let (made, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let result = ordered(
            "test",
            WIDTH,
            (0..50).map(Ok),
            || Ok(|n: i32| Ok((made.fetch_add(1, Ordering::SeqCst), n))),
            |_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                let ahead = made.load(Ordering::SeqCst) - used.fetch_add(1, Ordering::SeqCst);
                assert!(ahead <= WIDTH.window + 1);
                Ok(())
            },
        );
        assert!(result.is_ok());
    }

    #[test]
    fn a_sink_that_panics_is_not_a_hang() {
        let outcome = std::panic::catch_unwind(|| {
            ordered(
                "test",
                WIDTH,
                (0..50).map(Ok),
                || Ok(Ok),
                |n: i32| {
                    assert!(n < 20, "on purpose");
                    Ok(())
                },
            )
        });
        assert!(outcome.is_err());
    }

    #[test]
    fn a_worker_that_panics_is_an_error_not_a_hang() {
        let outcome = std::panic::catch_unwind(|| {
            ordered(
                "test",
                WIDTH,
                (0..50).map(Ok),
                || Ok(|n: i32| if n == 20 { panic!("on purpose") } else { Ok(n) }),
                |_| Ok(()),
            )
        });
        assert!(outcome.map_or(true, |result| result.is_err()));
    }
}
