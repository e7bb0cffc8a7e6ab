//! systemd: our timer, and who keeps it from shutting the machine down for a moment.

use super::place::Place;
use imager_units::{Context, Error, ErrorKind, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where systemd runs, this is.
const RUNS: &str = "/run/systemd/system";

/// Whether systemd runs the system that is meant.
pub(super) fn runs(place: &Place) -> bool {
    place.other_root().is_none() && Path::new(RUNS).is_dir()
}

/// Runs `systemctl` on the system that is meant.
pub(super) fn control(place: &Place, words: &[&str]) -> Result<()> {
    let mut command = Command::new("systemctl");
    if let Some(root) = place.other_root() {
        command.arg("--root").arg(root);
    }
    let what = format!("systemctl {}", words.join(" "));
    let output = command.args(words).stdin(Stdio::null()).output().context(|| format!("running {what}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(ErrorKind::Io, format!("{what}: {}: {}", output.status, said.trim())))
}

/// What `systemctl` says in a word, such as `enabled` or `inactive`.
pub(super) fn word(words: &[&str]) -> Option<String> {
    let output =
        Command::new("systemctl").args(words).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|word| !word.is_empty())
}

/// Delays a shutdown until it is dropped; for how long, logind decides (logind.conf(5), `InhibitDelayMaxSec`). After that a
/// shutdown waits for the service to end, as long as the service may take.
pub(super) struct Inhibitor(Option<Child>);

impl Inhibitor {
    /// Takes one where there is somebody to ask. Without it a capture is no worse, so failing to is no failure.
    pub(super) fn take(place: &Place) -> Self {
        if !runs(place) {
            return Self(None);
        }
        let mut command = Command::new("systemd-inhibit");
        command.args(["--what=shutdown", "--mode=delay", "--who=Halfhour"]);
        command.args(["--why=A capture of the disks is under way", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().inspect_err(|error| tracing::info!("systemd-inhibit: {error}")).ok())
    }
}

impl Drop for Inhibitor {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            drop(child.wait());
        }
    }
}
