//! Opening the share a repository lies on, and telling its failures from those of disks.

use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use netshare_store::{DirStore, Entry, ObjectName, Put, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a repository lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(PathBuf);

/// Whether a share's folder is made when it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made.
    Create,
    /// That is an error.
    Fail,
}

impl Location {
    /// Reads a repository's URL: a path or `file://` URL.
    ///
    /// # Errors
    /// `Invalid` when it is neither.
    pub fn parse(url: &str) -> Result<Self> {
        let path = url.strip_prefix("file://").unwrap_or(url);
        if path.is_empty() || path.split('/').next().is_some_and(|scheme| scheme.ends_with(':')) {
            let what = format!("{url:?} is no repository this version can open: a path or file:// URL");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self(PathBuf::from(path)))
    }

    /// The folder on this machine.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the share.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Lost`.
    pub fn open(&self, missing: Missing) -> Result<Arc<dyn Store>> {
        let store = match missing {
            Missing::Create => DirStore::create(&self.0),
            Missing::Fail => DirStore::open(&self.0),
        };
        Ok(Arc::new(Share(store.map_err(lost)?)))
    }
}

/// A store whose I/O errors are the share's.
pub struct Share<S>(pub S);

fn lost(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Io => Error::with_source(ErrorKind::Lost, "the share failed", error),
        _ => error,
    }
}

impl<S: Store> Store for Share<S> {
    fn location(&self) -> String {
        self.0.location()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.0.put(name, bytes).map_err(lost)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.0.get(name).map_err(lost)
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.0.get_range(name, part).map_err(lost)
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.0.len(name).map_err(lost)
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.0.list(folder, each).map_err(lost)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.0.delete(name).map_err(lost)
    }
}
