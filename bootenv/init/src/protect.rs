//! Write protection: the kernel refuses writes to every disk and partition, from the moment that it knows them. A
//! restore lifts that for what its plan names, and puts it back.
//!
//! A device is protected once, when it comes: a restore may be writing to it when anybody looks again. Which ones were
//! is kept in a file, so that a manager that was started again knows it too.

use imager_disk::{Access, Device, Protection};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Memory that looks like a disk, and drives whose opening moves something.
const NOT_DISKS: [&str; 4] = ["loop", "ram", "zram", "fd"];
const CLASS: &str = "/sys/class/block";
const FILE: &str = "/run/halfhour/protected";
/// How long a disk may take to answer. Later it is protected all the same, but nobody waits for it.
const ANSWER: Duration = Duration::from_secs(10);

/// What to do where it fails.
pub(crate) const NEXT: &str = "unplug it if what is on it matters: programs may write to it";

/// Devices that were protected, by the numbers of their folders in sysfs: those are never used again.
static PROTECTED: LazyLock<Mutex<HashSet<u64>>> = LazyLock::new(|| {
    let kept = fs::read_to_string(FILE).unwrap_or_default();
    Mutex::new(kept.lines().filter_map(|line| line.parse().ok()).collect())
});

/// Has a disk or partition refuse writes, by the kernel's name, unless it was done before; `false` for what is no disk.
///
/// # Errors
/// `Io` when it cannot be opened, or will not, or does not answer.
pub(crate) fn protect(name: &str) -> Result<bool> {
    if !is_disk(name) {
        return Ok(false);
    }
    let Some(id) = id(name) else { return Ok(false) };
    if PROTECTED.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
        return Ok(true);
    }
    let is_done = within(ANSWER, name)?;
    if is_done {
        PROTECTED.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        let file = File::options().append(true).create(true).open(FILE);
        // Without it a manager that starts again protects once more, which is the safe side.
        drop(file.and_then(|mut file| writeln!(file, "{id}")));
    }
    Ok(is_done)
}

/// Has the next [`protect`] do it again.
pub(crate) fn forget(name: &str) {
    if let Some(id) = id(name) {
        PROTECTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Every disk and partition that the kernel knows now: its names.
pub(crate) fn known() -> Result<Vec<String>> {
    let folder = PathBuf::from(CLASS);
    let say = || format!("reading {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).context(say)? {
        names.extend(entry.context(say)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn within(most: Duration, name: &str) -> Result<bool> {
    let (sender, answer) = sync_channel(1);
    let own = name.to_owned();
    let spawned = thread::Builder::new().name(format!("protect {name}"));
    spawned.spawn(move || drop(sender.send(set(&own)))).context(|| "starting a thread".to_owned())?;
    answer.recv_timeout(most).unwrap_or_else(|_| {
        let what = format!("/dev/{name} does not answer for {} s", most.as_secs());
        Err(Error::new(ErrorKind::Io, what))
    })
}

fn set(name: &str) -> Result<bool> {
    let node = Path::new("/dev").join(name.replace('!', "/"));
    match Device::open(&node, Access::Read, None) {
        Ok(device) => device.protect(Protection::ReadOnly).map(|()| true),
        // A drive without a medium holds nothing to protect; the node of what was pulled out is gone.
        Err(error) if is_empty(name) || has_no_medium(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_disk(name: &str) -> bool {
    let is_other = NOT_DISKS.iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    });
    // The paths of an NVMe disk of several have no nodes, only the disk has.
    let is_hidden = fs::read_to_string(format!("{CLASS}/{name}/hidden")).is_ok_and(|text| text.trim() == "1");
    !is_other && !is_hidden
}

fn id(name: &str) -> Option<u64> {
    fs::metadata(format!("{CLASS}/{}", name.replace('/', "!"))).ok().map(|metadata| metadata.ino())
}

/// Whether the kernel says that there is nothing on it.
fn is_empty(name: &str) -> bool {
    let size = fs::read_to_string(format!("{CLASS}/{}/size", name.replace('/', "!"))).unwrap_or_default();
    matches!(size.trim(), "" | "0")
}

fn has_no_medium(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.and_then(std::io::Error::raw_os_error) == Some(Errno::ENOMEDIUM as i32)
}
