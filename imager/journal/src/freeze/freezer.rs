//! Freezing what is mounted, for real.
//!
//! `FIFREEZE` on one filesystem after the other, so that only the kernel's own work lies between them; the guard holds
//! them all before the first. Nothing here allocates, logs or touches a file between the first `FIFREEZE` and the last
//! `FITHAW`, unless something fails.

use super::chosen;
use super::urgent::{self, Urgent};
use super::{Freeze, FrozenFor};
use crate::guard::{Guard, Record, release_abandoned};
use crate::sys;
use imager_disk::usage::MountedFilesystem;
use imager_disk::{DeviceNumber, System};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is left to thaw everything before the guard does.
const RESERVE: Duration = Duration::from_millis(500);

/// How to freeze.
#[derive(Clone, Debug)]
pub struct FreezeOptions {
    /// How long the work may take.
    pub budget: Duration,
    /// How long anything may be frozen at all, the kernel's own work included, before the guard thaws it.
    pub limit: Duration,
    /// The guard: a program that calls [`guard::run`](crate::guard::run), and its arguments.
    pub guard: Vec<OsString>,
    /// Where it is written down what is frozen; in memory.
    pub records: PathBuf,
}

impl Default for FreezeOptions {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(100),
            limit: Duration::from_secs(4),
            guard: ["/proc/self/exe", "freeze-guard"].map(OsString::from).to_vec(),
            records: PathBuf::from("/run/halfhour/frozen"),
        }
    }
}

/// The mounted filesystems that lie on some disks.
pub struct Freezer {
    system: System,
    disks: Vec<DeviceNumber>,
    options: FreezeOptions,
    filesystems: Vec<MountedFilesystem>,
    /// Those that do not know how to freeze.
    unfreezable: Vec<DeviceNumber>,
    guard: Option<Guard>,
}

impl Freezer {
    /// Those on `disks`: whole disks, partitions, or what is built on them. Thaws first what an earlier process left
    /// frozen when it died.
    ///
    /// # Errors
    /// `Io`, `NotFound` when the kernel's description cannot be read.
    pub fn open(system: System, disks: &[DeviceNumber], options: FreezeOptions) -> Result<Self> {
        release(&options.records);
        let filesystems = chosen::choose(&system, disks)?;
        let unfreezable = Vec::new();
        Ok(Self { system, disks: disks.to_vec(), options, filesystems, unfreezable, guard: None })
    }

    /// What is frozen, in this order, but for what turns out not to be freezable.
    pub fn filesystems(&self) -> &[MountedFilesystem] {
        &self.filesystems
    }

    /// Whether this one does not know how to freeze. Known after the first freeze.
    pub fn is_unfreezable(&self, filesystem: &MountedFilesystem) -> bool {
        self.unfreezable.contains(&filesystem.number)
    }

    /// Opens everything, which must be what was there at first.
    fn open_all(&self) -> Result<Vec<Held>> {
        let now = chosen::choose(&self.system, &self.disks)?;
        let numbers =
            |found: &[MountedFilesystem]| found.iter().map(|found| found.number).collect::<Vec<_>>();
        if numbers(&now) != numbers(&self.filesystems) {
            return Err(Error::new(ErrorKind::Cancelled, "a filesystem was mounted or unmounted meanwhile"));
        }
        let open = |found: &MountedFilesystem| {
            let folder = chosen::open(found)?;
            let at = found.mounts.first().map(|(_, at)| at.clone()).unwrap_or_default();
            Ok(Held { folder, number: found.number, at, is_frozen: false })
        };
        now.iter().map(open).collect()
    }

    /// A guard that holds them.
    fn arm(&mut self, held: &[Held], record: &Path) -> Result<()> {
        let folders: Vec<_> = held.iter().map(|held| &held.folder).collect();
        let limit = self.options.limit;
        if let Some(guard) = &mut self.guard {
            if guard.arm(&folders, limit, record).is_ok() {
                return Ok(());
            }
            tracing::warn!("the guard of the freeze has died; another is started");
        }
        let guard = self.guard.insert(Guard::start(&self.options.guard)?);
        guard.arm(&folders, limit, record)
    }

    /// Freezes all, unless one fails.
    fn freeze(&mut self, held: &mut [Held]) -> Result<()> {
        for one in held {
            match sys::freeze(&one.folder) {
                Ok(()) => one.is_frozen = true,
                Err(Errno::EOPNOTSUPP) => self.unfreezable.push(one.number),
                Err(Errno::EBUSY) => {
                    // Before anything else, lest the guard thaws what is not ours.
                    let left = self.guard.as_mut().map_or(Ok(()), |guard| guard.leave(&one.folder));
                    let what = format!("{} is frozen by somebody else", one.at.display());
                    return left.and(Err(Error::new(ErrorKind::Denied, what)));
                }
                Err(error) => return Err(Error::io(format!("freezing {}", one.at.display()), error.into())),
            }
        }
        Ok(())
    }

