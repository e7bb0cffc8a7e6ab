//! How the last run went, as this machine remembers it. Small, and replaced as a whole: it is read while a run writes it.

use super::kind::Past;
use imager_image::manifest::Kind;
use imager_units::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// There is a new capture.
    Done,
    /// There is one, and something is missing from it.
    Incomplete,
    /// There is none.
    #[default]
    Failed,
    /// It was asked to stop.
    Interrupted,
}

/// Whether somebody was told that something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alarm {
    /// Since when; none while all is well.
    pub standing_since: Option<String>,
    /// Why the last one did not get through.
    pub trouble: Option<String>,
}

/// A capture that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// Its id.
    pub id: String,
    /// When it began.
    pub time: String,
}

/// The last run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Last {
    /// Whose captures they are.
    pub machine: String,
    /// In which repository.
    pub repo: String,
    /// When it began.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// How it ended.
    pub result: Outcome,
    /// Its exit status.
    pub exit_status: u8,
    /// How often it tried.
    pub attempts: u32,
    /// Of which kind the capture was to be.
    pub kind: Option<Kind>,
    /// Why of that kind.
    pub why: String,
    /// The capture's id.
    pub capture: Option<String>,
    /// What cost space or time only.
    pub warnings: Vec<String>,
    /// `kind`, `message` and `advice` of what went wrong.
    pub error: Value,
    /// What became of pruning; null where there is no rule.
    pub prune: Value,
    /// How many runs in a row failed.
    pub failures: u32,
    /// Whether somebody was told.
    pub alarm: Alarm,
    /// The newest good capture that was seen or made.
    pub newest: Option<Newest>,
    /// When the last capture of a kind was made that decides about later ones, for when it is pruned.
    pub kinds: Vec<(Kind, String)>,
}

impl Last {
    /// What is remembered of captures.
    pub fn past(&self) -> Vec<Past> {
        let past = |(kind, time): &(Kind, String)| Some(Past { kind: *kind, time: time.parse().ok()? });
        self.kinds.iter().filter_map(past).collect()
    }

    /// Remembers a capture.
    pub fn remember(&mut self, kind: Kind, id: &str, time: &str) {
        self.newest = Some(Newest { id: id.to_owned(), time: time.to_owned() });
        if matches!(kind, Kind::Full | Kind::Differential) {
            self.kinds.retain(|(known, _)| *known != kind);
            self.kinds.push((kind, time.to_owned()));
            self.kinds.sort_by(|a, b| a.1.cmp(&b.1));
        }
    }
}

/// Reads it; none before the first run.
///
/// # Errors
/// `Corrupt` when it is damaged; `Io`.
pub fn read(file: &Path) -> Result<Option<Last>> {
    let say = || format!("reading {}", file.display());
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::with_source(imager_units::ErrorKind::Corrupt, say(), error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(say(), error)),
    }
}

/// Replaces a file as a whole, by one of that mode.
///
/// # Errors
/// `Io`, `OutOfSpace`.
pub fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let say = || format!("writing {}", file.display());
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder).context(say)?;
    let next = file.with_extension("new");
    // One that a killed process left may be another's to read.
    match fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(say(), error)),
        _ => {}
    }
    let mut opened = fs::File::options().write(true).create_new(true).mode(mode).open(&next).context(say)?;
    opened.write_all(bytes).and_then(|()| opened.sync_all()).context(say)?;
    fs::rename(&next, file).context(say)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).context(say)
}
