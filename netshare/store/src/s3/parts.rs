//! Large objects in parts, several at once: over a long line one request after the other is slow, and what broke off is
//! sent again alone.
//!
//! An upload shows nothing before it is completed. Completing carries the same condition as a put, but not every service
//! that honours it on a put does so here (Ceph 16 does not). So only an object goes in parts whose name is the digest
//! of its bytes, which packs are and which is checked. What is there already is looked for first, and never replaced.
//! Whoever puts the name between that look and the completion is replaced where the condition is not honoured: by the
//! same bytes, or, if his were not what the name says, by those that are.
//!
//! Nothing is tried again here either. A put that failed in a way that may pass is remembered, and goes on where it was
//! when it is called again; if the answer to the completion was lost, that call finds the object. Any other failure
//! aborts the upload, and so does the end of the store. A process that is killed leaves its parts behind, which nothing
//! shows and the bucket's owner pays for; no machine can tell them from another's that is at work, so it is for a
//! lifecycle rule of the bucket (`AbortIncompleteMultipartUpload`, after some days) to remove them.

use super::{S3Store, TRIES, wire};
use crate::{ObjectName, Put};
use imager_units::{Error, ErrorKind, Result};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt, PutPayload};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// Services want 5 MiB at least, and some all parts but the last of one size.
pub(super) const PART_BYTES: usize = 8 << 20;
/// As many as a pack has. What is being sent is copied: in all one pack.
const PARTS_AT_ONCE: usize = 4;
/// How long the end of the store waits for uploads to be aborted.
const FAREWELL: Duration = Duration::from_secs(2);

/// An upload that began. Nothing of it is to be seen.
pub(super) struct Upload {
    path: Path,
    id: MultipartId,
    /// The service's names for the parts it has.
    parts: Vec<Option<PartId>>,
    /// How many are sent at once. Fewer after each failure: over a line that breaks off again and again, one after the
    /// other comes through where all at once never do.
    at_once: usize,
}

/// How an upload ended.
enum End {
    Done,
    /// The service does not know it any more, or somebody else has the name: to be looked at.
    Gone,
    /// The service does not do this.
    Refused,
}

/// Whether an object may go in parts: it makes more than one, and its name says what is in it.
pub(super) fn is_for_parts(name: &ObjectName, bytes: &[u8]) -> bool {
    bytes.len() > PART_BYTES && name.leaf() == blake3::hash(bytes).to_hex().as_str()
}

impl S3Store {
    /// Puts an object that [`is_for_parts`]; nothing where the service does not take parts.
    pub(super) fn put_in_parts(&self, name: &ObjectName, bytes: &[u8]) -> Result<Option<Put>> {
        let path = self.path(name.as_str());
        let mut upload = self.remembered(&path);
        for _ in 0..TRIES {
            match self.look_and_begin(name, &path, bytes, &mut upload) {
                Ok(true) => {
                    self.abort(upload);
                    return Ok(Some(Put::Present));
                }
                Ok(false) => {}
                Err(error) => return Err(self.broken_off(upload, error)),
            }
            let Some(begun) = &mut upload else {
                self.takes_parts.store(false, Ordering::SeqCst);
                return Ok(None);
            };
            match self.send(name, bytes, begun) {
                Ok(End::Done) => return Ok(Some(Put::Created)),
                Ok(End::Gone) => self.abort(upload.take()),
                Ok(End::Refused) => {
                    self.abort(upload);
                    self.takes_parts.store(false, Ordering::SeqCst);
                    return Ok(None);
                }
                Err(error) => return Err(self.broken_off(upload, error)),
            }
        }
        let what = format!("{name} in {} is created and deleted by others again and again", self.url);
        Err(Error::new(ErrorKind::Io, what))
    }

