//! Notes that the write protection of a disk is lifted, for whoever has to put it back when the one who lifted it was
//! killed.
//!
//! Only the rescue environment has the folder; its first process looks there. One file a disk: whoever lifts holds it
//! locked together with others who do, for as long as it lives, and adds the nodes before it lifts them. The kernel
//! gives the lock back however a process ends (flock(2)). Whoever then gets the lock alone protects every node that is
//! noted and empties the file. Files stay, so that nobody ever locks one that has lost its name.

use crate::system::leaf;
use crate::{Access, Device, Protection};
use imager_units::{Context, Error, ErrorKind, Result};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the notes are.
pub const FOLDER: &str = "/run/halfhour/unprotected";

/// The note of one disk, locked.
#[derive(Debug)]
pub struct LiftedNote {
    file: File,
}

impl LiftedNote {
    /// Locks the note of `disk`, a node, in `folder`, together with others who lift that disk's protection; waits while
    /// somebody puts it back. `None` where there is no such folder.
    ///
    /// # Errors
    /// `Io` when it cannot be made or locked.
    pub fn begin(folder: &Path, disk: &Path) -> Result<Option<Self>> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let path = folder.join(leaf(disk));
        let say = || format!("locking {}", path.display());
        let file = File::options().create(true).read(true).append(true).open(&path).context(say)?;
        file.lock_shared().context(say)?;
        Ok(Some(Self { file }))
    }

    /// Notes a node, before its protection is lifted.
    ///
    /// # Errors
    /// `Io` when that cannot be written: the protection had better stay.
    pub fn add(&self, node: &Path) -> Result<()> {
        let line = [node.as_os_str().as_bytes(), b"\n"].concat();
        (&self.file).write_all(&line).context(|| format!("noting that {} takes writes", node.display()))
    }

    /// Protects every node that is noted, unless somebody else still writes to that disk: then whoever ends last does.
    ///
    /// # Errors
    /// `Io` when one cannot be protected; it stays noted.
    pub fn end(self) -> Result<Vec<PathBuf>> {
        match self.file.try_lock() {
            Ok(()) => protect(&self.file),
            Err(TryLockError::WouldBlock) => Ok(Vec::new()),
            Err(TryLockError::Error(error)) => Err(error).context(|| "locking a note".to_owned()),
        }
    }
}

/// The notes in a folder that say something; none where there is no folder.
pub fn notes(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_said = |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.len() > 0);
    entries.map(|entry| entry.path()).filter(is_said).collect()
}

/// Protects what a note names, if nobody holds it: which nodes took writes until now.
///
/// # Errors
/// `Io` when one cannot be protected; it stays noted.
pub fn settle(note: &Path) -> Result<Vec<PathBuf>> {
    let say = || format!("opening {}", note.display());
    let file = File::options().read(true).append(true).open(note).context(say)?;
    LiftedNote { file }.end()
}

/// Protects all, whatever becomes of one of them.
fn protect(mut file: &File) -> Result<Vec<PathBuf>> {
    let mut noted = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut noted)).context(|| "reading a note".to_owned())?;
    let mut nodes: Vec<_> = noted.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let (mut changed, mut failure) = (Vec::new(), None);
    // Partitions first: while their disk refuses writes, each says that it does.
    for node in nodes.iter().rev().map(|line| Path::new(OsStr::from_bytes(line))) {
        match protect_one(node) {
            Ok(true) => changed.push(node.to_owned()),
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    file.set_len(0).context(|| "emptying a note".to_owned())?;
    Ok(changed)
}

/// Whether a node took writes until now. One that is gone takes none.
fn protect_one(node: &Path) -> Result<bool> {
    let device = match Device::open(node, Access::Read, None) {
        Err(_) if !node.exists() => return Ok(false),
        opened => opened?,
    };
    let took = device.protection()? == Protection::Writable;
    device.protect(Protection::ReadOnly)?;
    if device.protection()? == Protection::Writable {
        return Err(Error::new(ErrorKind::Io, format!("{} still takes writes", node.display())));
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::{LiftedNote, notes, settle};
    use std::path::Path;

    const GONE: &str = "/dev/there-is-no-such-disk";

    #[test]
    fn a_note_is_settled_once_nobody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let begin = || LiftedNote::begin(folder.path(), Path::new("/dev/sda")).unwrap().expect("a folder");
        let (one, other) = (begin(), begin());
        one.add(Path::new(GONE)).unwrap();
        let note = folder.path().join("sda");
        assert_eq!(notes(folder.path()), std::slice::from_ref(&note));
        // Two hold it, then one.
        assert!(settle(&note).unwrap().is_empty());
        one.end().unwrap();
        settle(&note).unwrap();
        assert_eq!(notes(folder.path()), std::slice::from_ref(&note), "somebody still writes");
        // As when it was killed: nothing but its lock goes.
        drop(other);
        settle(&note).unwrap();
        assert!(notes(folder.path()).is_empty());
    }

    #[test]
    fn what_cannot_be_protected_stays_noted() {
        let folder = tempfile::tempdir().unwrap();
        // A file takes no protection.
        let file = tempfile::NamedTempFile::new().unwrap();
        let note = LiftedNote::begin(folder.path(), Path::new("/dev/sda")).unwrap().expect("a folder");
        note.add(file.path()).unwrap();
        note.end().unwrap_err();
        assert_eq!(notes(folder.path()).len(), 1);
    }

    #[test]
    fn without_a_folder_nothing_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none");
        assert!(LiftedNote::begin(&none, Path::new("/dev/sda")).unwrap().is_none());
        assert!(notes(&none).is_empty());
    }
}
