//! What one prune leaves for the next: which packs it tombstoned, and who was under way then.

use crate::repository::{Repository, object};
use imager_image::repository::{decode_json, encode_json};
use imager_image::{CaptureId, PackId, names};
use imager_units::{ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How many packs one record lists: what is more waits for the next prune.
pub(super) const MOST_LISTED: usize = 200_000;

/// One prune's record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(skip)]
    pub(super) name: String,
    /// Packs whose tombstones were there before the leases were listed.
    pub(super) tombstones: HashSet<PackId>,
    /// Packs that nobody needed and that a capture under way may have written.
    pub(super) orphans: HashSet<PackId>,
    /// The captures that were under way.
    pub(super) leases: Vec<CaptureId>,
}

impl Record {
    /// Whether all who were under way are over.
    pub(super) fn is_over(&self, live: &HashSet<CaptureId>) -> bool {
        self.leases.iter().all(|lease| !live.contains(lease))
    }
}

/// Every record, and the names of those that cannot be read: as if they had never been put.
///
/// # Errors
/// `Io`, `Denied` from the share.
pub(super) fn list(repository: &Repository) -> Result<(Vec<Record>, Vec<String>)> {
    let mut found = Vec::new();
    repository.store().list(names::PRUNES, &mut |entry| {
        if names::capture_of(names::PRUNES, entry.name.as_str()).is_some() {
            found.push(entry.name);
        }
        Ok(())
    })?;
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for name in found {
        let read = repository.store().get(&name).and_then(|bytes| decode_json(&bytes, "a prune's record"));
        match read {
            Ok(record) => records.push(Record { name: name.to_string(), ..record }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => damaged.push(name.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok((records, damaged))
}

/// Puts a new record.
///
/// # Errors
/// The share's.
pub(super) fn put(repository: &Repository, record: &Record) -> Result<()> {
    let name = names::prune(CaptureId::random()?);
    repository.store().put(&object(name)?, &encode_json(record)?).map(drop)
}
