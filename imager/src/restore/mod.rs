//! Restoring: a plan that was shown, then writes in an order that leaves nothing that looks finished until it is.

mod fetch;
mod in_place;
mod outside;
pub mod plan;
pub mod protection;
pub mod shield;
pub mod tally;
pub mod target;
pub mod untouched;
pub mod volume;
mod work;

use crate::monitor::{Monitor, check_cancelled};
use crate::repository::Repository;
use imager_disk::{Access, Device, WriteAt};
use imager_image::manifest::{Mode, Problem, Role, Run};
use imager_units::{ByteLen, Context, ExtentSet, Result};
use plan::{DiskPlan, Plan, Scope, VolumePlan};
use protection::{Lifted, Protected};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tally::Tally;
use target::{Account, Writer, window};
use untouched::{Proof, Untouched, witness};
use volume::{Job, Outcome, ReadBack};

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
    for disk in &plan.disks {
        let account = Arc::new(Account::default());
        let disk_run = DiskRun { repository, plan: disk, options, monitor, account };
        disk_run.run(plan, &mut report).context(|| format!("disk {}", disk.disk.number))?;
    }
    report.elapsed_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

struct DiskRun<'a> {
    repository: &'a Repository,
    plan: &'a DiskPlan,
    options: Options,
    monitor: &'a dyn Monitor,
    account: Arc<Account>,
}

impl DiskRun<'_> {
    fn run(&self, whole: &Plan, report: &mut Report) -> Result<()> {
        let (target, proof) = (&self.plan.target, self.options.proof);
        self.settle_cache()?;
        let witnesses = witness(target, self.plan.untouched.clone(), whole.capture, proof)?;
        let tally = Tally::begin(target);
        let lifted = match self.options.protected {
            Protected::Lift => Some(Lifted::lift(self.plan)?),
            Protected::Refuse => None,
        };
        match self.plan.scope {
            Scope::InPlace => self.in_place(report)?,
            Scope::Tables => self.tables(report)?,
            Scope::BareMetal => self.bare_metal(report)?,
        }
        drop(lifted);
        let agrees = self.settle(tally.as_ref(), report);
        self.drop_cache()?;
        for witness in &witnesses {
            let testimony = witness.testify(target, whole.capture, agrees)?;
            if testimony.unchanged == Some(false) {
                report.problems.push(Problem {
                    volume: testimony.key.clone(),
                    message: "changed although it was not to be touched".to_owned(),
                    extents: Vec::new(),
                });
            }
            report.untouched.push(testimony);
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> Result<Writer> {
        Writer::open(path, self.plan.target.geometry.logical, Arc::clone(&self.account))
    }

    fn open_whole(&self) -> Result<Writer> {
        let mut writer = self.open(&self.plan.target.path)?;
        if let Some(size) = self.plan.extend_to {
            writer.extend(size)?;
        }
        Ok(writer)
    }

    /// Has nothing wait in the cache of the disk's own node: it would be written over what goes through partitions.
    fn settle_cache(&self) -> Result<()> {
        let target = &self.plan.target;
        if target.is_block {
            Device::open(&target.path, Access::Read, None)?.flush()?;
        }
        Ok(())
    }

    /// Has whoever reads the disk through its own node see what was written through partitions.
    fn drop_cache(&self) -> Result<()> {
        let target = &self.plan.target;
        if target.is_block {
            Device::open(&target.path, Access::Read, None)?.drop_cache(target.geometry.extent());
        }
        Ok(())
    }

    /// What the kernel counted must be what we wrote: more means that something else wrote to the disk meanwhile. Says
    /// whether it was; false where there is no count.
    fn settle(&self, tally: Option<&Tally>, report: &mut Report) -> bool {
        let Some(counted) = tally.and_then(Tally::end) else { return false };
        let (ours, target) = (self.account.total(), &self.plan.target);
        let agrees = counted.agrees(ours);
        if !agrees {
            let beside = if target.uses.partitions.is_empty() { "" } else { " beside what others use" };
            report.warnings.push(format!(
                "the kernel counted {counted} bytes written to {}{beside}, {} of them ours",
                target.path.display(),
                ours.get()
            ));
        }
        agrees
    }

    fn tables(&self, report: &mut Report) -> Result<()> {
        let Some(table) = &self.plan.table else { return Ok(()) };
        let whole = self.open_whole()?;
        let written = outside::write_table(&whole, table, self.options.read_back)?;
        report.written_bytes += written.total().get();
        self.reread(&whole, report);
        Ok(())
    }

    fn bare_metal(&self, report: &mut Report) -> Result<()> {
        let whole = Arc::new(self.open_whole()?);
        outside::wipe(&whole)?;
        let read_back = self.options.read_back;
        for planned in &self.plan.volumes {
            let outcome = self.volume(planned, &window(&whole, planned.extent)?)?;
            self.book(planned, &outcome, report);
        }
        let outcome =
            outside::restore_remainder(self.repository, self.plan, &whole, read_back, self.monitor)?;
        self.add(&format!("{}:remainder", self.plan.disk.number), &outcome, report);
        if report.is_damaged {
            report.warnings.push("the partition table was withheld because of the damage".to_owned());
            return Ok(());
        }
        if let Some(table) = &self.plan.table {
            check_cancelled(self.monitor)?;
            let written = outside::write_table(&whole, table, read_back)?;
            report.written_bytes += written.total().get();
            self.reread(&whole, report);
        }
        Ok(())
    }

    fn reread(&self, whole: &Writer, report: &mut Report) {
        if whole.device().is_block()
            && let Err(error) = whole.device().reread_table()
        {
            report.warnings.push(format!("the kernel did not take the new table yet: {error}"));
        }
    }

    fn volume(&self, planned: &VolumePlan, target: &dyn WriteAt) -> Result<Outcome> {
        let key = &planned.volume.key;
        let job = Job {
            label: format!("volume {key}"),
            map: &planned.map,
            target,
            head: planned.head(),
            only: None,
            read_back: self.options.read_back,
        };
        volume::run(self.repository, &job, self.monitor).context(|| format!("restoring volume {key}"))
    }

    fn book(&self, planned: &VolumePlan, outcome: &Outcome, report: &mut Report) {
        let volume = &planned.volume;
        report.volumes.push(VolumeReport {
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
        self.add(&volume.key, outcome, report);
    }

    fn add(&self, label: &str, outcome: &Outcome, report: &mut Report) {
        report.read_bytes += outcome.compared.get();
        report.matched_bytes += outcome.matched.get();
        report.written_bytes += outcome.written.get();
        report.is_damaged |= !outcome.damaged.is_empty();
        let mut problem = |message: &str, extents: &ExtentSet| {
            if !extents.is_empty() {
                let message = format!("{message} ({})", extents.iter().map(|e| e.len()).sum::<ByteLen>());
                let extents = extents.iter().map(Run::from).collect();
                report.problems.push(Problem { volume: label.to_owned(), message, extents });
            }
        };
        problem("is damaged in the repository; the volume's head was withheld", &outcome.damaged);
        problem("could not be read when it was captured", &outcome.unreadable);
    }
}
