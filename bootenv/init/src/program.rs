//! Running small programs and telling what went wrong with them.

use imager_units::{Context, Error, ErrorKind, Result};
use std::process::{Command, Stdio};

/// Runs a program to its end; what it printed.
///
/// # Errors
/// `Io` with what it said, when it cannot be started or fails.
pub(crate) fn run(program: &str, words: &[&str]) -> Result<String> {
    let line = || format!("{program} {}", words.join(" "));
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().context(line)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = said.trim().lines().last().unwrap_or_default().to_owned();
    Err(Error::new(ErrorKind::Io, format!("{}: {}: {said}", line(), output.status)))
}
