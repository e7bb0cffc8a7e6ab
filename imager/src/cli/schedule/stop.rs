//! Being asked to stop, while a child works or nobody does.

use imager_units::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

/// The signals that ask us to stop. A child of ours is in a group of its own, and is asked by us.
pub(super) struct Stop {
    asked: UnixStream,
    was_asked: bool,
}

impl Stop {
    pub(super) fn new() -> Result<Self> {
        let say = || "preparing for signals".to_owned();
        let (asked, ask) = UnixStream::pair().context(say)?;
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::low_level::pipe::register(signal, ask.try_clone().context(say)?).context(say)?;
        }
        Ok(Self { asked, was_asked: false })
    }

    /// Whether we were asked to stop.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked
    }

    /// Waits so long, or until somebody asks us to stop.
    pub(super) fn sleep(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while !self.was_asked && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now()).min(Duration::from_secs(60));
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            self.poll(None::<&UnixStream>, left)?;
        }
        Ok(())
    }

    /// Reads what a child prints until it closes its output, and asks it to stop when we are asked.
    pub(super) fn read(&mut self, child: &mut Child) -> Result<Vec<u8>> {
        let mut printed = Vec::new();
        let Some(mut out) = child.stdout.take() else { return Ok(printed) };
        let mut piece = [0; 1 << 16];
        loop {
            let before = self.was_asked;
            let has_more = self.poll(Some(&out), PollTimeout::NONE)?;
            if self.was_asked && !before {
                let process = i32::try_from(child.id()).map(Pid::from_raw);
                // One that is over already needs no telling.
                let _ignored = process.map(|process| kill(process, Signal::SIGTERM));
            }
            if has_more {
                match out.read(&mut piece).context(|| "reading what a command printed".to_owned())? {
                    0 => return Ok(printed),
                    count => printed.extend_from_slice(piece.get(..count).unwrap_or_default()),
                }
            }
        }
    }

    /// Waits for the one or the other: whether there is output.
    fn poll(&mut self, out: Option<&impl AsFd>, timeout: PollTimeout) -> Result<bool> {
        let (is_asked, has_more) = {
            let mut waited: Vec<_> = vec![PollFd::new(self.asked.as_fd(), PollFlags::POLLIN)];
            waited.extend(out.map(|out| PollFd::new(out.as_fd(), PollFlags::POLLIN)));
            match poll(&mut waited, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => {
                    return Err(std::io::Error::from(errno)).context(|| "waiting".to_owned());
                }
            }
            let is = |at: usize| waited.get(at).and_then(PollFd::any).unwrap_or(false);
            (is(0), is(1))
        };
        if is_asked {
            self.was_asked = true;
            // Else it would not be waited for again.
            let _read = self.asked.read(&mut [0; 64]).context(|| "reading a signal".to_owned())?;
        }
        Ok(has_more)
    }
}
