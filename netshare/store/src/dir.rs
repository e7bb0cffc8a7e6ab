//! A share that is a folder: local, or mounted over SMB or NFS.
//!
//! How an object becomes visible is in `publish`. A mounted share may go away under us and leave an empty folder of the
//! local disk in its place. An empty listing would then read as "nothing is stored", and a put would fill the system
//! disk; so the file system that was there at the start is remembered, and any other is an error.

mod publish;
mod sweep;
mod upload;

pub use sweep::sweep_unfinished;
pub use upload::Upload;

use crate::{Entry, ObjectName, Put, Store, name};
use imager_units::{ByteLen, Context, Error, ErrorKind, Extent, Result};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How often a put tries again when others create and delete the same name meanwhile.
const TRIES: usize = 16;

/// How many folders are remembered: more than a repository has.
const MOST_SETTLED: usize = 4096;

/// A folder as a share.
#[derive(Debug)]
pub struct DirStore {
    root: PathBuf,
    /// What messages call it.
    shown: String,
    /// Held open so that an automounter does not take the share away between two calls, and to look there again.
    handle: File,
    device: u64,
    /// Folders that this process knows to be durable, and whether they may go again: it made them, and no object came.
    settled: Mutex<HashMap<PathBuf, bool>>,
    links: Links,
    receipts: Receipts,
}

/// Whether the times of files tell when they were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receipts {
    /// Whoever writes may set them.
    Untold,
    /// Only this process writes here, for others.
    Told,
}

/// Whether hard links are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    Tried,
    /// As on a share that has none; for tests.
    #[cfg(test)]
    Refused,
}

impl DirStore {
    /// The share at `path`, which has to be there.
    ///
    /// # Errors
    /// `NotFound` when it is not, `Invalid` when it is no folder; `Denied`, `Io` from the system.
    pub fn open(path: &Path) -> Result<Self> {
        let say = || format!("opening the share {}", path.display());
        let root = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = format!("there is no folder {} (is the share mounted?)", path.display());
                return Err(Error::with_source(ErrorKind::NotFound, what, error));
            }
            found => found.context(say)?,
        };
        // Looked at before it is opened: opening a pipe waits for whoever is at its other end.
        if !fs::metadata(&root).context(say)?.is_dir() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} is no folder", path.display())));
        }
        let shown = root.display().to_string();
        Self::open_as(root, shown)
    }

    /// The folder at `root` just as it is spelt, under another name for messages: for a place that has no other path.
    pub(crate) fn open_as(root: PathBuf, shown: String) -> Result<Self> {
        let say = || format!("opening the share {shown}");
        let handle = File::open(&root).context(say)?;
        let device = handle.metadata().context(say)?.dev();
        let (settled, links, receipts) = (Mutex::default(), Links::Tried, Receipts::Untold);
        Ok(Self { root, shown, handle, device, settled, links, receipts })
    }

    /// Where its files are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The same, for a server in front of it: nobody else writes there, so listings tell when each object came.
    #[must_use]
    pub fn with_receipts(self) -> Self {
        Self { receipts: Receipts::Told, ..self }
    }

    /// The share at `path`, which is created with all folders above it where they are missing.
    ///
    /// # Errors
    /// `Denied`, `OutOfSpace`, `Io` from the system.
    pub fn create(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context(|| format!("creating {}", path.display()))?;
        let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        missing.into_iter().rev().try_for_each(|folder| create_folder(folder).map(drop))?;
        Self::open(&path)
    }

    /// An object, open at its beginning, and its length.
    ///
    /// # Errors
    /// `NotFound`; `Io`, `Denied` from the share.
    pub fn file(&self, name: &ObjectName) -> Result<(File, ByteLen)> {
        let fail = |error| self.failed("reading", name, error);
        let file = self.open_file(name).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        Ok((file, ByteLen::new(metadata.len())))
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn open_file(&self, name: &ObjectName) -> io::Result<File> {
        match File::open(self.path(name)) {
            Err(error) if is_absent(&error) && self.check_mounted().is_ok() => self.open_again(name, error),
            found => found,
        }
    }

    /// Looks a second time for what was not there. The share may have been away for just that moment, and then nothing
    /// is known of the object; so the second look goes by the folder that was opened at the start, which no mount covers.
    fn open_again(&self, name: &ObjectName, absent: io::Error) -> io::Result<File> {
        let found =
            rustix::fs::openat(&self.handle, name.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        match found.map_err(io::Error::from) {
            Ok(file) => Ok(file.into()),
            Err(error) if is_absent(&error) => Err(absent),
            // That folder may be of a mount that is gone for good; then it tells nothing.
            Err(_) => File::open(self.path(name)),
        }
    }

    /// Checks that the share is still the one that was opened.
    fn check_mounted(&self) -> Result<()> {
        let gone = match fs::metadata(&self.root) {
            Ok(metadata) if metadata.dev() == self.device => return Ok(()),
            Ok(_) => io::Error::other("another file system is mounted there now"),
            Err(error) => error,
        };
        Err(Error::with_source(ErrorKind::Io, format!("the share {} went away", self.shown), gone))
    }

    /// Creates the folders above `name`, durably; the innermost, and which of them are new: also those that another
    /// upload made and may give up, so that the last one removes them.
    fn settle(&self, name: &ObjectName) -> Result<(PathBuf, Made)> {
        let mut folder = self.root.clone();
        let mut made = Made::default();
        for segment in name.segments().rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            folder.push(segment);
            let known = self.lock().get(&folder).copied();
            let is_new = match known {
                Some(false) => false,
                given_up => create_folder(&folder)? || given_up.is_some(),
            };
            let mut settled = self.lock();
            // Whoever may choose names could choose them without end.
            if settled.len() >= MOST_SETTLED {
                settled.clear();
            }
            settled.insert(folder.clone(), is_new);
            drop(settled);
            if is_new {
                made.0.push(folder.clone());
            }
        }
        Ok((folder, made))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, bool>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, name: &ObjectName, error: io::Error) -> Error {
        let what = format!("{what} {name} in {}", self.shown);
        if !is_absent(&error) {
            return Error::io(what, error);
        }
        self.check_mounted().err().unwrap_or_else(|| Error::with_source(ErrorKind::NotFound, what, error))
    }

    fn walk(
        &self,
        folder: &Path,
        prefix: &str,
        levels: usize,
        each: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        let say = || format!("listing {}", folder.display());
        let Some(entries) = unless_absent(fs::read_dir(folder)).context(say)? else {
            return Ok(());
        };
        for entry in entries {
            // Reading on in a folder that was removed meanwhile fails; what was in it is gone.
            let Some(entry) = unless_absent(entry).context(say)? else {
                return self.check_mounted();
            };
            let leaf = entry.file_name();
            let Some(leaf) = leaf.to_str().filter(|leaf| name::is_segment(leaf)) else {
                continue;
            };
            let Some(kind) = unless_absent(entry.file_type()).context(say)? else {
                continue;
            };
            let path = if prefix.is_empty() { leaf.to_owned() } else { format!("{prefix}/{leaf}") };
            if kind.is_dir() && levels > 1 {
                self.walk(&entry.path(), &path, levels - 1, each)?;
            } else if kind.is_file() {
                let Some(metadata) = unless_absent(entry.metadata()).context(say)? else {
                    continue;
                };
                let Ok(name) = ObjectName::new(path) else { continue };
                let received = metadata.modified().ok().filter(|_| self.receipts == Receipts::Told);
                each(Entry { name, len: ByteLen::new(metadata.len()), received })?;
            }
        }
        Ok(())
    }
}

