//! Opening the share a repository lies on, and telling its failures from those of disks.

use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use netshare_store::http::{Fingerprint, HttpStore, HttpsUrl, Refusal, Token};
use netshare_store::mounted::{MountUrl, MountedStore, Password, Trouble};
use netshare_store::s3::{S3Settings, S3Store, S3Url};
use netshare_store::{DirStore, Entry, ObjectName, Put, Retry, Store, Throttle, Watch, retry};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a repository lies, by kind of share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine: local, or mounted.
    Folder(PathBuf),
    /// A repository on our own server.
    Https(HttpsUrl),
    /// A repository in a bucket.
    S3(S3Url),
    /// A folder of a file server, over SMB or NFS.
    Mounted(MountUrl),
}

/// What opening a share takes beside its place.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether what is not there is made.
    pub missing: Missing,
    /// What a server knows us by.
    pub token: Option<Token>,
    /// What a file server's user proves to be himself by.
    pub password: Option<Password>,
    /// How long a server may say nothing.
    pub silence: Duration,
    /// How it is treated when it fails, and when others need the line.
    pub manners: Manners,
}

/// How a share that fails, or whose line others need, is treated.
#[derive(Clone, Debug)]
pub struct Manners {
    /// How long one that does not answer is asked again.
    pub patience: Duration,
    /// At most so many bytes a second, both directions together.
    pub limit: Option<ByteLen>,
    /// Who waits meanwhile.
    pub watch: Arc<dyn Watch>,
}

/// Whether a share's folder is made when it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made.
    Create,
    /// That is an error.
    Fail,
}

impl Location {
    /// Reads a repository's URL: a path or a URL of a kind that this version knows.
    ///
    /// # Errors
    /// `Invalid` when it is neither.
    pub fn parse(url: &str) -> Result<Self> {
        match scheme(url) {
            Some(("file", path)) if !path.is_empty() => Ok(Self::Folder(PathBuf::from(path))),
            None if !url.is_empty() => Ok(Self::Folder(PathBuf::from(url))),
            Some(("https", _)) => url.parse().map(Self::Https),
            Some(("s3", _)) => url.parse().map(Self::S3),
            Some(("smb" | "nfs", _)) => url.parse().map(Self::Mounted),
            Some(("http", _)) => {
                let what = "http:// would send the token in the clear: a share is https://";
                Err(Error::new(ErrorKind::Invalid, what))
            }
            _ => {
                let known = "a path, file://, https://, s3://, smb:// or nfs:// URL";
                let what = format!("{url:?} is no repository this version can open: {known}");
                Err(Error::new(ErrorKind::Invalid, what))
            }
        }
    }

    /// The folder on this machine, if it is one: no disk that holds it may be written.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Https(_) | Self::S3(_) | Self::Mounted(_) => None,
        }
    }

    /// What its server is known by, beside its name.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Folder(_) | Self::S3(_) | Self::Mounted(_) => None,
            Self::Https(url) => url.fingerprint(),
        }
    }

    /// Opens the share.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Lost`.
    pub fn open(&self, access: &Access) -> Result<Arc<dyn Store>> {
        let manners = &access.manners;
        match self {
            Self::Folder(path) => {
                let shown = path.display().to_string();
                share(patiently(&shown, manners, || folder(path, access.missing)), manners)
            }
            Self::Https(url) => share(https(url, access), manners),
            Self::S3(url) => share(bucket(url, access), manners),
            Self::Mounted(url) => {
                share(patiently(&url.to_string(), manners, || mounted(url, access)), manners)
            }
        }
    }
}

/// The machine that a server's token is for, where it is for one only.
///
/// # Errors
/// `Denied`, `NotFound`, `Lost` from the server.
pub fn machine(location: &Location, access: &Access) -> Result<Option<String>> {
    let Location::Https(url) = location else { return Ok(None) };
    let store = https(url, access)?;
    patiently(&url.to_string(), &access.manners, || store.machine())
}

/// A share that is away is waited for, also before it was ever there; one that refuses, or is not known, is not.
fn patiently<T>(location: &str, manners: &Manners, open: impl Fn() -> Result<T>) -> Result<T> {
    let is_away =
        |error: &Error| matches!(Trouble::of(error), Some(Trouble::Port(..) | Trouble::Protocol(_)));
    retry::open(location, manners.patience, Arc::clone(&manners.watch), is_away, open)
}

/// The scheme of a URL, and what stands behind its `//`. A path has none.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let is_path = scheme.contains('/') || !(rest.is_empty() || rest.starts_with('/'));
    (!is_path).then(|| (scheme, rest.strip_prefix("//").unwrap_or_default()))
}

fn folder(path: &Path, missing: Missing) -> Result<DirStore> {
    match missing {
        Missing::Create => DirStore::create(path),
        Missing::Fail => DirStore::open(path),
    }
}

