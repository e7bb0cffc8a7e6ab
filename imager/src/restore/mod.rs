//! Restoring: a plan that was shown, then writes in an order that leaves nothing that looks finished until it is.

mod disk_run;
mod fetch;
mod ground;
mod outside;
pub mod plan;
pub mod protection;
pub mod shield;
mod stages;
pub mod tally;
pub mod target;
pub mod untouched;
pub mod volume;
pub mod volumes;
mod work;

use crate::monitor::Monitor;
use crate::repository::Repository;
use disk_run::DiskRun;
use imager_image::manifest::{Mode, Problem, Role, Run};
use imager_units::{ByteLen, Context, ExtentSet, Result};
use plan::{Plan, VolumePlan};
use protection::Protected;
use serde::Serialize;
use std::time::Instant;
use untouched::{Proof, Untouched};
use volume::{Outcome, ReadBack};

/// What became of a volume.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeReport {
    /// The number of its disk.
    pub disk: u32,
    /// Its key.
    pub key: String,
    /// How a person knows it.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How much of it was in the capture.
    pub mode: Mode,
    /// Bytes read to compare.
    pub read_bytes: u64,
    /// Bytes that were there already.
    pub matched_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read back.
    pub verified_bytes: u64,
    /// Whether it is whole; otherwise its head was withheld and it is not recognisable.
    pub complete: bool,
}

/// What a restore did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The volumes written.
    pub volumes: Vec<VolumeReport>,
    /// The volumes left alone: proven untouched, or in use by others.
    pub untouched: Vec<Untouched>,
    /// Bytes read from targets to compare.
    pub read_bytes: u64,
    /// Bytes that were there already.
    pub matched_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Whether everything written was read back and is right.
    pub verified: bool,
    /// What is missing or damaged.
    pub problems: Vec<Problem>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Whether something in the repository was damaged.
    #[serde(skip)]
    pub is_damaged: bool,
    /// How long it took.
    pub elapsed_seconds: f64,
}

/// How to carry out a plan.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether what was written is read back.
    pub read_back: ReadBack,
    /// How thoroughly untouched volumes are proven untouched.
    pub proof: Proof,
    /// What to do with a target that refuses writes.
    pub protected: Protected,
}

/// Carries out a plan.
///
/// # Errors
/// `Denied` when a target refuses writes or came into use since the plan was made; `Io` when a target fails or does not hold what was
/// written; `Cancelled`; errors of the share. An interrupted restore is run again.
pub fn run(repository: &Repository, plan: &Plan, options: Options, monitor: &dyn Monitor) -> Result<Report> {
    let started = Instant::now();
    let mut report = Report { warnings: plan.warnings.clone(), ..Report::default() };
    report.verified = options.read_back == ReadBack::Yes;
    if options.protected == Protected::Refuse {
        protection::check(plan)?;
    }
    monitor.phase("restore", Some(plan.content()));
    let runs: Vec<_> =
        plan.disks.iter().map(|disk| DiskRun::new(repository, disk, options, monitor)).collect();
    let mut watches = Vec::new();
    for run in &runs {
        watches.push(run.begin(plan.capture).context(|| run.name())?);
    }
    stages::carry_out(&runs, &mut report)?;
    for (run, watch) in runs.iter().zip(watches) {
        run.end(watch, plan.capture, &mut report).context(|| run.name())?;
    }
    report.elapsed_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

impl Report {
    fn book(&mut self, planned: &VolumePlan, outcome: &Outcome) {
        let volume = &planned.volume;
        self.volumes.push(VolumeReport {
            disk: volume.disk,
            key: volume.key.clone(),
            name: volume.name.clone(),
            role: volume.role,
            mode: volume.mode,
            read_bytes: outcome.compared.get(),
            matched_bytes: outcome.matched.get(),
            written_bytes: outcome.written.get(),
            verified_bytes: outcome.verified.get(),
            complete: outcome.is_complete,
        });
        self.add(&volume.key, outcome);
    }

    fn add(&mut self, label: &str, outcome: &Outcome) {
        self.read_bytes += outcome.compared.get();
        self.matched_bytes += outcome.matched.get();
        self.written_bytes += outcome.written.get();
        self.is_damaged |= !outcome.damaged.is_empty();
        let mut problem = |message: &str, extents: &ExtentSet| {
            if !extents.is_empty() {
                let message = format!("{message} ({})", extents.iter().map(|e| e.len()).sum::<ByteLen>());
                let extents = extents.iter().map(Run::from).collect();
                self.problems.push(Problem { volume: label.to_owned(), message, extents });
            }
        };
        problem("is damaged in the repository; the volume's head was withheld", &outcome.damaged);
        problem("could not be read when it was captured", &outcome.unreadable);
    }
}
