//! What the server keeps for itself beside the repositories: tokens and its certificate's key.
//!
//! Only the owner of the share may read it. A command that root runs leaves files that belong to whoever owns the
//! share, so that a server without rights can read what root added. That owner may have been taken over and may have
//! put links there: so every file is opened below the folder's handle, no link is followed, and nothing is given away
//! that was not made just now.

use imager_units::{Context, Error, ErrorKind, Result};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// No repository can have this name: theirs do not start with a dot.
pub(crate) const FOLDER: &str = ".netshare";

/// Neither a link nor a pipe makes us wait or leads elsewhere.
const NO_TRAPS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// The folder of the server's own files.
#[derive(Debug)]
pub(crate) struct Private {
    path: PathBuf,
    handle: File,
    owner: (u32, u32),
}

impl Private {
    /// The folder below the share, which is made if it is missing.
    ///
    /// # Errors
    /// `NotFound` when the share is not there, `Invalid` when something else has the folder's name; `Denied`, `Io` from
    /// the system.
    pub(crate) fn of(share: &Path) -> Result<Self> {
        let path = share.join(FOLDER);
        let say = || format!("making the folder {}", path.display());
        let is_new = match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).context(say)?,
        };
        if !fs::symlink_metadata(&path).context(say)?.is_dir() {
            let what = format!("{} is no folder, and a link there is not followed", path.display());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        let handle = File::options().read(true).custom_flags(flags).open(&path).context(say)?;
        if is_new {
            give(&handle, owner(&fs::metadata(share).context(say)?)).context(say)?;
        }
        let owner = owner(&handle.metadata().context(say)?);
        Ok(Self { path, handle, owner })
    }

    /// Takes the lock of the folder; released when dropped.
    ///
    /// # Errors
    /// `Denied`, `Io` from the system; `Invalid` when the lock is no file.
    pub(crate) fn lock(&self) -> Result<File> {
        let say = || format!("locking {}", self.path.join("lock").display());
        let file = match self.open("lock", OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.open("lock", OFlag::O_RDWR),
            made => made.and_then(|file| give(&file, self.owner).map(|()| file)),
        };
        let file = file.context(say)?;
        if !file.metadata().context(say)?.is_file() {
            return Err(Error::new(ErrorKind::Invalid, format!("{}: it is no file", say())));
        }
        file.lock().context(say)?;
        Ok(file)
    }

    /// The bytes of a file; `None` where there is none.
    ///
    /// # Errors
    /// `Denied`, `Io` from the system.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = self.open(name, OFlag::O_RDONLY).and_then(|mut file| io::copy(&mut file, &mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => {
                read.map(|_| Some(bytes)).context(|| format!("reading {}", self.path.join(name).display()))
            }
        }
    }

    /// Replaces a file as a whole; only its owner may read it.
    ///
    /// # Errors
    /// `Denied`, `OutOfSpace`, `Io` from the system.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!("{name}.tmp-{}", std::process::id());
        // What a dead process of the same number left.
        self.remove(&temporary);
        let written = self
            .write_new(&temporary, bytes)
            .and_then(|()| Ok(renameat(&self.handle, temporary.as_str(), &self.handle, name)?))
            .and_then(|()| self.handle.sync_all());
        if written.is_err() {
            self.remove(&temporary);
        }
        written.context(|| format!("writing {}", self.path.join(name).display()))
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.open(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
        give(&file, self.owner)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn open(&self, name: &str, flags: OFlag) -> io::Result<File> {
        Ok(openat(&self.handle, name, flags | NO_TRAPS, Mode::from_bits_truncate(0o600))?.into())
    }

    fn remove(&self, name: &str) {
        // Where it cannot be removed, making it says so.
        let _absent = unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir);
    }
}

/// Opens a file of the folder by its path, for reading.
///
/// # Errors
/// From the system, also where there is a link.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(NO_TRAPS.bits()).open(path)
}

fn owner(metadata: &fs::Metadata) -> (u32, u32) {
    (metadata.uid(), metadata.gid())
}

/// Makes what was just made belong to the owner of the share.
fn give(file: &File, wanted: (u32, u32)) -> io::Result<()> {
    if owner(&file.metadata()?) == wanted {
        return Ok(());
    }
    match fchown(file, Some(wanted.0), Some(wanted.1)) {
        // Who is not root cannot give, and need not: the file is readable to whoever made it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

#[cfg(test)]
mod tests {
    use super::{FOLDER, Private};
    use imager_units::ErrorKind;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    #[test]
    fn links_that_the_owner_of_a_share_planted_lead_nowhere() {
        let (share, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, b"untouched").unwrap();
        // Only root can give a file to somebody else; for anybody else the links have to be refused all the same.
        let is_root = chown(share.path(), Some(65534), Some(65534)).is_ok();
        let before = fs::metadata(&victim).unwrap();
        let folder = share.path().join(FOLDER);
        symlink(elsewhere.path(), &folder).unwrap();
        assert_eq!(Private::of(share.path()).unwrap_err().kind(), ErrorKind::Invalid);
        fs::remove_file(&folder).unwrap();
        let private = Private::of(share.path()).unwrap();
        for name in ["lock", "tokens.json", &format!("tokens.json.tmp-{}", std::process::id())] {
            symlink(&victim, folder.join(name)).unwrap();
        }
        private.lock().unwrap_err();
        private.read("tokens.json").unwrap_err();
        private.write("tokens.json", b"new").unwrap();
        assert_eq!(private.read("tokens.json").unwrap().unwrap(), b"new");
        let after = fs::metadata(&victim).unwrap();
        assert_eq!((after.uid(), after.mtime_nsec()), (before.uid(), before.mtime_nsec()));
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        let made = fs::metadata(folder.join("tokens.json")).unwrap();
        assert!(!is_root || made.uid() == 65534);
        assert_eq!(made.permissions().mode() & 0o777, 0o600);
        fs::remove_file(folder.join("lock")).unwrap();
        drop(private.lock().unwrap());
        assert_eq!(fs::metadata(folder.join("lock")).unwrap().uid(), made.uid());
        assert!(private.read("none").unwrap().is_none());
    }
}
