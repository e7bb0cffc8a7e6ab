//! What comes back: bodies of a known length, bounded, in a time that is bounded too.

use super::failure::{broken, silent, strange};
use bytes::Bytes;
use imager_units::Result;
use reqwest::Response;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The largest object, hence the largest body that is taken.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;
const FAILURE_BYTES_MAX: usize = 4 << 10;
/// A server that gives less than this in the time of one silence is taken for silent.
const TRICKLE_BYTES: usize = 4 << 10;

/// The body of exactly `len` bytes.
pub(super) async fn exactly(
    mut response: Response,
    len: usize,
    silence: Duration,
    what: &dyn Fn() -> String,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(len).is_err() {
        return Err(imager_units::Error::new(imager_units::ErrorKind::OutOfSpace, what()));
    }
    let mut pace = Pace::new(silence);
    while let Some(piece) = pace.next(&mut response, what).await? {
        if piece.len() > len - bytes.len() {
            return Err(strange(what(), format!("the server sends more than the {len} bytes it should")));
        }
        bytes.extend_from_slice(&piece);
    }
    if bytes.len() != len {
        return Err(strange(what(), format!("the server sends {} bytes instead of {len}", bytes.len())));
    }
    Ok(bytes)
}

/// The beginning of the body of a failure; what does not come is left out.
pub(super) async fn beginning(mut response: Response, silence: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pace = Pace::new(silence);
    while bytes.len() < FAILURE_BYTES_MAX {
        match pace.next(&mut response, &String::new).await {
            Ok(Some(piece)) => bytes.extend_from_slice(piece.get(..FAILURE_BYTES_MAX).unwrap_or(&piece)),
            _ => break,
        }
    }
    bytes.truncate(FAILURE_BYTES_MAX);
    bytes
}

/// How fast a body comes. A server may be slow, but not so slow that it only keeps us from giving up.
pub(super) struct Pace {
    silence: Duration,
    since: Instant,
    bytes: usize,
}

impl Pace {
    pub(super) fn new(silence: Duration) -> Self {
        Self { silence, since: Instant::now(), bytes: 0 }
    }

    /// The next piece of the body; `None` behind the last.
    pub(super) async fn next(
        &mut self,
        response: &mut Response,
        what: &dyn Fn() -> String,
    ) -> Result<Option<Bytes>> {
        let piece = timeout(self.silence, response.chunk()).await;
        let piece =
            piece.map_err(|_| silent(what(), self.silence))?.map_err(|error| broken(what(), error))?;
        self.bytes += piece.as_ref().map_or(0, Bytes::len);
        if piece.is_some() && self.since.elapsed() >= self.silence {
            if self.bytes < TRICKLE_BYTES {
                return Err(silent(what(), self.silence));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(piece)
    }

    /// Does `work` with what came; the time it takes is ours, not the server's.
    pub(super) fn aside<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.since += start.elapsed();
        result
    }
}
