//! Taking an object in: piece by piece to the disk, checked against its digest, and only then under its name.

use crate::answer::{Answer, Refusal, bare};
use crate::document;
use crate::limits::{CHUNK_BYTES, Limits, OBJECT_BYTES_MAX};
use crate::record::Record;
use crate::room;
use crate::server::Server;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use imager_units::Result as StoreResult;
use netshare_store::{DirStore, ObjectName, Put, Upload};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

const DIGEST_HEADER: &str = "halfhour-blake3";

/// Where an object is to go, and for whom.
pub(crate) struct Place {
    pub(crate) store: Arc<DirStore>,
    pub(crate) name: ObjectName,
    /// Whose documents it may be, of a machine's token.
    pub(crate) machine: Option<String>,
    /// Where room has to stay free, for all but an admin.
    pub(crate) reserve: Option<PathBuf>,
    /// Whether the token is still one: a body may take hours.
    pub(crate) valid: Box<dyn Fn() -> StoreResult<bool> + Send>,
}

/// Takes the body of a request as the object at `place`.
///
/// # Errors
/// The refusal; the object is then not there.
pub(crate) async fn receive(
    server: &Server,
    place: Place,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let len = length(request.headers())?;
    let digest = digest(request.headers())?;
    let mut body = request.into_body();
    let mut receiver =
        Receiver { place, len, digest, hasher: blake3::Hasher::new(), head: Vec::new(), upload: None };
    let mut left = len;
    loop {
        let pieces = next_pieces(&mut body, left, &server.limits).await?;
        let came: u64 = pieces.iter().map(len_of).sum();
        record.received(came);
        left = left.checked_sub(came).ok_or_else(Refusal::cut_off)?;
        let take = move || {
            let put = receiver.take(&pieces, left == 0)?;
            Ok::<_, Refusal>((receiver, put))
        };
        let (next, put) = server.disk.call(take).await?;
        receiver = next;
        match put {
            Some(Put::Created) => return Ok(bare(StatusCode::CREATED)),
            Some(Put::Present) => return Ok(bare(StatusCode::OK)),
            None => {}
        }
    }
}

/// An object on its way in, as far as the disk is concerned.
struct Receiver {
    place: Place,
    len: u64,
    digest: blake3::Hash,
    hasher: blake3::Hasher,
    /// As much of the beginning as a document's check has to see.
    head: Vec<u8>,
    upload: Option<Upload<Arc<DirStore>>>,
}

impl Receiver {
    /// Takes the next pieces. The last ones are written only when all that came is what was promised.
    fn take(&mut self, pieces: &[Bytes], last: bool) -> Result<Option<Put>, Refusal> {
        for piece in pieces {
            self.hasher.update(piece);
            if self.place.machine.is_some() && document::is_one(&self.place.name) {
                let seen = document::SEEN_BYTES.saturating_sub(self.head.len()).min(piece.len());
                self.head.extend_from_slice(&piece[..seen]);
            }
        }
        if let Some(folder) = &self.place.reserve {
            room::check(folder, pieces.iter().map(len_of).sum())?;
        }
        if last {
            self.check()?;
        }
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => Upload::begin(Arc::clone(&self.place.store), self.place.name.clone())?,
        };
        pieces.iter().try_for_each(|piece| upload.write(piece))?;
        if last {
            return Ok(Some(upload.finish()?));
        }
        self.upload = Some(upload);
        Ok(None)
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.hasher.finalize() != self.digest {
            return Err(Refusal::other_bytes());
        }
        if !(self.place.valid)()? {
            return Err(Refusal::unknown_token());
        }
        let Some(machine) = &self.place.machine else { return Ok(()) };
        document::check(machine, &self.place.name, &self.head, self.len).map_err(Refusal::out_of_scope)
    }
}

/// The next pieces of a body of which `left` bytes are to come: about `CHUNK_BYTES` of them, all together at the end.
async fn next_pieces(body: &mut Incoming, left: u64, limits: &Limits) -> Result<Vec<Bytes>, Refusal> {
    let wanted = left.min(u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX));
    let (mut pieces, mut len, mut in_window) = (Vec::new(), 0, 0);
    let mut deadline = Instant::now() + limits.stall;
    while len < wanted {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                len += len_of(&data);
                in_window += len_of(&data);
                pieces.push(data);
            }
            Ok(Some(Err(_)) | None) => return Err(Refusal::cut_off()),
            Err(_) if in_window >= limits.least_bytes => {
                in_window = 0;
                deadline = Instant::now() + limits.stall;
            }
            Err(_) => return Err(Refusal::too_slow()),
        }
    }
    Ok(pieces)
}

fn len_of(piece: &Bytes) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

/// How long a body is.
///
/// # Errors
/// The refusal, where the client does not say or it is too long.
pub(crate) fn length(headers: &HeaderMap) -> Result<u64, Refusal> {
    let text = headers.get(CONTENT_LENGTH).ok_or_else(Refusal::no_length)?;
    let len = text.to_str().ok().and_then(|text| text.parse().ok());
    match len {
        None => Err(Refusal::malformed("Content-Length is no number")),
        Some(len) if len > OBJECT_BYTES_MAX => Err(Refusal::too_large(OBJECT_BYTES_MAX)),
        Some(len) => Ok(len),
    }
}

/// What the client says is the digest of the body.
///
/// # Errors
/// The refusal, where it says nothing that could be one.
pub(crate) fn digest(headers: &HeaderMap) -> Result<blake3::Hash, Refusal> {
    let mut values = headers.get_all(DIGEST_HEADER).iter();
    let only = values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes);
    let is_lower = |text: &[u8]| text.iter().all(|byte| !byte.is_ascii_uppercase());
    only.filter(|text| is_lower(text))
        .and_then(|text| blake3::Hash::from_hex(text).ok())
        .ok_or_else(|| Refusal::malformed("a put needs Halfhour-Blake3: 64 lower-case hex digits"))
}
