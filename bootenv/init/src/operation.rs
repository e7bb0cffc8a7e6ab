//! The lock of whoever restores or captures, which the console respects too (its `lock.rs`): `imager` gets it for its
//! standard input, so that it is held until `imager` has ended, even when who started it was killed.

use imager_units::{Context, Error, ErrorKind, Result};
use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

const FILE: &str = "/run/halfhour/operation";

/// The lock, held.
pub(crate) struct Operation(File);

impl Operation {
    /// Takes it, for what `line` says.
    ///
    /// # Errors
    /// `Denied` when somebody else has it.
    pub(crate) fn begin(line: &str) -> Result<Self> {
        let say = || format!("opening {FILE}");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(FILE);
        let file = file.context(say)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(ErrorKind::Denied, "another restore or capture runs on this machine"));
            }
            Err(TryLockError::Error(error)) => return Err(error).context(say),
        }
        let operation = Self(file);
        operation.say(line);
        Ok(operation)
    }

    /// What others read about it.
    pub(crate) fn say(&self, line: &str) {
        // That nobody can read it hurts nobody.
        drop(self.0.set_len(0).and_then(|()| self.0.write_all_at(line.as_bytes(), 0)));
    }

    /// For a process that holds it too.
    pub(crate) fn share(&self) -> Result<Stdio> {
        self.0.try_clone().map(Stdio::from).context(|| format!("handing on {FILE}"))
    }
}

/// What goes on, if anything does.
pub(crate) fn running() -> Option<String> {
    let file = File::open(FILE).ok()?;
    let is_held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    is_held.then(|| std::fs::read_to_string(FILE).unwrap_or_default().lines().next().unwrap_or("").to_owned())
}
