//! Where futures are waited for: one small runtime for all shares of this process, behind a blocking face.
//!
//! The engine is threads. Any of them may wait here, each for its own future, which runs on the waiting thread;
//! connections are driven by the runtime's two workers. Never to be called by what runs inside a runtime.

use crate::Watch;
use imager_units::{Context, Error, ErrorKind, Result};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// One encrypts and decrypts for a connection while the other does so for the next.
const WORKERS: usize = 2;

/// How often is looked whether to stop.
const GLANCE: Duration = Duration::from_millis(100);
/// What is under way when somebody wants to stop has this long to come to its end.
const GRACE: Duration = Duration::from_millis(500);

/// Who waits for one share, and ends it when he wants to stop.
#[derive(Debug)]
pub(crate) struct Waiter {
    watch: Arc<dyn Watch>,
    /// When it was first seen that he wants to.
    noticed: OnceLock<Instant>,
}

impl Waiter {
    pub(crate) fn new(watch: Arc<dyn Watch>) -> Self {
        Self { watch, noticed: OnceLock::new() }
    }

    /// Waits until `future` is done. Once the watch wants to stop, what is under way is dropped after half a second,
    /// and what begins then, such as taking a lease away, half a second later: together they never last longer.
    ///
    /// # Errors
    /// `Cancelled`; `Io` when the runtime cannot be started.
    pub(crate) fn wait<F: Future>(&self, future: F) -> Result<F::Output> {
        let grace = if self.noticed().is_some() { 2 * GRACE } else { GRACE };
        runtime()?.block_on(async {
            tokio::select! {
                biased;
                output = future => Ok(output),
                () = self.stop(grace) => Err(Error::new(ErrorKind::Cancelled, "interrupted while the share was asked")),
            }
        })
    }

    async fn stop(&self, grace: Duration) {
        while self.noticed().is_none_or(|noticed| noticed.elapsed() < grace) {
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn noticed(&self) -> Option<Instant> {
        if self.watch.cancelled() { Some(*self.noticed.get_or_init(Instant::now)) } else { None }
    }
}

fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(WORKERS).thread_name("share").enable_all();
    let started = builder.build().context(|| "starting the threads that talk to the share".to_owned())?;
    // Of two that come at once one's is dropped, before anything ran on it.
    drop(RUNTIME.set(started));
    RUNTIME.get().ok_or_else(|| Error::new(ErrorKind::Io, "no runtime"))
}

#[cfg(test)]
mod tests {
    use super::Waiter;
    use crate::Watch;
    use imager_units::{Error, ErrorKind};
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    #[derive(Debug, Default)]
    struct Switch(AtomicBool);

    impl Watch for Switch {
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }

        fn waiting(&self, _error: &Error, _left: Duration) {}

        fn answered(&self) {}
    }

    #[test]
    fn what_hangs_ends_soon_and_what_begins_then_has_a_little_longer() {
        let switch = Arc::new(Switch::default());
        let waiter = Waiter::new(Arc::clone(&switch) as Arc<dyn Watch>);
        std::thread::scope(|scope| {
            let hanging: Vec<_> =
                (0..3).map(|_| scope.spawn(|| waiter.wait(pending::<()>()).map_err(|e| e.kind()))).collect();
            std::thread::sleep(Duration::from_millis(200));
            assert!(hanging.iter().all(|thread| !thread.is_finished()), "nobody stopped it");
            let start = Instant::now();
            switch.0.store(true, Ordering::SeqCst);
            hanging.into_iter().for_each(|t| assert_eq!(t.join().unwrap(), Err(ErrorKind::Cancelled)));
            assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
            // What cleans up is still done, and when that hangs as well it does not last.
            assert_eq!(waiter.wait(ready(7)).unwrap(), 7);
            waiter.wait(async { tokio::time::sleep(Duration::from_millis(100)).await }).unwrap();
            for _ in 0..8 {
                assert_eq!(waiter.wait(pending::<()>()).unwrap_err().kind(), ErrorKind::Cancelled);
            }
            assert!(start.elapsed() < Duration::from_millis(1800), "{:?}", start.elapsed());
            assert_eq!(waiter.wait(ready(7)).unwrap(), 7);
        });
    }
}
