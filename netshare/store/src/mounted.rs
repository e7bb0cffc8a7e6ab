//! Shares of file servers (SMB, NFS), mounted by ourselves for ourselves alone.
//!
//! The mount is attached to nothing: no path leads to it but this process's own file descriptor
//! (`fsopen`, `fsconfig`, `fsmount`; `include/uapi/linux/mount.h`), so nobody else sees it, no mount point is needed, and the
//! kernel takes it down when the process ends, however that happens. What is stored there goes through [`DirStore`].
//!
//! Caches of names and attributes are off: what another machine stored a moment ago must be listed, and a lease that was
//! revoked must be seen. A server that does not answer ends a call with an error after half a minute (`soft`, and see
//! `deadline`): a call that waits for ever could not be interrupted, and nothing is lost by the error, because an object
//! counts as stored only after it was synced, and is stored again otherwise.

mod deadline;
mod mount;
mod nfs;
mod smb;
mod trouble;
mod url;

pub use trouble::Trouble;
pub use url::{Kind, MountUrl};

use deadline::Patient;

use crate::{DirStore, Entry, ObjectName, Put, Store};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use rustix::fd::{AsRawFd, OwnedFd};
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The name of the file by which writing is tried; listings pass over it.
const PROBE: &str = ".tmp-probe";

/// The password of a file server's user; shown nowhere.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// From its bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A share of a file server.
#[derive(Debug)]
pub struct MountedStore {
    share: Patient,
    url: MountUrl,
    /// The mount lives as long as this.
    mount: OwnedFd,
}

impl MountedStore {
    /// Mounts the share; `password` is that of the user in the URL.
    ///
    /// # Errors
    /// Each with a [`Trouble`] as its source: `Lost` when the server cannot be found or reached, `Denied` when it wants
    /// another password or the system another user, `NotFound` when the share or folder is not there, `Unsupported`
    /// when kernel and server have no version in common.
    pub fn open(url: &MountUrl, password: Option<&Password>) -> Result<Self> {
        let (mount, below, server) = Self::mount(url, password, url.folder())?;
        let folder = root(&mount).join(below);
        if !folder.is_dir() {
            return Err(trouble(url, Trouble::Folder));
        }
        Self::over(url, mount, server, &folder)
    }

    /// The same; the folder is made where it is missing, and writing into it is tried.
    ///
    /// # Errors
    /// As [`MountedStore::open`]; `Denied` when the share is read-only, `OutOfSpace` when it is full.
    pub fn create(url: &MountUrl, password: Option<&Password>) -> Result<Self> {
        let mut above = url.folder();
        let (mount, below, server) = loop {
            match Self::mount(url, password, above) {
                Err(error) if error.kind() == ErrorKind::NotFound => match above.parent() {
                    Some(parent) if parent != Path::new("") => above = parent,
                    _ => return Err(error),
                },
                mounted => break mounted?,
            }
        };
        let missing = url.folder().strip_prefix(above).unwrap_or(Path::new(""));
        let folder = root(&mount).join(below).join(missing);
        let made = std::fs::create_dir_all(&folder).map_err(|error| Error::io("making its folder", error));
        let store = Self::over(url, mount, server, &root_of(&folder, made.is_ok()))?;
        made.map_err(|error| store.explain(error))?;
        store.try_writing().map_err(|error| store.explain(error))?;
        Ok(store)
    }

    /// Mounts what `folder` of the server is in, and says where below the mount it is, and who the server is.
    fn mount(
        url: &MountUrl,
        password: Option<&Password>,
        folder: &Path,
    ) -> Result<(OwnedFd, PathBuf, SocketAddr)> {
        // First what needs no server.
        mount::check(url.kind()).map_err(|found| trouble(url, found))?;
        let server = reach(url).map_err(|found| trouble(url, found))?;
        let mounted = match url.kind() {
            Kind::Smb => smb::mount(url, server, password).map(|mount| (mount, folder.to_owned(), server)),
            Kind::Nfs => nfs::mount(url, server, folder).map(|mount| (mount, PathBuf::new(), server)),
        };
        mounted.map_err(|found| trouble(url, found))
    }

