//! The kernel's own filesystems, and the links and files that programs expect. No disk is ever mounted here.

use crate::program;
use imager_disk::lifted;
use imager_units::{Context, Error, Result};
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
const LINKS: [(&str, &str); 3] =
    [("/proc/self/fd", "/dev/fd"), ("/proc/self/mounts", "/etc/mtab"), ("/run", "/var/run")];
/// What a shell reads when somebody logs in.
const PROFILE: &str = "/etc/profile";
const EFI: &str = "/sys/firmware/efi";

/// Mounts everything that is not mounted yet, and makes what programs expect; what failed.
pub(crate) fn mount_all() -> Vec<Error> {
    let mounts = TABLE.iter().map(|(kind, at, options)| {
        fs::create_dir_all(at).context(|| format!("making {at}"))?;
        mount_one(kind, at, options)
    });
    let mut failures: Vec<_> = mounts.filter_map(Result::err).collect();
    for folder in ["/run/halfhour", lifted::FOLDER, "/root", "/var/log"] {
        failures.extend(fs::create_dir_all(folder).context(|| format!("making {folder}")).err());
    }
    for (to, at) in LINKS {
        // It is there already after another start.
        drop(symlink(to, at));
    }
    failures.extend(program::run("/bin/busybox", &["--install", "-s", "/bin"]).err());
    failures.extend(prefer_whole_programs().err());
    failures
}

/// Debian's busybox prefers its own small programs to the whole ones on the medium; its `modprobe` cannot even read the
/// modules. At the shell the whole ones are meant.
fn prefer_whole_programs() -> Result<()> {
    let small = program::run("/bin/busybox", &["--list"])?;
    let mut profile = String::new();
    for name in small.lines().filter(|name| name.chars().all(|letter| letter.is_ascii_alphanumeric())) {
        let paths = ["/usr/sbin", "/usr/bin"].map(|folder| format!("{folder}/{name}"));
        let is_whole = |path: &&String| fs::canonicalize(path).is_ok_and(|found| !found.ends_with("busybox"));
        if let Some(path) = paths.iter().find(is_whole) {
            profile.push_str(&format!("alias {name}={path}\n"));
        }
    }
    fs::write(PROFILE, profile).context(|| format!("writing {PROFILE}"))
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