    /// Whether the object is there with just these bytes. If it is not there at all, an upload was begun, both asked at
    /// once; none where the service does not know how.
    fn look_and_begin(
        &self,
        name: &ObjectName,
        path: &Path,
        bytes: &[u8],
        upload: &mut Option<Upload>,
    ) -> Result<bool> {
        let what = format!("looking at {name}");
        let there = if upload.is_some() {
            self.head(name)?
        } else {
            let both = async {
                Ok(tokio::join!(self.client.head(path), MultipartStore::create_multipart(&self.client, path)))
            };
            let (there, begun) = self.wait(&what, 0, both)?;
            let begun =
                begun.map_err(|error| wire::error(format!("beginning {name} in {}", self.url), error));
            match begun {
                Ok(id) => {
                    let parts = vec![None; bytes.len().div_ceil(PART_BYTES)];
                    *upload = Some(Upload { path: path.clone(), id, parts, at_once: PARTS_AT_ONCE });
                }
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
                    tracing::info!("{} takes no parts: {error}", self.url);
                }
                // Such as a conflict, which says nothing of what is there.
                Err(error) if error.kind() == ErrorKind::Exists => {
                    return Err(Error::with_source(ErrorKind::Io, what, error));
                }
                Err(error) => return Err(error),
            }
            match there.map_err(|error| wire::error(format!("{what} in {}", self.url), error)) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                there => Some(there?),
            }
        };
        there.map_or(Ok(false), |there| self.is_same(name, bytes, &there))
    }

    /// Sends what is lacking, then makes it an object.
    fn send(&self, name: &ObjectName, bytes: &[u8], upload: &mut Upload) -> Result<End> {
        let end = |error: Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Exists => Ok(End::Gone),
            ErrorKind::Unsupported => Ok(End::Refused),
            _ => Err(error),
        };
        let sent = self.wait(&format!("storing {name}"), bytes.len() as u64, self.send_parts(bytes, upload));
        if let Err(error) = sent {
            return end(error);
        }
        let parts = upload.parts.iter().flatten().cloned().collect();
        let completed = self.client.complete_multipart(&upload.path, &upload.id, parts);
        match self.wait(&format!("completing {name}"), 0, completed) {
            Ok(_) => Ok(End::Done),
            Err(error) => end(error),
        }
    }

    /// Sends the parts that are lacking. After a failure no further one begins, and those under way come to their end.
    async fn send_parts(&self, bytes: &[u8], upload: &mut Upload) -> object_store::Result<()> {
        let mut lacking = bytes.chunks(PART_BYTES).enumerate();
        let (mut sending, mut failed) = (JoinSet::new(), None);
        loop {
            while failed.is_none() && sending.len() < upload.at_once {
                let Some((at, part)) = lacking.find(|(at, _)| matches!(upload.parts.get(*at), Some(None)))
                else {
                    break;
                };
                let (client, path, id) = (self.client.clone(), upload.path.clone(), upload.id.clone());
                let part = PutPayload::from(part.to_vec());
                sending.spawn(async move { (at, client.put_part(&path, &id, at, part).await) });
            }
            match sending.join_next().await {
                None => return failed.map_or(Ok(()), Err),
                Some(Ok((at, Ok(part)))) => {
                    upload.parts.get_mut(at).into_iter().for_each(|p| *p = Some(part.clone()))
                }
                Some(Ok((_, Err(error)))) => failed = Some(error),
                Some(Err(error)) => failed = Some(error.into()),
            }
        }
    }

    /// Remembers an upload that failed in a way that may pass, and aborts any other.
    fn broken_off(&self, upload: Option<Upload>, error: Error) -> Error {
        if error.kind() == ErrorKind::Io {
            let fewer = upload.map(|upload| Upload { at_once: (upload.at_once / 2).max(1), ..upload });
            self.uploads.lock().unwrap_or_else(PoisonError::into_inner).extend(fewer);
        } else {
            self.abort(upload);
        }
        error
    }

    fn remembered(&self, path: &Path) -> Option<Upload> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let at = uploads.iter().position(|upload| upload.path == *path)?;
        Some(uploads.swap_remove(at))
    }

    /// As far as it can be done: what stays behind is seen by nobody.
    fn abort(&self, uploads: impl IntoIterator<Item = Upload>) {
        for upload in uploads {
            let aborted = self.client.abort_multipart(&upload.path, &upload.id);
            match self.wait(&format!("aborting {}", upload.path), 0, aborted) {
                // Nobody knows it any more, as it should be.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => tracing::info!("parts of {} stay behind: {error}", upload.path),
                Ok(()) => {}
            }
        }
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        let uploads = std::mem::take(self.uploads.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !uploads.is_empty() {
            self.silence = self.silence.min(FAREWELL);
            self.abort(uploads);
        }
    }
}
