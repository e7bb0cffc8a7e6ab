//! Captures under way, as their leases tell.

use crate::clock;
use crate::repository::{Repository, object};
use imager_image::manifest::{Header, Kind};
use imager_image::{CaptureId, names};
use imager_units::{Context, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

#[derive(Deserialize)]
struct Document {
    manifest: String,
}

/// A capture that has begun.
#[derive(Clone, Debug, Serialize)]
pub struct Lease {
    /// Its id.
    pub capture: CaptureId,
    /// Where its manifest will be; `None` when the lease is damaged.
    pub manifest: Option<String>,
    /// Whose capture.
    pub machine: Option<String>,
    /// When the share received the lease, where it tells.
    pub received: Option<String>,
    /// Whether it is over: published, or revoked.
    pub is_over: bool,
    /// How many bytes cannot come back before it is over.
    pub holds_back_bytes: u64,
}

/// Every lease there is, and whether it is over.
///
/// # Errors
/// `Io`, `Denied` from the share.
pub(super) fn list(repository: &Repository) -> Result<Vec<Lease>> {
    let mut found = Vec::new();
    repository.store().list(names::LEASES, &mut |entry| {
        found.extend(names::capture_of(names::LEASES, entry.name.as_str()).map(|id| (id, entry.received)));
        Ok(())
    })?;
    let mut leases = Vec::new();
    for (id, received) in found {
        let Some(lease) = read(repository, id, received)? else { continue };
        leases.push(lease);
    }
    leases.sort_by_key(|lease| lease.capture);
    Ok(leases)
}

/// One lease; `None` when it went meanwhile, which only those do that are over.
fn read(repository: &Repository, id: CaptureId, received: Option<SystemTime>) -> Result<Option<Lease>> {
    let bytes = match repository.store().get(&object(names::lease(id))?) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let manifest = serde_json::from_slice::<Document>(&bytes).ok().map(|document| document.manifest);
    let manifest =
        manifest.filter(|name| names::manifest_parts(name).is_some_and(|(_, _, named)| named == id));
    let is_over = match &manifest {
        Some(name) => repository.store().len(&object(name.clone())?)?.is_some(),
        None => false,
    };
    let machine = manifest.as_deref().and_then(names::manifest_parts).map(|(machine, ..)| machine.to_owned());
    let received = received.and_then(|time| jiff::Timestamp::try_from(time).ok()).map(clock::rfc3339);
    Ok(Some(Lease { capture: id, manifest, machine, received, is_over, holds_back_bytes: 0 }))
}

/// Makes sure that a capture which has begun never appears, so that nothing has to wait for it.
///
/// # Errors
/// `NotFound` when there is no such lease; `Io`, `Denied` from the share. That the capture has published meanwhile is no
/// error: then it is over, too.
pub fn break_lease(repository: &Repository, id: CaptureId) -> Result<()> {
    let lease = read(repository, id, None)?;
    let lease =
        lease.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no lease of capture {id}")))?;
    let Some(name) = lease.manifest else {
        // Whoever put it failed in the middle of that, on a share that does not put whole objects, and wrote nothing else.
        return repository.store().delete(&object(names::lease(id))?);
    };
    let revoked = revocation(&name)?;
    match repository.store().put(&object(name.clone())?, &revoked) {
        Err(error) if error.kind() == ErrorKind::Exists => Ok(()),
        put => put.map(drop).context(|| format!("revoking {name}")),
    }
}

/// The document that takes a manifest's name for good.
fn revocation(name: &str) -> Result<Vec<u8>> {
    let none = || Error::corrupt(format!("{name} is no manifest's name"));
    let (machine, time, id) = names::manifest_parts(name).ok_or_else(none)?;
    let header = Header {
        machine: machine.to_owned(),
        time: clock::rfc3339(clock::parse(time)?),
        kind: Kind::Full,
        id,
        sequence: 0,
        previous: None,
        revoked: false,
    };
    header.revocation()
}
