//! What a verification found: which objects are damaged and exactly what each of them takes with it.

use super::{Depth, Stream};
use imager_image::manifest::{Manifest, Run};
use imager_image::{CaptureId, names};
use imager_units::{Error, ErrorKind, ExtentSet};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many runs of bytes a report lists in all; beyond them it only counts.
const MOST_RUNS: usize = 500_000;

/// How it stands with a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is wrong with what it needs.
    Ok,
    /// It cannot be judged by this version.
    Unchecked,
    /// Packs it needs are not there (yet, where a repository is being copied).
    Incomplete,
    /// Some of what it needs is damaged.
    Damaged,
}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It was cut short or has grown.
    WrongLength,
    /// Its bytes are not those that were stored.
    Altered,
    /// It may be sound, but this version does not know it.
    Unsupported,
}

/// The outcome of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// How far it went.
    pub depth: Depth,
    /// The worst of all captures.
    pub status: Status,
    /// Every capture looked at.
    pub captures: Vec<CaptureReport>,
    /// Every damaged object, by name.
    pub damaged: Vec<Damaged>,
    /// How many packs the captures need.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Bytes of packs read; zero when only the structure was looked at.
    pub read_bytes: u64,
    /// Packs that were marked, so that the next capture stores their blocks again.
    pub marked: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed_seconds: f64,
}

/// One capture.
#[derive(Clone, Debug, Serialize)]
pub struct CaptureReport {
    /// Its id.
    pub capture: CaptureId,
    /// Whose it is.
    pub machine: String,
    /// When it was taken, as the name of its manifest says it.
    pub time: String,
    /// Its manifest.
    pub object: String,
    /// How it stands with it.
    pub status: Status,
    /// Its volumes and remainders, each with how much of it is damaged.
    pub volumes: Vec<VolumeReport>,
}

/// One volume, or the remainder of a disk.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeReport {
    /// The disk it starts on.
    pub disk: u32,
    /// Its key, `D:remainder` for a remainder.
    pub key: String,
    /// Its name.
    pub name: String,
    /// How many bytes of it cannot be restored.
    pub damaged_bytes: u64,
}

/// A damaged object.
#[derive(Clone, Debug, Serialize)]
pub struct Damaged {
    /// Its name on the share.
    pub object: String,
    /// What is wrong with it.
    pub fault: Fault,
    /// How that shows.
    pub message: String,
    /// What is lost by it; nothing where the damaged part is needed by no capture. Of a damaged manifest all is lost.
    pub affects: Vec<Affected>,
}

/// What one damaged object takes from one volume of one capture.
#[derive(Clone, Debug, Serialize)]
pub struct Affected {
    /// The capture.
    pub capture: CaptureId,
    /// Whose it is.
    pub machine: String,
    /// The disk the volume starts on.
    pub disk: u32,
    /// The volume's key, `D:remainder` for a remainder.
    pub key: String,
    /// The volume's name.
    pub name: String,
    /// How many bytes.
    pub bytes: u64,
    /// Which, relative to the volume.
    pub extents: Vec<Run>,
    /// Whether there are too many to list them all.
    pub more_extents: bool,
}

impl Fault {
    /// The fault an error of reading speaks of.
    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Altered,
        }
    }
}

impl VerifyReport {
    /// Whether anything is damaged or missing.
    pub fn has_damage(&self) -> bool {
        self.damaged.iter().any(|damaged| damaged.fault != Fault::Unsupported)
    }
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// A report in the making.
pub(super) struct Findings {
    captures: Vec<CaptureReport>,
    damaged: BTreeMap<String, Damaged>,
    runs_left: usize,
    pub(super) warnings: Vec<String>,
    pub(super) packs: u64,
    pub(super) pack_bytes: u64,
    pub(super) read_bytes: u64,
    pub(super) marked: Vec<String>,
    /// Damaged packs of which what is needed moved.
    pub(super) emptied: Vec<imager_image::PackId>,
}

impl Findings {
    pub(super) fn new() -> Self {
        let (captures, damaged, warnings, marked) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        let (packs, pack_bytes, read_bytes) = (0, 0, 0);
        let emptied = Vec::new();
        Self {
            captures,
            damaged,
            runs_left: MOST_RUNS,
            warnings,
            packs,
            pack_bytes,
            read_bytes,
            marked,
            emptied,
        }
    }

    /// A capture whose manifest is sound.
    pub(super) fn capture(&mut self, object: &str, manifest: &Manifest) {
        let volumes = super::streams(manifest).map(|stream| VolumeReport {
            disk: stream.disk,
            key: stream.key.clone(),
            name: stream.name,
            damaged_bytes: 0,
        });
        let volumes = volumes.collect();
        self.captures.push(CaptureReport {
            capture: manifest.header.id,
            machine: manifest.header.machine.clone(),
            time: manifest.header.time.clone(),
            object: object.to_owned(),
            status: Status::Ok,
            volumes,
        });
    }

