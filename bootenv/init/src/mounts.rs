//! The kernel's own filesystems, and the links and files that programs expect. No disk is ever mounted here.

use crate::program;
use imager_units::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// What is mounted where, with which options.
const TABLE: [(&str, &str, &str); 6] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=755"),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777"),
];
const EFI: &str = "/sys/firmware/efi";

/// Mounts everything that is not mounted yet.
pub(crate) fn mount_all() -> Result<()> {
    for (kind, at, options) in TABLE {
        fs::create_dir_all(at).context(|| format!("making {at}"))?;
        mount_one(kind, at, options)?;
    }
    for folder in ["/run/halfhour", "/root", "/var/log"] {
        fs::create_dir_all(folder).context(|| format!("making {folder}"))?;
    }
    drop(symlink("/proc/self/fd", "/dev/fd"));
    drop(symlink("/proc/self/mounts", "/etc/mtab"));
    program::run("/bin/busybox", &["--install", "-s", "/bin"])?;
    Ok(())
}

/// The firmware's variables, once their driver is there.
pub(crate) fn mount_firmware() -> Result<()> {
    let at = format!("{EFI}/efivars");
    if Path::new(&at).exists() { mount_one("efivarfs", &at, "") } else { Ok(()) }
}

fn mount_one(kind: &str, at: &str, options: &str) -> Result<()> {
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if mounted.lines().any(|line| line.split(' ').nth(1) == Some(at)) {
        return Ok(());
    }
    match mount(Some(kind), at, Some(kind), MsFlags::MS_NOSUID, Some(options)) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(std::io::Error::from(errno)).context(|| format!("mounting {kind} at {at}")),
    }
}
