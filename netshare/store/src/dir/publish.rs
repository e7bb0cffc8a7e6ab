//! How an object becomes visible: all of it or nothing, durable, and never in the place of another.
//!
//! The bytes are written to a temporary file in the same folder and synced, the file is linked to its name (which fails
//! if the name is taken, and is atomic for every reader), and the folder is synced. Where there are no hard links
//! (SMB, FAT) nothing that every file system has is both atomic and exclusive. There what is named by its content is renamed
//! into place, without replacing anything where that can be asked for (`RENAME_NOREPLACE`),
//! and everything else is written under its own name, opened exclusively: a reader may meet a part of it, which does
//! not verify, but no two writers can both believe they won.

use super::{DirStore, Made, is_absent};
use crate::ObjectName;
use imager_units::{Context, ErrorKind, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Folders whose objects are named by their content, or by an id of their own.
const NAMED_BY_CONTENT: [&str; 2] = ["packs", "index"];

/// What the names of temporary files start with.
pub(super) const PREFIX: &str = ".tmp-";

impl DirStore {
    /// A temporary file beside where `name` will be; `None` when somebody removed the folder meanwhile.
    pub(super) fn temporary(&self, name: &ObjectName) -> Result<Option<Temporary>> {
        let say = || format!("storing {name} in {}", self.root.display());
        let create = |(folder, made): (PathBuf, Made)| Temporary::create(&folder, made).context(say);
        match self.settle(name).and_then(create) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.lock().retain(|_, is_new| *is_new);
                Ok(None)
            }
            created => created.map(Some),
        }
    }

    /// Makes a synced temporary file an object; not done when the name was taken meanwhile.
    pub(super) fn publish(&self, name: &ObjectName, temporary: &mut Temporary) -> Result<bool> {
        let path = self.path(name);
        let published = match self.link(&temporary.path, &path) {
            Err(error) if has_no_links(&error) => {
                if name.segments().next().is_some_and(|first| NAMED_BY_CONTENT.contains(&first)) {
                    rename(&temporary.path, &path)
                } else {
                    copy_exclusively(&mut temporary.file, &path)
                }
            }
            linked => linked,
        };
        match published {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            published => published.context(|| format!("storing {name} in {}", self.shown))?,
        }
        for folder in temporary.made.0.drain(..) {
            self.lock().entry(folder).and_modify(|is_new| *is_new = false);
        }
        path.parent().map_or(Ok(()), sync_folder)?;
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

/// A temporary file, removed when dropped, and with it the folders that were made for it. Listings pass over its name; the name tells when and by which process it was made, so that what a dead process left can be found.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    made: Made,
}

impl Temporary {
    fn create(folder: &Path, made: Made) -> io::Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let random = std::hash::RandomState::new().build_hasher().finish();
        let path = folder.join(format!("{PREFIX}{seconds}-{}-{random:016x}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { path, file, made })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
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

/// Renames to a name that is free. Where the file system cannot be asked for that, the rename takes the place of whatever
/// came under the name meanwhile. What is lost then: of two who store different bytes under one name both are told
/// that they did. Objects named by their content are told apart from others by every reader, so the worst is that one
/// pack or index is missing, which shows as damage and not as wrong data.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

fn copy_exclusively(from: &mut File, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let written = from.rewind().and_then(|()| io::copy(from, &mut file)).and_then(|_| file.sync_all());
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

/// What file systems answer that have no hard links (EPERM, EOPNOTSUPP, ENOSYS, EINVAL), or no more of them (EMLINK).
fn has_no_links(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), PermissionDenied | Unsupported | InvalidInput | TooManyLinks)
}
