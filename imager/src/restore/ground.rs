//! What a disk is written through, open for us alone.
//!
//! In place that is each volume's own partition, beside whatever else is on the disk. Everything that will be written is
//! claimed before the first write, so that what came into use since the plan was made is found while nothing has
//! happened yet.

use super::disk_run::DiskRun;
use super::outside;
use super::plan::BootCode;
use super::shield::Shield;
use super::target::Writer;
use imager_disk::{Access, Device};
use imager_units::{ByteOffset, Error, ErrorKind, Extent, Result};
use std::sync::Arc;

/// The open nodes of a disk.
pub(super) struct Ground {
    /// The partitions that are written through, with their places.
    parts: Vec<(Extent, Arc<Writer>)>,
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
        let mut ground = Self { parts: Vec::new(), whole, _shield: None };
        ground.claim_parts(run)?;
        if by_partition {
            ground._shield = Some(Shield::raise(&plan.target, &plan.parts)?);
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
        if self.whole.is_some() {
            return Ok(());
        }
        let open = |extent: &Extent| -> Result<_> {
            Ok((*extent, Arc::new(run.open(&run.plan.target.partition(*extent)?.path)?)))
        };
        self.parts = run.plan.parts.iter().map(open).collect::<Result<_>>()?;
        Ok(())
    }

    /// What `extent` of the disk is written through, and where in that it lies.
    ///
    /// # Errors
    /// `Invalid` when nothing was claimed for it.
    pub(super) fn place(&self, extent: Extent) -> Result<(Arc<Writer>, Extent)> {
        if let Some(whole) = &self.whole {
            return Ok((Arc::clone(whole), extent));
        }
        let part = self.parts.iter().find(|(part, _)| part.contains(extent));
        let (part, writer) = part.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("nothing was claimed to write {extent} through"))
        })?;
        let start = ByteOffset::ZERO.saturating_add(extent.start().saturating_since(part.start()));
        Ok((Arc::clone(writer), Extent::between(start, start.saturating_add(extent.len()))))
    }

    /// Writes to the disk as a whole; nobody may hold a part of it meanwhile.
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
        let kept = run.plan.parts.iter().map(keep).collect::<Result<Vec<_>>>()?;
        self.parts.clear();
        let written = write(&Arc::new(run.open_whole()?))?;
        self.claim_parts(run)?;
        drop(kept);
        Ok(written)
    }
}
