//! The way from the asynchronous server to the blocking disk: so many calls at once and no more.

use crate::answer::Refusal;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The gate to the disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    permits: Arc<Semaphore>,
}

impl Disk {
    /// A gate that lets `calls` through at once.
    pub(crate) fn new(calls: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(calls)) }
    }

    /// Makes a blocking call. It is not interrupted when the caller goes away: an object is published or not.
    ///
    /// # Errors
    /// What the call answers.
    pub(crate) async fn call<T: Send + 'static, E: Into<Refusal> + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Refusal::stopping())?;
        let run = move || {
            let result = work();
            drop(permit);
            result
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result.map_err(E::into),
            Err(_) => Err(Refusal::stopping()),
        }
    }
}