    /// Freezes, works and thaws; how long each took.
    fn hold(&mut self, held: &mut [Held], work: &mut dyn FnMut(Instant)) -> Result<FrozenFor> {
        let start = Instant::now();
        let latest = start + self.options.limit.saturating_sub(RESERVE);
        let frozen = self.freeze(held);
        let freezing = start.elapsed();
        if frozen.is_err() || Instant::now() >= latest {
            let thawed = thaw(held);
            frozen?;
            thawed?;
            let what = format!("freezing alone took {} ms", freezing.as_millis());
            return Err(Error::new(ErrorKind::Cancelled, what));
        }
        let until = latest.min(Instant::now() + self.options.budget);
        let worked = catch_unwind(AssertUnwindSafe(|| work(until)));
        let (end, thawed) = (Instant::now(), thaw(held));
        let took = FrozenFor { freezing, work: end - start - freezing, thawing: end.elapsed() };
        worked.unwrap_or_else(|panic| resume_unwind(panic));
        thawed.map(|()| took)
    }
}

impl Freeze for Freezer {
    fn sync(&mut self) -> Result<()> {
        let held = self.open_all()?;
        std::thread::scope(|scope| {
            let sync = |one: &Held| {
                nix::unistd::syncfs(&one.folder)
                    .map_err(std::io::Error::from)
                    .context(|| format!("syncing {}", one.at.display()))
            };
            let syncs: Vec<_> = held.iter().map(|one| scope.spawn(move || sync(one))).collect();
            let results =
                syncs.into_iter().map(|sync| sync.join().unwrap_or_else(|panic| resume_unwind(panic)));
            results.collect()
        })
    }

    fn frozen(&mut self, work: &mut dyn FnMut(Instant)) -> Result<FrozenFor> {
        let mut held = self.open_all()?;
        held.retain(|held| !self.unfreezable.contains(&held.number));
        let places: Vec<_> = held.iter().map(|held| (held.number, held.at.clone())).collect();
        // The guard removes what is written there, so it is told first.
        let place = Record::place(&self.options.records);
        self.arm(&held, &place)?;
        let record = Record::write(place, &places).inspect_err(|_| self.guard = None)?;
        urgent::lock_memory();
        let urgent = Urgent::as_a_freeze();
        let took = self.hold(&mut held, work);
        drop(urgent);
        if held.iter().any(|held| held.is_frozen) {
            // It does not give up as soon.
            self.guard = None;
        }
        // A guard that died meanwhile is replaced before the next freeze.
        let guarded = self.guard.as_mut().is_some_and(|guard| guard.release().unwrap_or(false));
        drop(record);
        if guarded && took.is_ok() {
            return Err(Error::new(ErrorKind::Cancelled, "the guard thawed what took too long"));
        }
        took
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        urgent::unlock_memory();
    }
}

/// Thaws what dead processes left. What does not thaw is no reason to freeze nothing else.
fn release(records: &Path) {
    match release_abandoned(records) {
        Err(error) => tracing::warn!("{error}"),
        Ok(released) => {
            for left in released.into_iter().filter(|left| left.thawed) {
                tracing::warn!("{} was left frozen by a process that died, and is thawed", left.at.display());
            }
        }
    }
}

/// A filesystem held open, and frozen for a while.
struct Held {
    folder: File,
    number: DeviceNumber,
    at: PathBuf,
    is_frozen: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_frozen {
            let _last_resort = sys::thaw(&self.folder);
        }
    }
}

/// Thaws all that are frozen, the last first; `Cancelled` when one was not any more.
fn thaw(held: &mut [Held]) -> Result<()> {
    let mut result = Ok(());
    for one in held.iter_mut().rev().filter(|one| one.is_frozen) {
        match sys::thaw(&one.folder) {
            Ok(()) => one.is_frozen = false,
            Err(Errno::EINVAL) => {
                one.is_frozen = false;
                let what = format!("{} was thawed by somebody else", one.at.display());
                result = result.and(Err(Error::new(ErrorKind::Cancelled, what)));
            }
            Err(error) => result = Err(Error::io(format!("thawing {}", one.at.display()), error.into())),
        }
    }
    result
}
