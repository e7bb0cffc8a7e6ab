//! What is frozen, written down in memory (`/run`) while it is: for the case that the guard dies as well.
//!
//! The process that froze holds a lock on its record, which ends with it; so a record without a lock is of a process that
//! died. One line per filesystem: its number, and where it is mounted.

use crate::sys;
use imager_disk::{DeviceNumber, System};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind as Os, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The record of a freeze of this process; gone when dropped.
pub(crate) struct Record {
    path: PathBuf,
    _locked: File,
}

impl Record {
    /// Where the next one goes.
    pub(crate) fn place(folder: &Path) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        folder.join(format!("{}-{number}", std::process::id()))
    }

    /// Writes one.
    pub(crate) fn write(path: PathBuf, filesystems: &[(DeviceNumber, PathBuf)]) -> Result<Self> {
        let say = || format!("writing {}", path.display());
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
        let mut file = File::create(&path).context(say)?;
        file.lock().context(say)?;
        for (number, at) in filesystems {
            writeln!(file, "{number} {}", at.display()).context(say)?;
        }
        Ok(Self { path, _locked: file })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The guard may have removed it; one that stays is of something that is not frozen.
        let _gone = fs::remove_file(&self.path);
    }
}

/// What was found of a process that died while it had something frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Where the filesystem was mounted.
    pub at: PathBuf,
    /// Whether it was frozen, and is not any more. If not, nothing was left to do.
    pub thawed: bool,
}

/// Thaws what processes that died have left frozen, by their records in `folder`.
///
/// # Errors
/// `Io` when the records cannot be read, or a filesystem does not thaw; `NotFound` when one is not mounted any more. The
/// others are thawed in any case.
pub fn release_abandoned(folder: &Path) -> Result<Vec<Released>> {
    let mut released = Vec::new();
    let mut first_error = None;
    for path in records(folder)? {
        match release(&path, &mut released) {
            Ok(()) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(released), Err)
}

fn records(folder: &Path) -> Result<Vec<PathBuf>> {
    let say = || format!("reading {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == Os::NotFound => return Ok(Vec::new()),
        entries => entries.context(say)?,
    };
    let paths = entries.map(|entry| Ok(entry.context(say)?.path()));
    paths.collect()
}

fn release(path: &Path, released: &mut Vec<Released>) -> Result<()> {
    let say = || format!("reading {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == Os::NotFound => return Ok(()),
        file => file.context(say)?,
    };
    match file.try_lock() {
        // Its process lives.
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(Error::io(say(), error)),
        Ok(()) => {}
    }
    let text = fs::read(path).context(say)?;
    let mut result = Ok(());
    for line in String::from_utf8_lossy(&text).lines().rev() {
        match thaw(line) {
            Ok(found) => released.push(found),
            Err(error) => result = Err(error),
        }
    }
    if result.is_ok() {
        fs::remove_file(path).context(|| format!("removing {}", path.display()))?;
    }
    result
}

/// Thaws the filesystem with the number, wherever it is mounted by now.
fn thaw(line: &str) -> Result<Released> {
    let (number, at) = line.split_once(' ').ok_or_else(|| Error::corrupt(format!("no record: {line:?}")))?;
    let number: DeviceNumber = number.parse()?;
    let found = System::new().filesystems()?.into_iter().find(|found| found.number == number);
    let found = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("what was mounted at {at} and left frozen is not mounted"))
    })?;
    let thawed = match sys::thaw(&crate::freeze::chosen::open(&found)?) {
        Ok(()) => true,
        Err(Errno::EINVAL) => false,
        Err(error) => return Err(Error::io(format!("thawing {at}"), error.into())),
    };
    Ok(Released { at: at.into(), thawed })
}
