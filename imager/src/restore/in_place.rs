//! Volumes back into the partitions they came from, beside whatever else is on the disk.
//!
//! Everything that will be written is claimed before the first write, so that what came into use since the plan was made
//! is found while nothing has happened yet.

use super::outside;
use super::plan::{BootCode, SwapReset, VolumePlan};
use super::shield::Shield;
use super::target::{Writer, window};
use super::{DiskRun, Report};
use imager_disk::WriteAt;
use imager_image::manifest::Role;
use imager_units::{ByteOffset, Error, ErrorKind, Extent, Result};
use std::sync::Arc;

/// The volumes of a disk, open for us alone.
struct Claimed<'a> {
    /// The disk, where its volumes have no nodes of their own.
    whole: Option<Arc<Writer>>,
    resets: Vec<(&'a SwapReset, Box<dyn WriteAt>)>,
    volumes: Vec<(&'a VolumePlan, Box<dyn WriteAt>)>,
}

impl DiskRun<'_> {
    /// # Errors
    /// As [`super::run`].
    pub(super) fn in_place(&self, report: &mut Report) -> Result<()> {
        let plan = self.plan;
        let by_partition = plan.target.is_block && plan.disk.table.kind != "none";
        let claimed = self.claim(by_partition)?;
        let volumes = plan.volumes.iter().map(|volume| volume.extent);
        let writable: Vec<_> = volumes.chain(plan.swap_resets.iter().map(|reset| reset.extent)).collect();
        let _shield = by_partition.then(|| Shield::raise(&plan.target, &writable)).transpose()?;
        if plan.boot_code == BootCode::Keep && !outside::boot_code_matches(self.repository, plan)? {
            let what = format!(
                "the boot code of {} changed since the plan was made: make the plan again",
                plan.target.path.display()
            );
            return Err(Error::new(ErrorKind::Denied, what));
        }
        // First of all: a system that is put back must never wake up with the memory of another one, wherever this stops.
        for (reset, place) in &claimed.resets {
            place.write_all_at(ByteOffset::ZERO, &reset.page)?;
            place.flush()?;
            report.written_bytes += reset.page.len() as u64;
            report.warnings.push(format!("the hibernated system in swap volume {} was discarded", reset.key));
        }
        // What boots last: until then the machine does not.
        let (boot, others): (Vec<_>, Vec<_>) =
            claimed.volumes.iter().partition(|(planned, _)| planned.volume.role == Role::Boot);
        for (planned, place) in others.into_iter().chain(boot) {
            let outcome = self.volume(planned, &**place)?;
            self.book(planned, &outcome, report);
        }
        if plan.boot_code == BootCode::Write && !report.is_damaged {
            self.boot_code(claimed, report)?;
        }
        Ok(())
    }

    fn claim(&self, by_partition: bool) -> Result<Claimed<'_>> {
        let plan = self.plan;
        let whole = if by_partition { None } else { Some(Arc::new(self.open_whole()?)) };
        let open = |extent: Extent| -> Result<Box<dyn WriteAt>> {
            Ok(match &whole {
                Some(whole) => Box::new(window(whole, extent)?),
                None => Box::new(self.open(&plan.target.partition(extent)?.path)?),
            })
        };
        let resets = plan.swap_resets.iter().map(|reset| Ok((reset, open(reset.extent)?)));
        let resets = resets.collect::<Result<_>>()?;
        let volumes = plan.volumes.iter().map(|planned| Ok((planned, open(planned.extent)?)));
        let volumes = volumes.collect::<Result<_>>()?;
        Ok(Claimed { whole, resets, volumes })
    }

    fn boot_code(&self, claimed: Claimed<'_>, report: &mut Report) -> Result<()> {
        let Claimed { whole, resets, volumes } = claimed;
        // The disk can be claimed only when no partition of it is.
        drop((resets, volumes));
        let whole = match whole {
            Some(whole) => whole,
            None => Arc::new(self.open_whole()?),
        };
        let read_back = self.options.read_back;
        let written = outside::restore_boot_code(self.repository, self.plan, &whole, read_back)?;
        report.written_bytes += written.total().get();
        Ok(())
    }
}