/// A server is asked for nothing yet, unless to make the repository.
fn https(url: &HttpsUrl, access: &Access) -> Result<HttpStore> {
    let none = || Error::with_source(ErrorKind::Denied, format!("opening {url}"), Refusal::NoToken);
    let token = access.token.clone().ok_or_else(none)?;
    let store = HttpStore::new(url.clone(), token, access.silence)?;
    let store = store.with_watch(Arc::clone(&access.manners.watch));
    if access.missing == Missing::Create {
        patiently(&url.to_string(), &access.manners, || store.create())?;
    }
    Ok(store)
}

/// A bucket is never made: whoever pays for it does that. The repository comes into it with its first object.
fn bucket(url: &S3Url, access: &Access) -> Result<S3Store> {
    let store = S3Store::new(url.clone(), &S3Settings::from_environment()?, access.silence)?;
    Ok(store.with_watch(Arc::clone(&access.manners.watch)))
}

fn mounted(url: &MountUrl, access: &Access) -> Result<MountedStore> {
    if url.user().is_some() && access.password.is_none() {
        let trouble = Trouble::NoPassword;
        return Err(Error::with_source(trouble.kind(), format!("opening {url}"), trouble));
    }
    match access.missing {
        Missing::Create => MountedStore::create(url, access.password.as_ref()),
        Missing::Fail => MountedStore::open(url, access.password.as_ref()),
    }
}

/// What every kind of share is wrapped into.
fn share<S: Store + 'static>(store: Result<S>, manners: &Manners) -> Result<Arc<dyn Store>> {
    let Manners { patience, limit, watch } = manners;
    let store = Share(Retry::new(store.map_err(lost)?, *patience, Arc::clone(watch)));
    Ok(match limit {
        None => Arc::new(store),
        Some(rate) => Arc::new(Throttle::new(store, *rate, Arc::clone(watch))),
    })
}

/// A store whose I/O errors are the share's.
pub struct Share<S>(pub S);

fn lost(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Io => Error::with_source(ErrorKind::Lost, "the share failed", error),
        _ => error,
    }
}

impl<S: Store> Store for Share<S> {
    fn location(&self) -> String {
        self.0.location()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.0.put(name, bytes).map_err(lost)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.0.get(name).map_err(lost)
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.0.get_range(name, part).map_err(lost)
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.0.len(name).map_err(lost)
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.0.list(folder, each).map_err(lost)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.0.delete(name).map_err(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::{Location, Manners, patiently};
    use imager_units::{Error, ErrorKind};
    use netshare_store::Nobody;
    use netshare_store::mounted::Trouble;
    use std::cell::Cell;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_file_server_that_is_away_is_waited_for_and_one_that_refuses_is_not() {
        let opened = |troubles: &[Trouble], patience| {
            let tries = Cell::new(0);
            let manners = Manners { patience, limit: None, watch: Arc::new(Nobody) };
            let result = patiently("smb://server/share", &manners, || {
                let trouble = troubles.get(tries.get()).cloned();
                tries.set(tries.get() + 1);
                trouble.map_or(Ok(()), |it| Err(Error::with_source(it.kind(), "opening", it)))
            });
            (result.map_err(|error| (error.kind(), Trouble::of(&error).cloned())), tries.get())
        };
        let gone = || Trouble::Port("127.0.0.1:445".parse().unwrap(), "refused".to_owned());
        let broken = Trouble::Protocol("it broke off".to_owned());
        let (long, lost) = (Duration::from_secs(60), ErrorKind::Lost);
        assert_eq!(opened(&[gone(), broken], long), (Ok(()), 3));
        assert_eq!(opened(&[gone()], Duration::ZERO), (Err((lost, Some(gone()))), 1));
        let (result, tries) = opened(&vec![gone(); 100], Duration::from_millis(100));
        assert!(result == Err((lost, Some(gone()))) && tries > 1, "{result:?} {tries}");
        for refusal in
            [Trouble::Password, Trouble::NoShare, Trouble::Name("?".to_owned()), Trouble::Privilege]
        {
            let kind = refusal.kind();
            assert_eq!(opened(std::slice::from_ref(&refusal), long), (Err((kind, Some(refusal.clone()))), 1));
        }
    }

    #[test]
    fn paths_are_folders_and_unknown_schemes_are_refused() {
        for (url, path) in [("/a/b", "/a/b"), ("file:///a", "/a"), ("a:b/c", "a:b/c"), ("./x:/y", "./x:/y")] {
            assert_eq!(Location::parse(url).unwrap().path(), Some(Path::new(path)), "{url}");
        }
        for url in ["", "file://", "ftp://host/x", "c:/x", "http://host/x", "x:"] {
            assert_eq!(Location::parse(url).unwrap_err().kind(), ErrorKind::Invalid, "{url}");
        }
    }
}
