//! The guard: a process that thaws what another has frozen when that dies or takes too long.
//!
//! A freeze outlives the process that asked for it, and nothing in the kernel ends it. So before each freeze a second
//! process holds every filesystem open; its memory is locked, it runs in real time, the kernel does not choose it when
//! memory runs out, and signals do not reach it. It waits on a socket. Whatever ends the first process closes the
//! other end, and then all freezing calls of that process have returned: everything is thawed, and the guard ends. It
//! is started as a program of its own, because a fork of a process with threads may do next to nothing safely.
//!
//! Lines on the socket: `arm PROCESS MILLISECONDS FD,FD… RECORD` is answered by `armed` when the guard holds the
//! filesystems behind these descriptors of the process, or by what went wrong; `not FD` takes one back that somebody
//! else froze; `done` is answered by `0`, or `1` when the guard had to thaw, or by what went wrong.

mod record;
mod watch;

pub(crate) use record::Record;
pub use record::{Released, release_abandoned};
pub use watch::run;

use imager_units::{Context, Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A guard of this process.
pub(crate) struct Guard {
    process: Child,
    line: Option<BufReader<UnixStream>>,
}

impl Guard {
    /// Starts one, by a program and its arguments.
    pub(crate) fn start(program: &[OsString]) -> Result<Self> {
        let say = || "starting the guard of the freeze".to_owned();
        let (ours, theirs) = UnixStream::pair().context(say)?;
        ours.set_read_timeout(Some(Duration::from_secs(10))).context(say)?;
        let (name, arguments) =
            program.split_first().ok_or_else(|| Error::new(ErrorKind::Invalid, "no guard was named"))?;
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context(say)?;
        Ok(Self { process, line: Some(BufReader::new(ours)) })
    }

    /// Has it hold the filesystems that `folders` lie on, for so long at most.
    pub(crate) fn arm(&mut self, folders: &[&File], limit: Duration, record: &Path) -> Result<()> {
        let numbers: Vec<_> = folders.iter().map(|folder| folder.as_raw_fd().to_string()).collect();
        let (process, numbers) = (std::process::id(), numbers.join(","));
        self.say(&format!("arm {process} {} {numbers} {}", limit.as_millis(), record.display()))?;
        match self.answer()?.as_str() {
            "armed" => Ok(()),
            wrong => Err(Error::new(ErrorKind::Io, format!("the guard of the freeze: {wrong}"))),
        }
    }

    /// Tells it that somebody else froze this one.
    pub(crate) fn leave(&mut self, folder: &File) -> Result<()> {
        self.say(&format!("not {}", folder.as_raw_fd()))
    }

    /// Tells it that everything is thawed; whether it had to do that itself.
    pub(crate) fn release(&mut self) -> Result<bool> {
        self.say("done")?;
        match self.answer()?.as_str() {
            "0" => Ok(false),
            "1" => Ok(true),
            wrong => Err(Error::new(ErrorKind::Io, format!("the guard of the freeze: {wrong}"))),
        }
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let to = self.line.as_ref().map(BufReader::get_ref);
        to.map_or(Ok(()), |mut to| to.write_all(format!("{line}\n").as_bytes()))
            .context(|| "telling the guard of the freeze".to_owned())
    }

    fn answer(&mut self) -> Result<String> {
        let mut answer = String::new();
        let from = self.line.as_mut().map_or(Ok(0), |from| from.read_line(&mut answer));
        match from.context(|| "hearing the guard of the freeze".to_owned())? {
            0 => Err(Error::new(ErrorKind::Io, "the guard of the freeze has died")),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It ends when the line does.
        self.line = None;
        if let Err(error) = self.process.wait() {
            tracing::debug!("waiting for the guard of the freeze: {error}");
        }
    }
}
