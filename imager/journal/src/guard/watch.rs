//! The guard's own process.

use crate::freeze::urgent;
use crate::sys;
use imager_units::{Context, Error, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Above whoever works while it is frozen.
const PRIORITY: i32 = 50;
/// How long until it is thawed again, where that did not help or a filesystem was still freezing.
const AGAIN: Duration = Duration::from_millis(20);

/// Runs the guard: its standard input is the socket. Returns when the process at the other end has died or is done.
///
/// # Errors
/// `Io` when the socket or the system fails.
pub fn run() -> Result<()> {
    let line = std::io::stdin().as_fd().try_clone_to_owned().context(|| "the guard's socket".to_owned())?;
    become_immune();
    let _urgent = urgent::Urgent::new(PRIORITY);
    let mut line = Line { socket: UnixStream::from(line), heard: Vec::with_capacity(1 << 16) };
    while let Some(words) = line.next()? {
        let answer = match Armed::parse(&words) {
            Err(error) => Err(error),
            Ok(mut armed) => {
                urgent::lock_memory();
                line.say("armed")?;
                armed.watch(&mut line)
            }
        };
        match answer {
            Ok(Ended::Died) => return Ok(()),
            Ok(Ended::Done { thawed }) => line.say(if thawed { "1" } else { "0" })?,
            Err(error) => line.say(&format!("{error}: {}", cause(&error)))?,
        }
    }
    Ok(())
}

/// Nothing but `SIGKILL` ends it, and nothing of it lies on a filesystem that may have to be unmounted.
fn become_immune() {
    // Each is a precaution of its own: what is not allowed is done without.
    let _ignored = nix::unistd::setsid();
    let _ignored = SigSet::all().thread_block();
    let _ignored = std::env::set_current_dir("/");
    let _ignored = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// The socket, by lines.
struct Line {
    socket: UnixStream,
    heard: Vec<u8>,
}

impl Line {
    /// Waits for a line; `None` when there will be no more.
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if !self.read() {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Option<String> {
        let end = self.heard.iter().position(|byte| *byte == b'\n')?;
        let line = self.heard.drain(..=end).collect::<Vec<_>>();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads what is there; whether the other end still is.
    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        match self.socket.read(&mut piece) {
            Ok(0) => false,
            Ok(len) => {
                self.heard.extend_from_slice(&piece[..len]);
                true
            }
            Err(error) => error.kind() == std::io::ErrorKind::Interrupted,
        }
    }

    /// Waits so long for something to read.
    fn wait(&self, patience: Duration) -> bool {
        // Rounded up, or the last millisecond would be spent asking.
        let patience = PollTimeout::try_from(patience + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, patience).is_ok_and(|ready| ready > 0)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        match self.socket.write_all(format!("{line}\n").as_bytes()) {
            // Whoever died is found to be dead by the next reading.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            said => said.context(|| "answering".to_owned()),
        }
    }
}

/// How a freeze ended.
enum Ended {
    /// The process at the other end is gone.
    Died,
    /// It is done; whether the guard had to thaw.
    Done { thawed: bool },
}

/// What may be frozen.
struct Armed {
    /// By their descriptors in the other process.
    folders: Vec<(String, File)>,
    until: Instant,
    record: PathBuf,
}

impl Armed {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(5, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (verb, process, limit, numbers, record) = (next(), next(), next(), next(), next());
        let limit = limit.parse().ok().filter(|_| verb == "arm").map(Duration::from_millis);
        let limit = limit.ok_or_else(|| Error::corrupt(format!("not understood: {line:?}")))?;
        let open = |number: &str| {
            // The same folder of the same mount, even where its path leads elsewhere by now.
            let path = format!("/proc/{process}/fd/{number}");
            let opened = File::open(&path).context(|| format!("opening {path}"))?;
            Ok((number.to_owned(), opened))
        };
        let folders =
            numbers.split(',').filter(|number| !number.is_empty()).map(open).collect::<Result<_>>()?;
        Ok(Self { folders, until: Instant::now() + limit, record: record.into() })
    }

    /// Waits for the end of the freeze, or makes it.
    fn watch(&mut self, line: &mut Line) -> Result<Ended> {
        let mut thawed = false;
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if line.wait(left) {
                let is_there = line.read();
                while let Some(said) = line.take() {
                    match said.strip_prefix("not ") {
                        Some(number) => self.folders.retain(|(known, _)| known != number),
                        None => return Ok(Ended::Done { thawed }),
                    }
                }
                if !is_there {
                    self.thaw_for_good();
                    return Ok(Ended::Died);
                }
            } else if left.is_zero() {
                thawed |= self.thaw();
                self.until = Instant::now() + AGAIN;
            }
        }
    }

    /// Thaws all, the last frozen first; whether any was frozen.
    fn thaw(&self) -> bool {
        self.folders.iter().rev().fold(false, |any, (_, folder)| sys::thaw(folder).is_ok() | any)
    }

    /// Thaws all, the last frozen first, and forgets that they were frozen.
    fn thaw_for_good(&self) {
        for (_, folder) in self.folders.iter().rev() {
            // A filesystem that fails to thaw stays frozen, and may thaw later.
            let mut left = 250;
            while !matches!(sys::thaw(folder), Ok(()) | Err(Errno::EINVAL)) && left > 0 {
                left -= 1;
                std::thread::sleep(AGAIN);
            }
        }
        let _gone = std::fs::remove_file(&self.record);
    }
}
