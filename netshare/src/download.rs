//! Giving an object out: whole or a range, read ahead by one piece so that disk and network work at once.

use crate::answer::{Answer, Payload, Refusal, bare, tell_len, with_body};
use crate::limits::CHUNK_BYTES;
use crate::server::Server;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use imager_units::{Error, Result as StoreResult};
use netshare_store::{DirStore, ObjectName, Store};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use tokio::sync::mpsc;

const OCTETS: &str = "application/octet-stream";

/// The answer to a GET.
///
/// # Errors
/// The refusal.
pub(crate) async fn send(
    server: &Server,
    store: Arc<DirStore>,
    name: ObjectName,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    // What is malformed is refused before the disk is touched.
    range(headers)?;
    let (file, len) = server.disk.call(move || store.file(&name)).await?;
    send_file(server, file, len.get(), headers).await
}

/// The answer to a GET for a file of `len` bytes that is open.
///
/// # Errors
/// The refusal.
pub(crate) async fn send_file(
    server: &Server,
    file: File,
    len: u64,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let range = range(headers)?;
    let (start, part) = match range {
        None => (0, len),
        Some((_, last)) if last >= len => return Err(Refusal::past_the_end(len)),
        Some((first, last)) => (first, last - first + 1),
    };
    let payload = payload(server, file, start, part).await?;
    let Some((first, last)) = range else { return Ok(with_body(StatusCode::OK, OCTETS, payload)) };
    let mut answer = with_body(StatusCode::PARTIAL_CONTENT, OCTETS, payload);
    if let Ok(value) = HeaderValue::from_str(&format!("bytes {first}-{last}/{len}")) {
        answer.headers_mut().insert(CONTENT_RANGE, value);
    }
    Ok(answer)
}

/// The answer to a HEAD.
///
/// # Errors
/// The refusal.
pub(crate) async fn tell(server: &Server, store: Arc<DirStore>, name: ObjectName) -> Result<Answer, Refusal> {
    let len = server.disk.call(move || store.len(&name)).await?;
    let len = len.ok_or_else(|| Refusal::from(Error::new(imager_units::ErrorKind::NotFound, "no object")))?;
    Ok(length(len.get()))
}

/// The answer to a HEAD for what has `len` bytes.
pub(crate) fn length(len: u64) -> Answer {
    let mut answer = bare(StatusCode::OK);
    tell_len(&mut answer, len);
    answer
}

async fn payload(server: &Server, file: File, start: u64, len: u64) -> Result<Payload, Refusal> {
    let first = read(server, file, Some(start), len).await?;
    let (file, piece) = first;
    let came = u64::try_from(piece.len()).unwrap_or(u64::MAX);
    if came == len {
        return Ok(Payload::whole(piece));
    }
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(pump(server.clone(), file, piece, len - came, sender));
    Ok(Payload::coming(pieces, Some(len)))
}

/// Sends what is left of a file until the client has it, is gone, or the disk fails: then the answer breaks off.
async fn pump(
    server: Server,
    file: File,
    piece: Bytes,
    mut left: u64,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let (mut file, mut piece) = (file, piece);
    loop {
        if sender.send(Ok(piece)).await.is_err() || left == 0 {
            return;
        }
        match read(&server, file, None, left).await {
            Ok((next, bytes)) => {
                left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                (file, piece) = (next, bytes);
            }
            Err(refusal) => return drop(sender.send(Err(io::Error::other(refusal.reason()))).await),
        }
    }
}

/// The next piece of a file of which `left` bytes are wanted.
async fn read(server: &Server, file: File, at: Option<u64>, left: u64) -> Result<(File, Bytes), Refusal> {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
    let read = move || -> StoreResult<_> {
        let mut file = file;
        let mut bytes = vec![0; len];
        let came =
            at.map_or(Ok(0), |at| file.seek(SeekFrom::Start(at))).and_then(|_| file.read_exact(&mut bytes));
        came.map_err(|error| Error::io("reading an object", error))?;
        Ok((file, Bytes::from(bytes)))
    };
    server.disk.call(read).await
}

/// The one range that is asked for: its first and its last byte.
fn range(headers: &HeaderMap) -> Result<Option<(u64, u64)>, Refusal> {
    let mut values = headers.get_all(RANGE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    let parsed = value.to_str().ok().and_then(|text| text.strip_prefix("bytes=")).and_then(|text| {
        let (first, last) = text.split_once('-')?;
        Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
    });
    match parsed {
        Some(range) if values.next().is_none() => Ok(Some(range)),
        _ => Err(Refusal::malformed("Range has to be one: bytes=FIRST-LAST")),
    }
}

#[cfg(test)]
mod tests {
    use super::range;
    use hyper::header::{HeaderMap, HeaderValue, RANGE};

    #[test]
    fn one_range_with_both_ends_is_known() {
        let read = |text: &str| {
            range(&HeaderMap::from_iter([(RANGE, HeaderValue::from_str(text).unwrap())])).ok().flatten()
        };
        assert_eq!(read("bytes=0-0"), Some((0, 0)));
        assert_eq!(read("bytes=5-18446744073709551615"), Some((5, u64::MAX)));
        let others =
            ["bytes=-5", "bytes=5-", "bytes=5-4", "bytes=0-1,3-4", "bytes=+1-2", "octets=0-1", "bytes=a-b"];
        for other in others {
            assert_eq!(read(other), None, "{other}");
        }
        assert!(range(&HeaderMap::new()).unwrap().is_none());
    }
}
