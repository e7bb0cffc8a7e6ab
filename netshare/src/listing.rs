//! Listing a folder, a line an object, with a last line that says the listing is whole.

use crate::answer::{Answer, Payload, Refusal, with_body};
use crate::server::Server;
use crate::tokens::Grant;
use bytes::Bytes;
use hyper::StatusCode;
use imager_units::{Error, ErrorKind, Result as StoreResult};
use netshare_store::{DirStore, Entry, Store};
use serde::Serialize;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

const LINES: &str = "application/x-ndjson";
/// Lines are sent when there are so many bytes of them.
const BATCH_BYTES: usize = 32 << 10;

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    len: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<String>,
}

#[derive(Serialize)]
struct Last {
    end: bool,
    count: u64,
}

/// The answer to a GET of a folder's listing, for the holder of a token.
///
/// # Errors
/// The refusal, where too many are under way with the token.
pub(crate) fn send(
    server: &Server,
    store: Arc<DirStore>,
    folder: String,
    grant: &Grant,
) -> Result<Answer, Refusal> {
    let counted = server.listings.enter(grant.name.clone());
    let counted =
        counted.ok_or_else(|| Refusal::too_many("too many listings with this token are under way"))?;
    let scope = grant.scope.clone();
    let (sender, pieces) = mpsc::channel(1);
    let mut writer = Writer { sender, batch: Vec::new(), count: 0 };
    // Not through the gate to the disk: a client that reads slowly would keep others from it.
    tokio::task::spawn_blocking(move || {
        let listed = store.list(&folder, &mut |entry| {
            if scope.shows(&entry.name) { writer.entry(&entry) } else { Ok(()) }
        });
        match listed.and_then(|()| writer.finish()) {
            // Whose client is gone has nobody to tell.
            Err(error) if error.kind() != ErrorKind::Cancelled => {
                tracing::error!("listing {folder}: {:?}", Refusal::from(error).reason());
                drop(writer.sender.blocking_send(Err(io::Error::other("the share's disk failed"))));
            }
            _ => {}
        }
        drop(counted);
    });
    Ok(with_body(StatusCode::OK, LINES, Payload::coming(pieces, None)))
}

/// Writes lines from the thread that lists, which waits while the client is slow.
struct Writer {
    sender: mpsc::Sender<io::Result<Bytes>>,
    batch: Vec<u8>,
    count: u64,
}

impl Writer {
    fn entry(&mut self, entry: &Entry) -> StoreResult<()> {
        self.count += 1;
        let received = entry.received.and_then(|time| jiff::Timestamp::try_from(time).ok());
        let received = received.map(|time| time.to_string());
        self.line(&Line { name: entry.name.as_str(), len: entry.len.get(), received })?;
        if self.batch.len() < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    fn finish(&mut self) -> StoreResult<()> {
        self.line(&Last { end: true, count: self.count })?;
        self.flush()
    }

    fn line(&mut self, line: &impl Serialize) -> StoreResult<()> {
        serde_json::to_writer(&mut self.batch, line)
            .map_err(|error| Error::with_source(ErrorKind::Io, "encoding a line", error))?;
        self.batch.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> StoreResult<()> {
        let batch = Bytes::from(std::mem::take(&mut self.batch));
        self.sender
            .blocking_send(Ok(batch))
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the client is gone"))
    }
}
