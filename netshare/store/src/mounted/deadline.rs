//! Calls that end although the kernel would wait for ever.
//!
//! `soft` ends a call whose request is lost. But an NFS client that has to renew its state with a server that is gone waits
//! without end for that, and only the death of the process interrupts it. So every call runs in a thread of its own.
//! Whenever it has not ended after a while, we knock at the server's port: where nobody answers, the call is given up.
//! The thread then ends whenever the kernel lets it, at the latest with the process; while there is such a thread no
//! other is started, so they cannot pile up.

use crate::DirStore;
use imager_units::{Error, ErrorKind, Result};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// After so long we knock.
const TICK: Duration = Duration::from_secs(5);
/// How long the server may take to open.
const KNOCK: Duration = Duration::from_secs(10);
/// A server that opens but does not answer a call for so many ticks is taken for gone too: half an hour, in which even
/// a slow line carries a pack.
const TICKS_MAX: u32 = 360;

/// A folder of a server, and the calls to it.
#[derive(Debug)]
pub(super) struct Patient {
    store: Arc<DirStore>,
    server: SocketAddr,
    /// How many calls were given up and have not ended.
    stuck: Arc<(Mutex<usize>, Condvar)>,
}

impl Patient {
    pub(super) fn new(store: DirStore, server: SocketAddr) -> Self {
        Self { store: Arc::new(store), server, stuck: Arc::default() }
    }

    pub(super) fn store(&self) -> &DirStore {
        &self.store
    }

    /// Makes a call.
    ///
    /// # Errors
    /// The call's; `Io` when the server is gone.
    pub(super) fn call<T: Send + 'static>(
        &self,
        run: impl FnOnce(&DirStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.wait_for_stuck()?;
        let (sender, receiver) = sync_channel(0);
        let (store, stuck) = (Arc::clone(&self.store), Arc::clone(&self.stuck));
        let work = move || {
            if sender.send(run(&store)).is_err() {
                let (count, ended) = &*stuck;
                *count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
                ended.notify_all();
            }
        };
        let started = thread::Builder::new().name("share".to_owned()).spawn(work);
        started.map_err(|error| Error::io("starting a thread", error))?;
        for _ in 0..TICKS_MAX {
            match receiver.recv_timeout(TICK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if !self.is_there() {
                        break;
                    }
                }
            }
        }
        // Counted before the receiver goes, so that the thread finds itself counted.
        *self.stuck.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        match receiver.try_recv() {
            Ok(result) => {
                *self.stuck.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
                result
            }
            Err(_) => Err(self.gone()),
        }
    }

    /// Waits for calls that were given up; when the server is back they end.
    fn wait_for_stuck(&self) -> Result<()> {
        let (count, ended) = &*self.stuck;
        if *count.lock().unwrap_or_else(PoisonError::into_inner) == 0 {
            return Ok(());
        }
        if !self.is_there() {
            return Err(self.gone());
        }
        let guard = count.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) =
            ended.wait_timeout_while(guard, TICK, |count| *count > 0).unwrap_or_else(PoisonError::into_inner);
        if *guard == 0 { Ok(()) } else { Err(self.gone()) }
    }

    /// Knocks.
    fn is_there(&self) -> bool {
        TcpStream::connect_timeout(&self.server, KNOCK).is_ok()
    }

    fn gone(&self) -> Error {
        let what = format!("the server {} is gone", self.server);
        Error::with_source(ErrorKind::Io, what, io::Error::from(io::ErrorKind::TimedOut))
    }
}

#[cfg(test)]
mod tests {
    use super::Patient;
    use crate::{DirStore, ObjectName, Store};
    use imager_units::ErrorKind;
    use std::net::TcpListener;

    #[test]
    fn calls_come_back_and_their_errors_too() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let store = Patient::new(DirStore::open(folder.path()).unwrap(), listener.local_addr().unwrap());
        let name = ObjectName::new("packs/aa/1").unwrap();
        let put = name.clone();
        store.call(move |store| store.put(&put, b"bytes")).unwrap();
        let get = name.clone();
        assert_eq!(store.call(move |store| store.get(&get)).unwrap(), b"bytes");
        store.call(move |store| store.delete(&name)).unwrap();
        let none = ObjectName::new("packs/aa/2").unwrap();
        assert_eq!(store.call(move |store| store.get(&none)).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
