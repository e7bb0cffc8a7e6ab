//! What the rescue environment says: lines with the seconds since the start, on every terminal that no program has, and
//! in a file for later.
//!
//! Nothing here ever waits for a terminal or fails: a console that somebody stopped with Ctrl-S, or whose cable is
//! loose, must not stop a restore.

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Where everything is kept.
const FILE: &str = "/run/halfhour/log";
/// Where it goes when it is too long; what was there before is forgotten.
const OLD: &str = "/run/halfhour/log.old";
const BYTES_MAX: u64 = 1 << 20;
/// How long a terminal may take to have room again, in milliseconds; a line at 9600 baud takes a tenth of a second.
const ROOM: u16 = 300;

/// The terminals, and whether a program has them.
static TERMINALS: Mutex<Vec<(String, bool)>> = Mutex::new(Vec::new());

/// From now on lines are shown on these terminals. Until then they go where the kernel's messages go.
pub(crate) fn show_on(terminals: &[String]) {
    let all = terminals.iter().map(|path| (path.clone(), false)).collect();
    *TERMINALS.lock().unwrap_or_else(PoisonError::into_inner) = all;
}

/// While this lives, a program has the terminal, and lines do not go there.
pub(crate) struct Hidden(String);

impl Hidden {
    /// From now on.
    pub(crate) fn on(terminal: &str) -> Self {
        set_taken(terminal, true);
        Self(terminal.to_owned())
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        set_taken(&self.0, false);
    }
}

fn set_taken(path: &str, taken: bool) {
    let mut terminals = TERMINALS.lock().unwrap_or_else(PoisonError::into_inner);
    terminals.iter_mut().filter(|(found, _)| found == path).for_each(|(_, is_taken)| *is_taken = taken);
}

/// A line for everybody.
pub(crate) fn say(line: &str) {
    let text = stamped(line);
    keep(&text);
    let terminals = TERMINALS.lock().unwrap_or_else(PoisonError::into_inner);
    for (terminal, _) in terminals.iter().filter(|(_, is_taken)| !is_taken) {
        show(&text, terminal);
    }
    if terminals.is_empty() {
        show(&text, "/dev/console");
    }
}

/// A line for one terminal, of which nobody else has to know.
pub(crate) fn say_on(terminal: &str, line: &str) {
    show(&stamped(line), terminal);
}

/// A line about what failed, with what a person can do about it.
pub(crate) fn failed(what: &str, next: &str) {
    say(&format!("failed: {what}"));
    if !next.is_empty() {
        say(&format!("  next: {next}"));
    }
}

fn stamped(line: &str) -> String {
    let seconds = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = seconds.split(' ').next().unwrap_or_default();
    format!("[{seconds:>8}] halfhour: {line}\n")
}

/// As much as the terminal takes soon.
fn show(text: &str, terminal: &str) {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let Ok(mut terminal) = OpenOptions::new().write(true).custom_flags(flags).open(terminal) else { return };
    // A terminal in raw mode wants the carriage return too.
    let text = text.replace('\n', "\r\n");
    let mut left = text.as_bytes();
    while !left.is_empty() {
        match terminal.write(left) {
            Ok(0) => return,
            Ok(len) => left = left.get(len..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(terminal.as_fd(), PollFlags::POLLOUT)];
                if !matches!(poll(&mut fds, PollTimeout::from(ROOM)), Ok(1)) {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn keep(text: &str) {
    if Path::new(FILE).metadata().is_ok_and(|metadata| metadata.len() > BYTES_MAX) {
        drop(std::fs::rename(FILE, OLD));
    }
    let file: std::io::Result<File> = OpenOptions::new().append(true).create(true).open(FILE);
    drop(file.and_then(|mut file| file.write_all(text.as_bytes())));
}

/// An error with all its causes.
pub(crate) fn chain(error: &imager_units::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::show;
    use nix::fcntl::OFlag;
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

    #[test]
    fn a_terminal_that_nobody_reads_keeps_nobody_waiting() {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
        let terminal = ptsname_r(&master).expect("a name");
        // Far more than it takes: without an end to waiting, this test has none.
        show(&"words\n".repeat(1 << 16), &terminal);
        show("more\n", &terminal);
        show("nowhere\n", "/dev/there-is-no-such-terminal");
    }
}
