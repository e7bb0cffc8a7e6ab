//! One thing at a time: who writes a disk or a share holds a lock, and says in its file what it does, so that the
//! console on the other terminal can tell.
//!
//! The `imager` that does the work inherits the lock: should its console die, nobody begins anything before it is done.

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A lock that is held as long as this, or a process that inherited it, lives.
#[derive(Clone, Debug)]
pub(crate) struct Lock(Arc<File>);

fn path(state: &Path) -> PathBuf {
    state.join("operation")
}

impl Lock {
    /// Takes it; `None` when somebody else has it.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn take(state: &Path) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(state)?;
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path(state))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(Arc::new(file)))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Says what is done. That nobody can read it hurts nobody.
    pub(crate) fn say(&self, lines: &[String]) {
        let text = lines.join("\n");
        let said = self.0.set_len(0).and_then(|()| self.0.write_all_at(text.as_bytes(), 0));
        drop(said);
    }

    /// Begins a process that has the lock too.
    ///
    /// # Errors
    /// Those of `begin`, or when it cannot be handed on.
    pub(crate) fn hand_on<T>(&self, begin: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        fcntl_setfd(&*self.0, FdFlags::empty())?;
        let begun = begin();
        fcntl_setfd(&*self.0, FdFlags::CLOEXEC)?;
        begun
    }
}

/// What whoever has the lock says; `None` when nobody has it.
pub(crate) fn others(state: &Path) -> Option<Vec<String>> {
    let mut file = File::open(path(state)).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(lines(&mut file)),
        _ => None,
    }
}

/// What was said last, whoever said it.
pub(crate) fn last(state: &Path) -> Vec<String> {
    File::open(path(state)).map(|mut file| lines(&mut file)).unwrap_or_default()
}

fn lines(file: &mut File) -> Vec<String> {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) => text.lines().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

/// Adds a line to the log that the rescue environment keeps.
pub(crate) fn log(state: &Path, line: &str) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split(' ').next().unwrap_or_default();
    let file = File::options().append(true).create(true).open(log_path(state));
    // Without a log the work goes on.
    drop(file.and_then(|mut file| writeln!(file, "[{seconds:>8}] console: {line}")));
}

/// Where the log is.
pub(crate) fn log_path(state: &Path) -> PathBuf {
    state.join("log")
}

#[cfg(test)]
mod tests {
    use super::{Lock, last, others};

    #[test]
    fn one_thing_at_a_time_and_the_other_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path();
        assert_eq!(others(state), None);
        let lock = Lock::take(state).expect("a file").expect("it is free");
        lock.say(&["restore of web1".to_owned(), "half".to_owned()]);
        assert!(Lock::take(state).expect("a file").is_none());
        assert_eq!(others(state).expect("it is held"), ["restore of web1", "half"]);
        drop(lock);
        assert_eq!(others(state), None);
        assert_eq!(last(state).len(), 2);
        assert!(Lock::take(state).expect("a file").is_some());
    }

    #[test]
    fn a_process_that_inherited_the_lock_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = Lock::take(folder.path()).expect("a file").expect("it is free");
        let begin = || std::process::Command::new("sleep").arg("60").spawn();
        let mut child = lock.hand_on(begin).expect("sleep starts");
        drop(lock);
        assert!(others(folder.path()).is_some(), "the console is gone, its work is not");
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        assert_eq!(others(folder.path()), None);
    }
}
