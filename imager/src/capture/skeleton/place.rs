//! Where a skeleton is made: a sparse file without a name, which is gone with its last descriptor.

use super::look::Look;
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Folders for it, where `TMPDIR` does not name one: the first on a disk, since a large filesystem's log takes room.
const FOLDERS: [&str; 2] = ["/var/tmp", "/tmp"];

/// The file.
pub(super) struct Place {
    file: File,
    size: ByteLen,
}

impl Place {
    /// Makes one that reads as so many zeros; not on what is looked at.
    ///
    /// # Errors
    /// `Denied`, `OutOfSpace`, `Io`: why in the last of the folders there cannot be one.
    pub(super) fn make(size: ByteLen, look: &Look) -> Result<Self> {
        let told = std::env::var_os("TMPDIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folders = match told {
            Some(folder) => vec![folder],
            None => FOLDERS.map(PathBuf::from).to_vec(),
        };
        let mut failure = Error::new(ErrorKind::Denied, "there is no folder for temporary files");
        for folder in folders {
            if look.is_under(&folder) {
                let what =
                    format!("{} lies on this volume: have TMPDIR name another folder", folder.display());
                failure = Error::new(ErrorKind::Denied, what);
                continue;
            }
            match nameless(&folder).and_then(|file| file.set_len(size.get()).map(|()| file)) {
                Ok(file) => return Ok(Self { file, size }),
                Err(error) => failure = refused(&folder, size, error),
            }
        }
        Err(failure)
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// All of it.
    pub(super) fn extent(&self) -> Extent {
        Extent::first(self.size)
    }

    /// How programs find it, as long as it is open here.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}

fn nameless(folder: &Path) -> std::io::Result<File> {
    let mut random = [0; 8];
    imager_image::id::fill_random(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let path = folder.join(format!(".halfhour-skeleton-{:016x}", u64::from_le_bytes(random)));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn refused(folder: &Path, size: ByteLen, error: std::io::Error) -> Error {
    let what = match error.kind() {
        std::io::ErrorKind::FileTooLarge => format!(
            "{} lies on a filesystem that cannot have a file of {size}, not even an empty one: have TMPDIR name a folder \
             on XFS, Btrfs or tmpfs",
            folder.display()
        ),
        _ => format!("making a sparse file of {size} in {}", folder.display()),
    };
    Error::io(what, error)
}
