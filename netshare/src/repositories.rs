//! The repositories of a share: folders below one folder.

use imager_units::{ByteLen, Context, Error, ErrorKind, Result};
use netshare_store::{DirStore, sweep_unfinished};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const NAME_BYTES_MAX: usize = 63;
/// No upload waits so long between two pieces.
const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);

/// Checks a repository's name: `[a-z0-9][a-z0-9-]{0,62}`.
///
/// # Errors
/// `Invalid` when it is none.
pub fn check_repository(name: &str) -> Result<()> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(sound) && !name.starts_with('-') {
        return Ok(());
    }
    let what = format!(
        "{name:?} is no name for a repository: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and '-', not starting with '-'"
    );
    Err(Error::new(ErrorKind::Invalid, what))
}

/// The repositories of a share.
#[derive(Debug)]
pub(crate) struct Repositories {
    share: PathBuf,
    device: u64,
    open: Mutex<HashMap<String, Arc<DirStore>>>,
}

impl Repositories {
    /// The repositories below `share`.
    ///
    /// # Errors
    /// `NotFound` when the folder is not there, `Invalid` when it is none; `Denied`, `Io` from the system.
    pub(crate) fn below(share: &Path) -> Result<Self> {
        DirStore::open(share)?;
        let metadata = fs::metadata(share).context(|| format!("opening {}", share.display()))?;
        Ok(Self { share: share.to_owned(), device: metadata.dev(), open: Mutex::default() })
    }

    /// A repository that is there.
    ///
    /// # Errors
    /// `NotFound` when there is none of the name; `Io` when the share went away.
    pub(crate) fn open(&self, name: &str) -> Result<Arc<DirStore>> {
        let path = self.share.join(name);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_folder(&path)? {
            open.remove(name);
            self.check_mounted()?;
            return Err(Error::new(ErrorKind::NotFound, format!("there is no repository {name}")));
        }
        if let Some(store) = open.get(name) {
            return Ok(Arc::clone(store));
        }
        let store = Arc::new(DirStore::open(&path)?.with_receipts());
        open.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// Where a repository is, if it is there.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.share.join(name)
    }

    /// Whether a repository was opened.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Makes a repository's folder, durably; whether it is new.
    ///
    /// # Errors
    /// `Exists` when something else has the name; `Denied`, `OutOfSpace`, `Io` from the system.
    pub(crate) fn make(&self, name: &str) -> Result<bool> {
        self.check_mounted()?;
        let path = self.share.join(name);
        let say = || format!("making the repository {name}");
        // What is in an image, nobody else on this machine could read on the disk that it is of.
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(&path)? => Ok(false),
            made => {
                made.and_then(|()| File::open(&self.share)?.sync_all()).context(say)?;
                Ok(true)
            }
        }
    }

    /// The names of all of them, sorted.
    ///
    /// # Errors
    /// `Denied`, `Io` from the system.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let say = || format!("listing {}", self.share.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.share).context(say)? {
            let entry = entry.context(say)?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name().into_string().ok().filter(|name| check_repository(name).is_ok());
            names.extend(name.filter(|_| is_folder));
        }
        names.sort();
        Ok(names)
    }

    /// Removes what uploads left that a dead server was taking in.
    pub(crate) fn sweep(&self) {
        for name in self.names().unwrap_or_default() {
            match sweep_unfinished(&self.share.join(&name), LEFT_OVER) {
                Ok(ByteLen::ZERO) => {}
                Ok(bytes) => tracing::info!("{name}: {bytes} of what a dead process left unfinished removed"),
                Err(error) => tracing::warn!("{name}: temporary files may stay behind: {error}"),
            }
        }
    }

    /// Checks that the share is still the one that was opened, and not the empty folder it was mounted on.
    ///
    /// # Errors
    /// `Io` when it is not.
    pub(crate) fn check_mounted(&self) -> Result<()> {
        let say = || format!("the share {} went away", self.share.display());
        let gone = match fs::metadata(&self.share) {
            Ok(metadata) if metadata.dev() == self.device => return Ok(()),
            Ok(_) => io::Error::other("another file system is mounted there now"),
            Err(error) => error,
        };
        Err(Error::with_source(ErrorKind::Io, say(), gone))
    }
}

/// Whether there is a folder; a link to one is none, since it may lead anywhere.
fn is_folder(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(found.context(|| format!("looking at {}", path.display()))?.is_dir()),
    }
}

#[cfg(test)]
mod tests {
    use super::Repositories;
    use imager_units::ErrorKind;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_repository_is_made_once_and_found_while_it_is_there() {
        let share = tempfile::tempdir().unwrap();
        let mut repositories = Repositories::below(share.path()).unwrap();
        assert_eq!(repositories.open("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(repositories.make("a").unwrap() && !repositories.make("a").unwrap());
        repositories.open("a").unwrap();
        assert_eq!(fs::metadata(share.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(repositories.is_known("a") && !repositories.is_known("b"));
        fs::remove_dir(share.path().join("a")).unwrap();
        assert_eq!(repositories.open("a").unwrap_err().kind(), ErrorKind::NotFound);
        std::os::unix::fs::symlink("/etc", share.path().join("b")).unwrap();
        assert_eq!(repositories.open("b").unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(share.path().join("c"), b"").unwrap();
        assert_eq!(repositories.make("c").unwrap_err().kind(), ErrorKind::Exists);
        fs::create_dir(share.path().join(".netshare")).unwrap();
        fs::create_dir(share.path().join("d")).unwrap();
        assert_eq!(repositories.names().unwrap(), ["d"]);
        repositories.device ^= 1;
        assert_eq!(repositories.open("a").unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(repositories.make("e").unwrap_err().kind(), ErrorKind::Io);
    }
}
