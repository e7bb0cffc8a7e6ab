//! A capture as a network block device: disks and volumes to be read by whatever speaks NBD, without restoring them.
//!
//! `qemu`, `nbdcopy`, `nbd-client` and `nbdfuse` connect to it; the content comes from the repository as it is asked for,
//! each block checked against its id. Read-only. A thread a client, a mebibyte and the view's cache of memory; what a
//! client sends is never believed, and one that breaks the protocol is shown the door.

mod handshake;
mod socket;
mod transmission;
mod wire;

pub use socket::{Address, Listener};

use crate::monitor::Monitor;
use crate::repository::Repository;
use crate::view::{CaptureView, DiskView};
use imager_image::manifest::Manifest;
use imager_units::{ByteLen, Result};
use serde::Serialize;
use socket::Stream;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many clients are served at once.
const MOST_CLIENTS: usize = 64;
/// How long a client may take for each step until it has chosen an export.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something to connect to.
pub struct Export<'r> {
    /// What clients call it: `disk1`, `volume-2`, `volume-2:3`.
    pub name: String,
    /// What a person would call it.
    pub description: String,
    /// Its bytes.
    pub view: DiskView<'r>,
}

/// What was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ServeReport {
    /// How many clients came.
    pub clients: u64,
    /// How many bytes they were given, holes included.
    pub read_bytes: u64,
}

/// The exports of a capture: its disks, the first of which is also the one without a name, and what it has of volumes.
///
/// # Errors
/// `Corrupt`, `Unsupported` when the capture makes no sense.
pub fn exports<'r>(repository: &'r Repository, manifest: &Manifest) -> Result<Vec<Export<'r>>> {
    let capture = CaptureView::new(repository, manifest.clone());
    let machine = &manifest.header.machine;
    let mut exports = Vec::new();
    for disk in &manifest.disks {
        exports.push(Export {
            name: format!("disk{}", disk.number),
            description: format!("disk {} of {machine} at {}", disk.number, manifest.header.time),
            view: capture.disk(disk.number)?,
        });
    }
    for volume in manifest.volumes.iter().filter(|volume| volume.map.is_some()) {
        exports.push(Export {
            name: format!("volume-{}", volume.key),
            description: format!(
                "volume {} ({}) of {machine} at {}",
                volume.key, volume.name, manifest.header.time
            ),
            view: capture.volume(&volume.key)?,
        });
    }
    Ok(exports)
}

/// Serves clients until `monitor` says to stop; then every connection is ended.
///
/// # Errors
/// `Io` when the socket fails. What goes wrong with one client does not concern the others.
pub fn serve(listener: &Listener, exports: &[Export<'_>], monitor: &dyn Monitor) -> Result<ServeReport> {
    monitor.phase("serving", None);
    let server = Server { exports, monitor, clients: Mutex::default(), read: AtomicU64::new(0) };
    let mut number = 0;
    let outcome = std::thread::scope(|scope| {
        let outcome = loop {
            if monitor.cancelled() {
                break Ok(());
            }
            match listener.accept() {
                Ok(None) => {}
                Err(error) => break Err(error),
                Ok(Some(stream)) => {
                    number += 1;
                    let server = &server;
                    let admitted = server.admit(number, &stream);
                    let thread = std::thread::Builder::new().name(format!("nbd-{number}"));
                    let started = admitted
                        .and_then(|()| thread.spawn_scoped(scope, move || server.client(number, &stream)));
                    if let Err(error) = started {
                        tracing::warn!("client {number} is turned away: {error}");
                        server.forget(number);
                    }
                }
            }
        };
        server.hang_up();
        outcome
    });
    outcome.map(|()| ServeReport { clients: number, read_bytes: server.read.into_inner() })
}

/// A client's whole conversation, over whatever it comes.
///
/// # Errors
/// Those of the connection, and `InvalidData` when the client breaks the protocol.
#[cfg(feature = "fuzz")]
pub fn converse(mut stream: impl Read + Write, exports: &[Export<'_>]) -> io::Result<()> {
    match handshake::negotiate(&mut stream, exports)? {
        Some(session) => transmission::serve(stream, session, &|_| ()),
        None => Ok(()),
    }
}

struct Server<'s, 'r> {
    exports: &'s [Export<'r>],
    monitor: &'s dyn Monitor,
    /// The connections, so that they can be ended from here.
    clients: Mutex<BTreeMap<u64, Stream>>,
    read: AtomicU64,
}

impl Server<'_, '_> {
    fn clients(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Stream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, number: u64, stream: &Stream) -> io::Result<()> {
        let mut clients = self.clients();
        if clients.len() >= MOST_CLIENTS {
            return Err(io::Error::other("there are too many already"));
        }
        clients.insert(number, stream.try_clone()?);
        Ok(())
    }

    fn forget(&self, number: u64) {
        self.clients().remove(&number);
    }

    fn hang_up(&self) {
        self.clients().values().for_each(Stream::hang_up);
    }

    /// One client from beginning to end.
    fn client(&self, number: u64, stream: &Stream) {
        let leave = Leave(self, number);
        tracing::info!("client {number} came");
        match self.talk(stream) {
            Ok(()) => tracing::info!("client {number} went"),
            Err(error) => tracing::info!("client {number} was cut off: {error}"),
        }
        stream.hang_up();
        drop(leave);
    }

    fn talk(&self, stream: &Stream) -> io::Result<()> {
        stream.prepare(Some(PATIENCE))?;
        let mut duplex = Duplex { reader: BufReader::new(stream), writer: stream };
        let Some(session) = handshake::negotiate(&mut duplex, self.exports)? else { return Ok(()) };
        // A mounted disk may be idle for days.
        stream.prepare(None)?;
        let sent = |len: ByteLen| {
            self.read.fetch_add(len.get(), Ordering::Relaxed);
            self.monitor.advance(len);
        };
        transmission::serve(&mut duplex, session, &sent)
    }
}

/// Takes a client off the list however its thread ends.
struct Leave<'s, 'e, 'r>(&'s Server<'e, 'r>, u64);

impl Drop for Leave<'_, '_, '_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

/// Both directions of a connection, requests read ahead.
struct Duplex<'c> {
    reader: BufReader<&'c Stream>,
    writer: &'c Stream,
}

impl Read for Duplex<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl Write for Duplex<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
