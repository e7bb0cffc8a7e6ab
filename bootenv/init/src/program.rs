//! Running small programs and telling what went wrong with them. None is waited for without end.

use imager_units::{Context, Error, ErrorKind, Result};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// Longer than anything that is run here takes.
const MOST: Duration = Duration::from_secs(60);

/// Runs a program to its end; what it printed.
///
/// # Errors
/// `Io` with what it said, when it cannot be started or fails, or does not end.
pub(crate) fn run(program: &str, words: &[&str]) -> Result<String> {
    run_within(MOST, program, words)
}

/// The same. A program that does not end within `most` is left alone: what hangs in the kernel cannot be ended.
///
/// # Errors
/// As above.
pub(crate) fn run_within(most: Duration, program: &str, words: &[&str]) -> Result<String> {
    let line = || format!("{program} {}", words.join(" "));
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().context(line)?;
    let (sender, ended) = sync_channel(1);
    let wait = move || drop(sender.send(child.wait_with_output()));
    thread::Builder::new().name(program.to_owned()).spawn(wait).context(line)?;
    let Ok(output) = ended.recv_timeout(most) else {
        let what = format!("{} has not ended after {} s", line(), most.as_secs());
        return Err(Error::new(ErrorKind::Io, what));
    };
    let output = output.context(line)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = said.trim().lines().last().unwrap_or_default().to_owned();
    Err(Error::new(ErrorKind::Io, format!("{}: {}: {said}", line(), output.status)))
}
