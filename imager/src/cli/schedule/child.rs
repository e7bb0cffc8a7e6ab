//! This program, started with the share and the secrets of the schedule.

use super::place::{Place, Turn};
use super::stop::Stop;
use crate::cli::args::Global;
use crate::cli::failure::Failure;
use imager::schedule::Settings;
use imager_units::{Context, Error, ErrorKind, Result};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The program itself, also while a newer version takes its name.
const SELF: &str = "/proc/self/exe";

/// What the commands of a run have in common.
pub(super) struct Caller<'a> {
    pub(super) global: &'a Global,
    pub(super) place: &'a Place,
    pub(super) settings: &'a Settings,
}

/// What a command came to.
pub(super) struct Answer {
    /// Its exit status.
    pub(super) code: u8,
    /// The object it printed.
    pub(super) object: Value,
}

impl Caller<'_> {
    /// Runs a command to its end. `turn` is handed on to one that must not be overlapped even when it outlives us.
    pub(super) fn ask(
        &self,
        words: &[String],
        patience: Duration,
        turn: Option<&Turn>,
        stop: &mut Stop,
    ) -> Result<Answer> {
        let name = words.first().map_or("", String::as_str);
        let mut command = self.command(words, patience);
        if let Some(turn) = turn {
            // A file lock belongs to whoever has the file open; a command of ours reads nothing.
            command.stdin(turn.shared()?);
        }
        let mut child = command.spawn().context(|| format!("starting imager {name}"))?;
        let printed = stop.read(&mut child);
        let status = child.wait().context(|| format!("waiting for imager {name}"))?;
        let object = serde_json::from_slice(&printed?);
        match (status.code().and_then(|code| u8::try_from(code).ok()), object) {
            (Some(code), Ok(object)) => Ok(Answer { code, object }),
            (Some(130), Err(_)) => Err(Error::new(ErrorKind::Cancelled, "interrupted")),
            (code, _) => {
                let how = code
                    .map_or_else(|| status.to_string(), |code| format!("said nothing, exit status {code}"));
                Err(Error::new(ErrorKind::Io, format!("imager {name} came to a bad end: {how}")))
            }
        }
    }

    fn command(&self, words: &[String], patience: Duration) -> Command {
        let settings = self.settings;
        let mut command = Command::new(SELF);
        // What comes behind the words of a command may be taken for one of them.
        command.arg0("imager").args(["--json", "--patience", &format!("{}s", patience.as_secs())]);
        if let Some(limit) = &settings.limit {
            command.args(["--limit", limit]);
        }
        // What shows progress to a person who waits is of no use to systemd's journal.
        let progress = clap::ValueEnum::to_possible_value(&self.global.progress);
        command.args(progress.iter().flat_map(|how| ["--progress", how.get_name()]));
        command.args(words).env("IMAGER_REPO", &settings.repo).env("IMAGER_STATE_DIR", self.place.state());
        for (name, file) in [
            ("IMAGER_PASSWORD", &settings.password_file),
            ("IMAGER_TOKEN", &settings.token_file),
            ("IMAGER_SHARE_PASSWORD", &settings.share_password_file),
        ] {
            if let Some(file) = file {
                command.env_remove(name).env_remove(format!("{name}_COMMAND"));
                command.env(format!("{name}_FILE"), file);
            }
        }
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}

impl Answer {
    /// Fails unless the command ended with one of these.
    pub(super) fn expect(self, codes: &[u8]) -> std::result::Result<Self, Failure> {
        if codes.contains(&self.code) {
            return Ok(self);
        }
        let error = &self.object["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let what = Error::new(kind(&text("kind")), text("message"));
        Err(Failure::new(self.code, what, text("advice")))
    }
}

/// The kind of an error by its name.
fn kind(name: &str) -> ErrorKind {
    use ErrorKind::{
        Cancelled, Corrupt, Denied, Exists, Invalid, Io, Lost, NotFound, OutOfSpace, Unsupported,
    };
    let all = [Cancelled, Corrupt, Denied, Exists, Invalid, Lost, NotFound, OutOfSpace, Unsupported];
    all.into_iter().find(|kind| format!("{kind:?}").to_lowercase() == name).unwrap_or(Io)
}

/// Words of a command line.
pub(super) fn words<S: AsRef<OsStr>>(words: &[S]) -> Vec<String> {
    words.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect()
}
