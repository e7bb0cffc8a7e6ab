//! Write protection: the kernel refuses writes to every disk and partition, from the moment that it knows them. A
//! restore lifts that for what its plan names, and puts it back.
//!
//! A device is protected once, when it comes: a restore may be writing to it when anybody looks again. Which ones were
//! is kept in a file, so that a manager that was started again knows it too.

use crate::log;
use imager_disk::{Access, Device, Protection};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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

/// Those that were asked and have not answered in time. They are not asked again meanwhile, nor told of again.
static SILENT: LazyLock<Mutex<HashSet<u64>>> = LazyLock::new(Mutex::default);

/// Has disks and partitions refuse writes, by the kernel's names, unless it was done before; what fails is told. How many
/// of these refuse writes now.
///
/// All are asked side by side: however many never answer, nobody waits for longer than for one.
pub(crate) fn protect(names: &[String]) -> usize {
    let until = Instant::now() + ANSWER;
    let asked: Vec<_> = names.iter().filter(|name| is_disk(name)).map(|name| (name, ask(name))).collect();
    let mut count = 0;
    for (name, asked) in asked {
        match asked.and_then(|asked| asked.answer(name, until)) {
            Ok(is_done) => count += usize::from(is_done),
            Err(error) => log::failed(&format!("write-protecting {name}: {}", log::chain(&error)), NEXT),
        }
    }
    count
}

/// Has the next [`protect`] do it again.
pub(crate) fn forget(name: &str) {
    if let Some(id) = id(name) {
        held(&PROTECTED).remove(&id);
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

enum Asked {
    Before(bool),
    Now(u64, Receiver<Result<bool>>),
}

fn ask(name: &str) -> Result<Asked> {
    let Some(id) = id(name) else { return Ok(Asked::Before(false)) };
    if held(&PROTECTED).contains(&id) {
        return Ok(Asked::Before(true));
    }
    if held(&SILENT).contains(&id) {
        return Ok(Asked::Before(false));
    }
    let (sender, receiver) = sync_channel(1);
    let own = name.to_owned();
    let work = move || {
        let answer = set(&own);
        let is_done = matches!(answer, Ok(true));
        if is_done {
            note(id);
        }
        // In this order, for whoever gives up just now.
        drop(sender.send(answer));
        if held(&SILENT).remove(&id) && is_done {
            log::say(&format!("/dev/{own} answers after all, and is write-protected"));
        }
    };
    let spawned = thread::Builder::new().name(format!("protect {name}"));
    spawned.spawn(work).context(|| "starting a thread".to_owned())?;
    Ok(Asked::Now(id, receiver))
}

impl Asked {
    /// Whether it refuses writes; `false` for what holds nothing.
    fn answer(self, name: &str, until: Instant) -> Result<bool> {
        let (id, receiver) = match self {
            Self::Before(is_done) => return Ok(is_done),
            Self::Now(id, receiver) => (id, receiver),
        };
        if let Ok(answer) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            return answer;
        }
        let mut silent = held(&SILENT);
        // Who answers only now takes its number out after this.
        receiver.try_recv().unwrap_or_else(|_| {
            silent.insert(id);
            let what = format!("/dev/{name} does not answer for {} s", ANSWER.as_secs());
            Err(Error::new(ErrorKind::Io, what))
        })
    }
}

fn note(id: u64) {
    held(&PROTECTED).insert(id);
    let file = File::options().append(true).create(true).open(FILE);
    // Without it a manager that starts again protects once more, which is the safe side.
    drop(file.and_then(|mut file| writeln!(file, "{id}")));
}

fn held(set: &'static Mutex<HashSet<u64>>) -> MutexGuard<'static, HashSet<u64>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
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
