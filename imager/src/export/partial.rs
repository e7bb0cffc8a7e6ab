//! A file that appears under its name only when it is complete.

use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file in the making; gone unless it is published.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Partial {
    /// Begins a file that will be `target`, beside it. It holds what a disk holds, so only its owner may read it.
    ///
    /// # Errors
    /// `Exists` when there is something of that name; `NotFound`, `Denied`, `OutOfSpace`, `Io` from the system.
    pub(super) fn create(target: &Path) -> Result<Self> {
        let say = || format!("creating {}", target.display());
        if fs::symlink_metadata(target).is_ok() {
            return Err(exists(target));
        }
        let name = target.file_name().ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{} does not name a file", target.display()))
        })?;
        let mut random = [0; 4];
        imager_image::id::fill_random(&mut random)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", hex::encode(random)));
        let path = target.with_file_name(hidden);
        let file =
            File::options().read(true).write(true).create_new(true).mode(0o600).open(&path).context(say)?;
        Ok(Self { file, path, target: target.to_owned(), published: false })
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// `Exists` when the name was taken meanwhile; `OutOfSpace`, `Io` from the system.
    pub(super) fn publish(mut self) -> Result<()> {
        let say = || format!("finishing {}", self.target.display());
        self.file.sync_all().context(say)?;
        let renamed = renameat2(AT_FDCWD, &self.path, AT_FDCWD, &self.target, RenameFlags::RENAME_NOREPLACE);
        match renamed {
            Ok(()) => self.published = true,
            Err(Errno::EEXIST) => return Err(exists(&self.target)),
            // A file system that cannot rename so can link so; the partial name goes with this value.
            Err(Errno::EINVAL | Errno::ENOSYS) => fs::hard_link(&self.path, &self.target).context(say)?,
            Err(errno) => return Err(Error::io(say(), errno.into())),
        }
        let folder = match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|folder| folder.sync_all()).context(say)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("{} could not be removed: {error}", self.path.display());
        }
    }
}

fn exists(target: &Path) -> Error {
    Error::new(ErrorKind::Exists, format!("{} is there already", target.display()))
}
