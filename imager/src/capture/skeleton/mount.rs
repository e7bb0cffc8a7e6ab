//! Mounts that are attached nowhere: no other process comes across them, and each ends with its descriptor.

use imager_units::{Context, Error, ErrorKind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What may be done through a mount.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing changes, not even a time of access.
    Look,
    /// Everything.
    Write,
}

/// A mount.
pub(super) struct Mount {
    root: OwnedFd,
}

impl Mount {
    /// Mounts a device. Of a filesystem that is mounted already, this is one mount more.
    ///
    /// # Errors
    /// `Unsupported` when the kernel has no such filesystem, `Denied` without the right to mount, `Io`; with what the
    /// kernel said.
    pub(super) fn new(kind: &str, device: &Path, options: &[&str], access: Access) -> Result<Self> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|code| explain(kind, code, ""))?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOATIME
            | if access == Access::Look {
                MountAttrFlags::MOUNT_ATTR_RDONLY
            } else {
                MountAttrFlags::empty()
            };
        let mounted = fsconfig_set_string(&context, "source", device.as_os_str().as_bytes())
            .and_then(|()| options.iter().try_for_each(|option| set(&context, option)))
            .and_then(|()| fsconfig_create(&context))
            .and_then(|()| fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes));
        match mounted {
            Ok(root) => Ok(Self { root }),
            Err(code) => Err(explain(kind, code, &said(context))),
        }
    }

    /// Its root.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Its root, open to be read.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn open_root(&self) -> Result<OwnedFd> {
        let (how, mode) =
            (rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let root = rustix::fs::openat(&self.root, ".", how, mode);
        root.map_err(std::io::Error::from).context(|| "opening the root of a mount".to_owned())
    }

    /// Has everything written that it holds.
    ///
    /// # Errors
    /// `Io`, `OutOfSpace`.
    pub(super) fn sync(&self) -> Result<()> {
        let synced = rustix::fs::syncfs(self.open_root()?);
        synced.map_err(std::io::Error::from).context(|| "writing the skeleton".to_owned())
    }
}

fn set(context: &OwnedFd, option: &str) -> std::result::Result<(), Errno> {
    match option.split_once('=') {
        Some((name, value)) => fsconfig_set_string(context, name, value),
        None => fsconfig_set_flag(context, option),
    }
}

fn explain(kind: &str, code: Errno, said: &str) -> Error {
    let (kind_of, what) = match code {
        Errno::NODEV => (ErrorKind::Unsupported, format!("this kernel has no {kind}")),
        Errno::PERM | Errno::ACCESS => (ErrorKind::Denied, "only root may mount".to_owned()),
        Errno::NOSYS => (ErrorKind::Unsupported, "this kernel is older than 5.2".to_owned()),
        _ if said.is_empty() => {
            (ErrorKind::Io, format!("the kernel does not mount it as {kind}, and its log (dmesg) says why"))
        }
        _ => (ErrorKind::Io, format!("the kernel does not mount it as {kind}: {said}")),
    };
    Error::with_source(kind_of, what, std::io::Error::from(code))
}

/// What the filesystem has to say about it; each message is read whole, and begins with its kind and a space.
fn said(context: OwnedFd) -> String {
    let (mut log, mut buffer, mut all) = (std::fs::File::from(context), [0; 512], Vec::new());
    while let Ok(len) = log.read(&mut buffer) {
        let text = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
        let Some((_, text)) = text.trim().split_once(' ').filter(|_| all.len() < 8) else { break };
        all.push(text.to_owned());
    }
    all.join("; ")
}
