//! One hook, run to its end or to its time's.

use imager_units::{Context, Error, ErrorKind, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether it has ended: it may, and leave something that keeps its standard error open.
const LOOK: Duration = Duration::from_millis(20);
/// How many of its last words are kept.
const WORDS_BYTES: usize = 2048;

/// Runs a program with `phase` as its argument, and `told` on its standard input.
///
/// # Errors
/// `Denied` when it fails, with its last words, or takes longer than `timeout`: then it and all that it started is
/// killed. `Io` when it cannot be run.
pub(super) fn run(program: &Path, phase: &str, told: &Value, timeout: Duration) -> Result<()> {
    let say = || format!("running {}", program.display());
    let mut command = Command::new(program);
    command.arg(phase).current_dir("/").process_group(0);
    command.stdin(Stdio::from(input(told).context(say)?)).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut hook = Hook { process: command.spawn().context(say)?, words: Vec::new() };
    let refuse = |what: String, words: &[u8]| {
        let words = String::from_utf8_lossy(words);
        let lines: Vec<_> = words.trim().lines().rev().take(5).collect();
        let words: Vec<_> = lines.into_iter().rev().collect();
        let words = if words.is_empty() { String::new() } else { format!(": {}", words.join("; ")) };
        Error::new(ErrorKind::Denied, format!("{} {phase} {what}{words}", program.display()))
    };
    match hook.wait(Instant::now() + timeout).context(say)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(refuse(format!("failed ({status})"), &hook.words)),
        None => Err(refuse(format!("took longer than {} s", timeout.as_secs()), &hook.words)),
    }
}

/// A file that is nowhere, so that it does not matter whether it is read.
fn input(told: &Value) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"hook", MFdFlags::MFD_CLOEXEC)?);
    writeln!(file, "{told}")?;
    file.rewind()?;
    Ok(file)
}

struct Hook {
    process: Child,
    words: Vec<u8>,
}

impl Hook {
    /// Waits for its end; `None` when it was killed for taking too long.
    fn wait(&mut self, until: Instant) -> std::io::Result<Option<ExitStatus>> {
        let mut stderr = self.process.stderr.take();
        loop {
            if let Some(status) = self.process.try_wait()? {
                // What it said at its end.
                while self.listen(&mut stderr, Duration::ZERO) {}
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            if !self.listen(&mut stderr, LOOK) {
                std::thread::sleep(if stderr.is_none() { LOOK } else { Duration::ZERO });
            }
        }
    }

    /// Hears what it says within `patience`; whether it said anything.
    fn listen(&mut self, stderr: &mut Option<ChildStderr>, patience: Duration) -> bool {
        let Some(from) = stderr else { return false };
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        let ready = poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], patience).unwrap_or(0) > 0;
        let mut piece = [0; 1024];
        match ready.then(|| from.read(&mut piece)) {
            None => false,
            Some(Ok(len)) if len > 0 => {
                self.words.extend_from_slice(piece.get(..len).unwrap_or_default());
                let extra = self.words.len().saturating_sub(WORDS_BYTES);
                self.words.drain(..extra);
                true
            }
            Some(_) => {
                *stderr = None;
                false
            }
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        // What ended by itself may have left something running on purpose.
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let group = i32::try_from(self.process.id()).map(Pid::from_raw);
            let _killed = group.map(|group| killpg(group, Signal::SIGKILL));
            let _reaped = self.process.wait();
        }
    }
}
