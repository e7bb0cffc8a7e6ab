//! How an object becomes visible: all of it or nothing, durable, and never in the place of another.
//!
//! The bytes are written to a temporary file in the same folder and synced, the file is linked to its name (which fails
//! if the name is taken, and is atomic for every reader), and the folder is synced. Where there are no hard links
//! (SMB, FAT) nothing is both atomic and exclusive. There what is named by its content is renamed into place,
//! and everything else is written under its own name, opened exclusively: a reader may meet a part of it, which does
//! not verify, but no two writers can both believe they won.

use super::{DirStore, is_absent, unless_absent};
use crate::ObjectName;
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Folders whose objects are named by their content, or by an id of their own.
const NAMED_BY_CONTENT: [&str; 2] = ["packs", "index"];

const CHUNK_BYTES: usize = 1 << 20;

impl DirStore {
    /// Whether the object is there with just these bytes, which are then durable.
    pub(super) fn is_present(&self, name: &ObjectName, bytes: &[u8]) -> Result<bool> {
        let path = self.path(name);
        let fail =
            |error| Error::io(format!("comparing {} with what is to be stored", path.display()), error);
        let Some(mut file) = unless_absent(File::open(&path)).map_err(fail)? else {
            return Ok(false);
        };
        if !holds(&mut file, bytes).map_err(fail)? {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("{} is there with other content", path.display()),
            ));
        }
        // Whoever wrote it may not have come to this yet.
        file.sync_all().map_err(fail)?;
        path.parent().map_or(Ok(()), sync_folder)?;
        Ok(true)
    }

    /// Makes a new object; not done when the name was taken meanwhile, or its folder removed.
    pub(super) fn publish(&self, name: &ObjectName, bytes: &[u8]) -> Result<bool> {
        let folder = self.settle(name)?;
        let path = self.path(name);
        let say = || format!("storing {name} in {}", self.root.display());
        let temporary = match Temporary::write(&folder, bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lock().clear();
                return Ok(false);
            }
            written => written.context(say)?,
        };
        let published = match self.link(&temporary.path, &path) {
            Err(error) if has_no_links(&error) => {
                if name.segments().next().is_some_and(|first| NAMED_BY_CONTENT.contains(&first)) {
                    fs::rename(&temporary.path, &path)
                } else {
                    write_exclusively(&path, bytes)
                }
            }
            linked => linked,
        };
        drop(temporary);
        match published {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            published => published.context(say)?,
        }
        sync_folder(&folder)?;
        Ok(true)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.links {
            super::Links::Tried => fs::hard_link(from, to),
            #[cfg(test)]
            super::Links::Refused => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// A temporary file, removed when dropped. Listings pass over its name; the name tells when and by which process it
/// was made, so that what a dead process left can be found.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn write(folder: &Path, bytes: &[u8]) -> io::Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let random = std::hash::RandomState::new().build_hasher().finish();
        let path = folder.join(format!(".tmp-{seconds}-{}-{random:016x}", std::process::id()));
        let mut file = File::create_new(&path)?;
        let temporary = Self { path };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if !is_absent(&error) => {
                tracing::warn!("a temporary file stays behind: {}: {error}", self.path.display());
            }
            _ => {}
        }
    }
}

fn write_exclusively(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // The name is ours, so what is under it is ours to remove; should that fail too, the part does not verify.
        drop(fs::remove_file(path));
    }
    written
}

/// Makes the entries of a folder durable, where the file system knows such a thing.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced.context(|| format!("syncing the folder {}", folder.display())),
    }
}

fn holds(file: &mut File, bytes: &[u8]) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || u64::try_from(bytes.len()) != Ok(metadata.len()) {
        return Ok(false);
    }
    let mut buffer = vec![0; CHUNK_BYTES.min(bytes.len())];
    for chunk in bytes.chunks(CHUNK_BYTES) {
        let read = &mut buffer[..chunk.len()];
        file.read_exact(read)?;
        if read != chunk {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What file systems answer that have no hard links (EPERM, EOPNOTSUPP, ENOSYS, EINVAL), or no more of them (EMLINK).
fn has_no_links(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), PermissionDenied | Unsupported | InvalidInput | TooManyLinks)
}
