//! Runs other people's programs: to their end, in the C locale, with what they complained about when they fail.

use imager_units::{Error, ErrorKind, Result};
use std::process::{Command, Stdio};

/// Every file on the medium, and the medium, is of this second (2026-01-01 00:00 UTC), so that the same inputs give the
/// same bytes.
pub const EPOCH_SECONDS: u64 = 1_767_225_600;

/// How much of what a failed program said is shown.
const SHOWN_LINES: usize = 8;

/// How tar, apt and xorriso say that the disk is full.
const NO_ROOM: [&str; 3] = ["No space left on device", "enough free space", "exceeds free space"];

/// A program of this machine in the C locale.
#[must_use]
pub fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
    plain(&mut command);
    command
}

/// Takes away what could make the output of a program depend on who runs it.
pub(crate) fn plain(command: &mut Command) {
    command.env("LC_ALL", "C").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", EPOCH_SECONDS.to_string());
    command.stdin(Stdio::null());
}

/// Runs it; what it printed.
///
/// # Errors
/// When it cannot be started or fails, with the end of what it said.
pub fn run(what: &str, command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| Error::io(format!("starting {what}"), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let is_full = NO_ROOM.iter().any(|words| said.contains(words));
    let kind = if is_full { ErrorKind::OutOfSpace } else { ErrorKind::Io };
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("; ");
    Err(Error::new(kind, format!("{what} failed ({}): {shown}", output.status)))
}
