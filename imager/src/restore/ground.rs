//! What a disk is written through, open for us alone.
//!
//! In place that is each volume's own partition, beside whatever else is on the disk. Everything that will be written is
//! claimed before the first write, so that what came into use since the plan was made is found while nothing has
//! happened yet.

use super::disk_run::DiskRun;
use super::outside;
use super::plan::BootCode;
use super::shield::Shield;
use super::target::{Writer, window};
use imager_disk::{Access, Device, WriteAt};
use imager_units::{Error, ErrorKind, Extent, Result};
use std::sync::Arc;

/// The open nodes of a disk.
pub(super) struct Ground {
    /// Hibernated swap volumes, as the plan has them.
    pub(super) resets: Vec<Box<dyn WriteAt>>,
    /// The volumes, as the plan has them.
    pub(super) volumes: Vec<Box<dyn WriteAt>>,
    /// The disk, unless it is written through its partitions.
    whole: Option<Arc<Writer>>,
    _shield: Option<Shield>,
}

impl Ground {
    /// Claims what `run` writes.
    ///
    /// # Errors
    /// `Denied` when something is in use or changed since the plan was made; `Io`.
    pub(super) fn claim(run: &DiskRun<'_>) -> Result<Self> {
        let plan = run.plan;
        let by_partition = run.is_in_place() && plan.target.is_block && plan.disk.table.kind != "none";
        let whole = if by_partition { None } else { Some(Arc::new(run.open_whole()?)) };
        let mut ground = Self { resets: Vec::new(), volumes: Vec::new(), whole, _shield: None };
        ground.claim_parts(run)?;
        if by_partition {
            ground._shield = Some(Shield::raise(&plan.target, &parts(run))?);
        }
        if plan.boot_code == BootCode::Keep && !outside::boot_code_matches(run.repository, plan)? {
            let what = format!(
                "the boot code of {} changed since the plan was made: make the plan again",
                plan.target.path.display()
            );
            return Err(Error::new(ErrorKind::Denied, what));
        }
        Ok(ground)
    }

    fn claim_parts(&mut self, run: &DiskRun<'_>) -> Result<()> {
        let open = |extent: Extent| -> Result<Box<dyn WriteAt>> {
            Ok(match &self.whole {
                Some(whole) => Box::new(window(whole, extent)?),
                None => Box::new(run.open(&run.plan.target.partition(extent)?.path)?),
            })
        };
        let resets = run.plan.swap_resets.iter().map(|reset| open(reset.extent)).collect::<Result<_>>()?;
        let volumes = run.plan.volumes.iter().map(|planned| open(planned.extent)).collect::<Result<_>>()?;
        (self.resets, self.volumes) = (resets, volumes);
        Ok(())
    }

    /// Writes to the disk as a whole.
    ///
    /// # Errors
    /// Those of `write`; `Denied` when the disk, or a volume afterwards, came into use.
    pub(super) fn with_whole<T>(
        &mut self,
        run: &DiskRun<'_>,
        write: impl FnOnce(&Arc<Writer>) -> Result<T>,
    ) -> Result<T> {
        if let Some(whole) = &self.whole {
            return write(whole);
        }
        // The disk can be claimed only when no partition of it is. Nodes that stay open keep whoever watches the disk
        // from having the kernel make its partitions anew when it is closed (bdev_disk_changed, block/partitions/core.c).
        let target = &run.plan.target;
        let keep = |extent: &Extent| Device::open(&target.partition(*extent)?.path, Access::Read, None);
        let kept = parts(run).iter().map(keep).collect::<Result<Vec<_>>>()?;
        self.resets.clear();
        self.volumes.clear();
        let written = write(&Arc::new(run.open_whole()?))?;
        self.claim_parts(run)?;
        drop(kept);
        Ok(written)
    }
}

/// What is written of a disk that keeps its table.
fn parts(run: &DiskRun<'_>) -> Vec<Extent> {
    let volumes = run.plan.volumes.iter().map(|volume| volume.extent);
    volumes.chain(run.plan.swap_resets.iter().map(|reset| reset.extent)).collect()
}
