//! The folder at which something is mounted: what it must be before, and how it is left.

use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How unmounting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing is mounted there any more.
    Free,
    /// The same, but somebody still uses what he had opened there.
    Used,
}

/// A folder to mount at; removed again if it was made for that.
pub(super) struct Point {
    path: PathBuf,
    made: bool,
}

impl Point {
    /// Takes an empty folder, or makes it.
    ///
    /// # Errors
    /// `Exists` when something is in it, or it is a mount whose process is gone; `Denied`, `NotFound`, `Io`.
    pub(super) fn prepare(at: &Path) -> Result<Self> {
        let shown = at.display();
        let made = match fs::read_dir(at).map(|mut entries| entries.next().transpose()) {
            Ok(Ok(None)) => false,
            Ok(Ok(Some(_))) => {
                let what = format!("{shown} is not empty: what is in it would be hidden");
                return Err(Error::new(ErrorKind::Exists, what));
            }
            Ok(Err(error)) | Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {
                let what = format!(
                    "{shown} is a mount whose process is gone; remove it with umount {shown}, or as a user with \
                     fusermount3 -u {shown}"
                );
                return Err(Error::new(ErrorKind::Exists, what));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(at).context(|| format!("making the folder {shown}"))?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(Error::new(ErrorKind::Invalid, format!("{shown} is no folder")));
            }
            Ok(Err(error)) | Err(error) => return Err(Error::io(format!("looking into {shown}"), error)),
        };
        let path = fs::canonicalize(at).context(|| format!("looking for {shown}"))?;
        Ok(Self { path, made })
    }

    /// Where it is, without links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it; what is in use is taken out of the folders all the same.
    ///
    /// # Errors
    /// `Denied`, `Io` when it stays mounted.
    pub(super) fn leave(&self) -> Result<Left> {
        let shown = self.path.display();
        match umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(Left::Free),
            Err(Errno::EBUSY) => {
                let lazily = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
                umount2(&self.path, lazily)
                    .map_err(io::Error::from)
                    .context(|| format!("unmounting {shown}"))?;
                Ok(Left::Used)
            }
            // Whoever is not root is unmounted by the program that mounted for him.
            Err(Errno::EPERM) if self.helper(&["-u"]) => Ok(Left::Free),
            Err(Errno::EPERM) if self.helper(&["-u", "-z"]) => Ok(Left::Used),
            Err(error) => Err(Error::io(format!("unmounting {shown}"), error.into())),
        }
    }

    fn helper(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("fusermount3");
        let command = command.args(arguments).arg("--").arg(&self.path);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        if self.made {
            // Whoever mounted or put something there meanwhile keeps it.
            let _left = fs::remove_dir(&self.path);
        }
    }
}
