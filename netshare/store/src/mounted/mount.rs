//! Mounting without a mount point, by the kernel's calls for it.

use super::{Kind, Trouble};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use std::io::Read;

/// One setting of a filesystem.
#[derive(Debug)]
pub(super) enum Setting {
    /// A name with a value.
    Value(&'static str, Vec<u8>),
    /// A name alone.
    Flag(&'static str),
    /// A name alone that older kernels do not know, and can do without.
    Wish(&'static str),
}

/// Shorthand for a value.
pub(super) fn value(name: &'static str, value: impl Into<Vec<u8>>) -> Setting {
    Setting::Value(name, value.into())
}

/// Why the kernel did not mount: its code, and what it said besides.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: Errno,
    pub(super) said: String,
}

impl Refused {
    /// What a person may see of it.
    pub(super) fn text(&self) -> String {
        let code = std::io::Error::from(self.code).to_string();
        if self.said.is_empty() { code } else { format!("{code}; {}", self.said) }
    }
}

/// Checks that we may mount this kind, and that the kernel has it.
pub(super) fn check(kind: Kind) -> Result<(), Trouble> {
    match fsopen(kind.filesystem(), FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(()),
        Err(Errno::NODEV) => Err(Trouble::NoModule(kind.filesystem())),
        Err(Errno::PERM) => Err(Trouble::Privilege),
        Err(Errno::NOSYS) => Err(Trouble::OldKernel),
        Err(code) => Err(Trouble::Other(std::io::Error::from(code).to_string())),
    }
}

/// Mounts; the result is attached nowhere and ends with its descriptor.
pub(super) fn mount(kind: Kind, settings: &[Setting]) -> Result<OwnedFd, Refused> {
    let quiet = |code| Refused { code, said: String::new() };
    let context = fsopen(kind.filesystem(), FsOpenFlags::FSOPEN_CLOEXEC).map_err(quiet)?;
    let mounted = settings.iter().try_for_each(|setting| set(&context, setting)).and_then(|()| {
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    });
    mounted.map_err(|code| Refused { code, said: said(context) })
}

fn set(context: &OwnedFd, setting: &Setting) -> Result<(), Errno> {
    match setting {
        Setting::Value(name, value) => fsconfig_set_string(context, *name, value.as_slice()),
        Setting::Flag(name) => fsconfig_set_flag(context, *name),
        Setting::Wish(name) => match fsconfig_set_flag(context, *name) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
            set => set,
        },
    }
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