    /// A capture whose manifest is not.
    pub(super) fn manifest(&mut self, object: &str, error: &Error) {
        let fault = Fault::of(error);
        let status = if fault == Fault::Unsupported { Status::Unchecked } else { Status::Damaged };
        if let Some((machine, time, capture)) = names::manifest_parts(object) {
            let (machine, time, object) = (machine.to_owned(), time.to_owned(), object.to_owned());
            self.captures.push(CaptureReport { capture, machine, time, object, status, volumes: Vec::new() });
        }
        if fault == Fault::Unsupported {
            self.warnings.push(chain(error));
        } else {
            self.object(object.to_owned(), fault, chain(error));
        }
    }

    /// An object that is damaged, whatever that affects.
    pub(super) fn object(&mut self, object: String, fault: Fault, message: String) {
        let damaged = self.damaged.entry(object).or_insert_with_key(|object| Damaged {
            object: object.clone(),
            fault,
            message: String::new(),
            affects: Vec::new(),
        });
        (damaged.fault, damaged.message) = (fault, message);
    }

    /// What a damaged object takes from a volume; `why` says how it shows where the object is not known as damaged.
    pub(super) fn affect(
        &mut self,
        object: String,
        manifest: &Manifest,
        stream: &Stream<'_>,
        extents: &ExtentSet,
        why: (Fault, String),
    ) {
        let runs: Vec<Run> = extents.iter().take(self.runs_left).map(Run::from).collect();
        self.runs_left -= runs.len();
        let bytes = extents.total().get();
        let more_extents = runs.len() < extents.count();
        if !self.damaged.contains_key(&object) {
            self.object(object.clone(), why.0, why.1);
        }
        let Some(damaged) = self.damaged.get_mut(&object) else { return };
        let capture = manifest.header.id;
        damaged.affects.push(Affected {
            capture,
            machine: manifest.header.machine.clone(),
            disk: stream.disk,
            key: stream.key.clone(),
            name: stream.name.clone(),
            bytes,
            extents: runs,
            more_extents,
        });
        let status = match damaged.fault {
            Fault::Missing => Status::Incomplete,
            Fault::Unsupported => Status::Unchecked,
            Fault::WrongLength | Fault::Altered => Status::Damaged,
        };
        let Some(report) = self.captures.iter_mut().rev().find(|report| report.capture == capture) else {
            return;
        };
        report.status = report.status.max(status);
        if let Some(volume) = report.volumes.iter_mut().find(|volume| volume.key == stream.key) {
            volume.damaged_bytes = volume.damaged_bytes.saturating_add(bytes);
        }
    }

    /// Captures with which something is wrong, and the names of their manifests.
    pub(super) fn suspects(&self) -> Vec<(CaptureId, String)> {
        let wrong = self.captures.iter().filter(|capture| capture.status != Status::Ok);
        let mut suspects: Vec<_> = wrong.map(|c| (c.capture, c.object.clone())).collect();
        // A pack that is missing and that nobody missed: whoever needed it is gone.
        if self.damaged.values().any(|d| d.fault == Fault::Missing && d.affects.is_empty()) {
            let sound = self.captures.iter().filter(|capture| capture.status == Status::Ok);
            suspects.extend(sound.map(|c| (c.capture, c.object.clone())));
        }
        suspects
    }

    /// Forgets captures that are gone, and what affects only them.
    pub(super) fn forget(&mut self, gone: &BTreeSet<CaptureId>) {
        if gone.is_empty() {
            return;
        }
        self.captures.retain(|report| !gone.contains(&report.capture));
        self.damaged.retain(|_, damaged| {
            let before = damaged.affects.len();
            damaged.affects.retain(|affected| !gone.contains(&affected.capture));
            let missing = before == 0 && damaged.fault == Fault::Missing;
            !(damaged.affects.is_empty() && (before > 0 || missing))
        });
    }

    /// The packs found damaged and still there.
    pub(super) fn damaged_packs(&self) -> impl Iterator<Item = imager_image::PackId> {
        let there = |damaged: &&Damaged| matches!(damaged.fault, Fault::Altered | Fault::WrongLength);
        self.damaged.values().filter(there).filter_map(|damaged| names::pack_of(&damaged.object))
    }

    pub(super) fn finish(self, depth: Depth, started: std::time::Instant) -> VerifyReport {
        VerifyReport {
            depth,
            status: self.captures.iter().map(|capture| capture.status).max().unwrap_or(Status::Ok),
            captures: self.captures,
            damaged: self.damaged.into_values().collect(),
            packs: self.packs,
            pack_bytes: self.pack_bytes,
            read_bytes: self.read_bytes,
            marked: self.marked,
            warnings: self.warnings,
            elapsed_seconds: started.elapsed().as_secs_f64(),
        }
    }
}