impl Store for DirStore {
    fn location(&self) -> String {
        self.shown.clone()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        let mut upload = Upload::begin(self, name.clone())?;
        upload.write(bytes)?;
        upload.finish()
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        let fail = |error| self.failed("reading", name, error);
        let mut bytes = Vec::new();
        self.open_file(name).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(fail)?;
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        let fail = |error| self.failed(&format!("reading {part} of"), name, error);
        let (mut file, len) = self.file(name)?;
        let len = len.get();
        if part.end().get() > len {
            let what = format!("{name} in {} has {len} bytes, {part} are wanted", self.shown);
            return Err(Error::corrupt(what));
        }
        let mut bytes = vec![0; part.len().to_usize().unwrap_or(usize::MAX)];
        file.seek(SeekFrom::Start(part.start().get())).map_err(fail)?;
        file.read_exact(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        let again = |absent| self.open_again(name, absent)?.metadata();
        let found = match fs::metadata(self.path(name)) {
            Err(error) if is_absent(&error) && self.check_mounted().is_ok() => again(error),
            found => found,
        };
        match found {
            Ok(metadata) => Ok(metadata.is_file().then(|| ByteLen::new(metadata.len()))),
            Err(error) if is_absent(&error) => self.check_mounted().map(|()| None),
            Err(error) => Err(self.failed("looking at", name, error)),
        }
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        name::check_folder(folder)?;
        self.check_mounted()?;
        let path = self.root.join(folder);
        let levels = name::LEVELS_MAX - folder.split('/').filter(|segment| !segment.is_empty()).count();
        let say = || format!("listing {}", path.display());
        match unless_absent(fs::symlink_metadata(&path)).context(say)? {
            Some(metadata) if metadata.is_dir() && levels > 0 => self.walk(&path, folder, levels, each)?,
            _ => {}
        }
        // What is not there any more is passed over; so a share that went away meanwhile would seem empty.
        self.check_mounted()
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            // Durable, because what is deleted later must not be gone after a power cut that brings this one back.
            Ok(()) => match path.parent().map_or(Ok(()), publish::sync_folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => self.check_mounted(),
                synced => synced,
            },
            Err(error) if is_absent(&error) => self.check_mounted(),
            Err(error) => Err(self.failed("deleting", name, error)),
        }
    }
}

/// Folders that were made for an object, outermost first; removed when dropped as far as they are still empty. Whoever
/// relies on one of them meanwhile finds it gone and makes it again.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // One that is in use by now is not empty, and stays.
            drop(fs::remove_dir(folder));
        }
    }
}

/// Creates a folder whose parent exists, unless it is there, and makes its entry in the parent durable. Whether it is
/// new.
fn create_folder(folder: &Path) -> Result<bool> {
    let made = match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io(format!("creating the folder {}", folder.display()), error));
        }
        created => created.is_ok(),
    };
    folder.parent().map_or(Ok(()), publish::sync_folder)?;
    Ok(made)
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if is_absent(&error) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests;
