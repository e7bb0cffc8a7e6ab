//! One disk of a plan: what is looked at before the first write and after the last.

use super::plan::{DiskPlan, Scope};
use super::protection::{Lifted, Protected};
use super::tally::Tally;
use super::target::{Account, Writer};
use super::untouched::{Witness, witness};
use super::{Options, Report};
use crate::monitor::Monitor;
use crate::repository::Repository;
use imager_disk::{Access, Device, WriteAt};
use imager_image::CaptureId;
use imager_image::manifest::{Problem, Role};
use imager_units::Result;
use std::path::Path;
use std::sync::Arc;

/// A disk while its plan is carried out.
pub(super) struct DiskRun<'a> {
    pub(super) repository: &'a Repository,
    pub(super) plan: &'a DiskPlan,
    pub(super) options: Options,
    pub(super) monitor: &'a dyn Monitor,
    account: Arc<Account>,
}

/// What is watched from before the first write on.
pub(super) struct Watch<'a> {
    witnesses: Vec<Witness>,
    tally: Option<Tally>,
    lifted: Option<Lifted<'a>>,
}

impl<'a> DiskRun<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        plan: &'a DiskPlan,
        options: Options,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self { repository, plan, options, monitor, account: Arc::new(Account::default()) }
    }

    /// What errors call it.
    pub(super) fn name(&self) -> String {
        format!("disk {}", self.plan.disk.number)
    }

    /// Whether an operating system is restored to it.
    pub(super) fn has_os(&self) -> bool {
        self.plan.volumes.iter().any(|planned| planned.volume.role == Role::Os)
    }

    pub(super) fn is_in_place(&self) -> bool {
        self.plan.scope == Scope::InPlace
    }

    /// Looks at what is to stay as it is, and lifts the protection of the rest.
    pub(super) fn begin(&self, capture: CaptureId) -> Result<Watch<'a>> {
        let target = &self.plan.target;
        self.settle_cache()?;
        let witnesses = witness(target, self.plan.untouched.clone(), capture, self.options.proof)?;
        let tally = Tally::begin(target);
        let lifted = match self.options.protected {
            Protected::Lift => Some(Lifted::lift(self.plan)?),
            Protected::Refuse => None,
        };
        Ok(Watch { witnesses, tally, lifted })
    }

    /// Looks again.
    pub(super) fn end(&self, watch: Watch<'_>, capture: CaptureId, report: &mut Report) -> Result<()> {
        let Watch { witnesses, tally, lifted } = watch;
        drop(lifted);
        let agrees = self.settle(tally.as_ref(), report);
        self.drop_cache()?;
        for witness in &witnesses {
            let testimony = witness.testify(&self.plan.target, capture, agrees)?;
            if testimony.unchanged == Some(false) {
                report.problems.push(Problem {
                    volume: testimony.key.clone(),
                    message: "changed although it was not to be touched".to_owned(),
                    extents: Vec::new(),
                });
            }
            // Of a volume in several pieces there is one account.
            match report.untouched.iter_mut().find(|known| known.key == testimony.key) {
                Some(known) => known.add(testimony),
                None => report.untouched.push(testimony),
            }
        }
        Ok(())
    }

    pub(super) fn open(&self, path: &Path) -> Result<Writer> {
        Writer::open(path, self.plan.target.geometry.logical, Arc::clone(&self.account))
    }

    pub(super) fn open_whole(&self) -> Result<Writer> {
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
}
