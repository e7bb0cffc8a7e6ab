//! Where futures are waited for: one small runtime for all shares of this process, behind a blocking face.
//!
//! The engine is threads. Any of them may wait here, each for its own future, which runs on the waiting thread;
//! connections are driven by the runtime's two workers. Never to be called by what runs inside a runtime.

use imager_units::{Context, Error, ErrorKind, Result};
use std::future::Future;
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

/// One encrypts and decrypts for a connection while the other does so for the next.
const WORKERS: usize = 2;

/// Waits until `future` is done.
///
/// # Errors
/// `Io` when the runtime cannot be started.
pub(crate) fn wait<F: Future>(future: F) -> Result<F::Output> {
    Ok(runtime()?.block_on(future))
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