    fn over(url: &MountUrl, mount: OwnedFd, server: SocketAddr, folder: &Path) -> Result<Self> {
        let store = DirStore::open_as(folder.to_owned(), url.to_string())?;
        Ok(Self { share: Patient::new(store, server), url: url.clone(), mount })
    }

    /// Puts a small file there and takes it away.
    fn try_writing(&self) -> Result<()> {
        let path = self.share.store().root().join(format!("{PROBE}-{}", std::process::id()));
        let say = |error| Error::io("trying to write", error);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&[0; 4096])?;
            file.sync_all()
        });
        let removed = std::fs::remove_file(&path);
        written.map_err(say)?;
        removed.map_err(say)
    }

    /// Says what is wrong with the share, where an error tells.
    fn explain(&self, error: Error) -> Error {
        let found = match error.kind() {
            ErrorKind::OutOfSpace => Trouble::Full(self.free().unwrap_or_default()),
            ErrorKind::Denied => Trouble::ReadOnly,
            _ => return error,
        };
        let what = format!("{}: {found}", self.url);
        Error::with_source(error.kind(), what, Because { trouble: found, cause: error })
    }

    /// The room that is left for us, as far as the server tells.
    fn free(&self) -> Option<ByteLen> {
        let room = rustix::fs::fstatvfs(&self.mount).ok()?;
        Some(ByteLen::new(room.f_bavail.saturating_mul(room.f_frsize)))
    }
}

/// The path to a mount that no path leads to.
fn root(mount: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()))
}

/// The folder, or the nearest above that is there.
fn root_of(folder: &Path, is_there: bool) -> PathBuf {
    let mut found = folder.ancestors().filter(|_| !is_there).filter(|above| above.is_dir());
    found.next().unwrap_or(folder).to_owned()
}

/// Finds the server by name and knocks; the address that answers.
fn reach(url: &MountUrl) -> Result<SocketAddr, Trouble> {
    let found =
        (url.host(), url.port()).to_socket_addrs().map_err(|error| Trouble::Name(error.to_string()))?;
    let mut last = Trouble::Name("no address".to_owned());
    for address in found {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(address),
            Err(error) => last = Trouble::Port(address, error.to_string()),
        }
    }
    Err(last)
}

fn trouble(url: &MountUrl, found: Trouble) -> Error {
    Error::with_source(found.kind(), format!("opening {url}"), found)
}

/// A trouble with what showed it.
#[derive(Debug)]
struct Because {
    trouble: Trouble,
    cause: Error,
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Because {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

impl Trouble {
    /// The trouble that an error comes from.
    pub fn of(error: &Error) -> Option<&Self> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            let because = error.downcast_ref::<Because>().map(|because| &because.trouble);
            if let Some(found) = error.downcast_ref().or(because) {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl Store for MountedStore {
    fn location(&self) -> String {
        self.url.to_string()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        let (name, bytes) = (name.clone(), bytes.to_owned());
        self.share.call(move |store| store.put(&name, &bytes)).map_err(|error| self.explain(error))
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        let name = name.clone();
        self.share.call(move |store| store.get(&name))
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        let name = name.clone();
        self.share.call(move |store| store.get_range(&name, part))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        let name = name.clone();
        self.share.call(move |store| store.len(&name))
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let folder = folder.to_owned();
        let all = self.share.call(move |store| {
            let mut all = Vec::new();
            store.list(&folder, &mut |entry| {
                all.push(entry);
                Ok(())
            })?;
            Ok(all)
        })?;
        all.into_iter().try_for_each(each)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let name = name.clone();
        self.share.call(move |store| store.delete(&name)).map_err(|error| self.explain(error))
    }
}

#[cfg(test)]
mod tests;
