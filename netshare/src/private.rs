//! What the server keeps for itself beside the repositories: tokens and its certificate's key.
//!
//! Only the owner of the share may read it. A command that root runs leaves files that belong to whoever owns the
//! share, so that a server without rights can read what root added.

use imager_units::{Context, Result};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

/// No repository can have this name: theirs do not start with a dot.
pub(crate) const FOLDER: &str = ".netshare";

/// The folder of the server's own files below the share, which it makes if it is missing.
///
/// # Errors
/// `NotFound` when the share is not there; `Denied`, `Io` from the system.
pub(crate) fn folder(share: &Path) -> Result<PathBuf> {
    let folder = share.join(FOLDER);
    let say = || format!("making the folder {}", folder.display());
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => {
            made.context(say)?;
            give(&folder, share).context(say)?;
        }
    }
    Ok(folder)
}

/// Takes the lock of the folder; released when dropped.
///
/// # Errors
/// `Denied`, `Io` from the system.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let say = || format!("locking {}", path.display());
    let file = File::options().create(true).append(true).mode(0o600).open(&path).context(say)?;
    give(&path, folder).context(say)?;
    file.lock().context(say)?;
    Ok(file)
}

/// Replaces a file as a whole; only its owner may read it.
///
/// # Errors
/// `Denied`, `OutOfSpace`, `Io` from the system.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let written = write_new(&temporary, folder, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written.context(|| format!("writing {}", path.display()))
}

fn write_new(path: &Path, folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    give(path, folder)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes `path` belong to the owner of `like`.
fn give(path: &Path, like: &Path) -> io::Result<()> {
    let (is, wanted) = (fs::metadata(path)?, fs::metadata(like)?);
    if (is.uid(), is.gid()) == (wanted.uid(), wanted.gid()) {
        return Ok(());
    }
    match chown(path, Some(wanted.uid()), Some(wanted.gid())) {
        // Who is not root cannot give, and need not: the file is readable to whoever made it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}
