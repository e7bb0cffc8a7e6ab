//! Write protection that a restore finds: the rescue environment has every disk and partition refuse writes.
//!
//! Told to, a restore lifts it for what its plan writes, and for nothing else, just before the first write; it is set
//! again when the restore ends; when it is killed, the rescue environment's first process does that ([`lifted`]). The flag
//! of a disk covers its partitions (`bdev_read_only`, the kernel's block/bdev.c), so it is always lifted too; partitions
//! that are not planned keep theirs.

use super::plan::{DiskPlan, Plan, Scope};
use super::target::Target;
use imager_disk::lifted::{self, LiftedNote};
use imager_disk::{Access, Device, Protection, System};
use imager_units::{Context, Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// What to do with a target that refuses writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protected {
    /// Refuse it.
    #[default]
    Refuse,
    /// Lift the protection for as long as the restore lasts.
    Lift,
}

/// The nodes that a plan writes to and that refuse writes.
///
/// # Errors
/// `Io` when one cannot be asked.
pub fn protected(plan: &Plan) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in plan.disks.iter().flat_map(nodes) {
        if open(&path)?.protection()? == Protection::ReadOnly {
            found.push(path);
        }
    }
    Ok(found)
}

/// Refuses a plan that writes to what refuses writes.
///
/// # Errors
/// `Denied` with the nodes; `Io`.
pub fn check(plan: &Plan) -> Result<()> {
    let found: Vec<_> = protected(plan)?.iter().map(|path| path.display().to_string()).collect();
    match found.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::new(ErrorKind::Denied, format!("{one} is write-protected"))),
        several => Err(Error::new(ErrorKind::Denied, format!("{} are write-protected", several.join(", ")))),
    }
}

/// The nodes that are written through: the disk and, in place, partitions of it; none for a file.
fn nodes(disk: &DiskPlan) -> Vec<PathBuf> {
    let target = &disk.target;
    if !target.is_block {
        return Vec::new();
    }
    let is_written = |extent| disk.scope == Scope::InPlace && disk.parts.contains(extent);
    let partitions = target.partitions.iter().filter(|partition| is_written(&partition.extent));
    std::iter::once(target.path.clone()).chain(partitions.map(|partition| partition.path.clone())).collect()
}

fn open(path: &Path) -> Result<Device> {
    Device::open(path, Access::Read, None)
}

/// A disk whose protection is lifted for as long as this lives.
pub(super) struct Lifted<'a> {
    target: &'a Target,
    /// Whether the kernel reads the table again, which makes the partitions anew and without protection.
    makes_partitions: bool,
    devices: Vec<Device>,
    note: Option<LiftedNote>,
}

impl<'a> Lifted<'a> {
    /// Lifts the protection of what is written of a disk, where there is one.
    ///
    /// # Errors
    /// `Denied` without the privilege, or when the disk itself refuses writes; `Io`.
    pub(super) fn lift(disk: &'a DiskPlan) -> Result<Self> {
        let (target, makes_partitions) = (&disk.target, disk.scope != Scope::InPlace);
        let note = match target.is_block {
            true => LiftedNote::begin(Path::new(lifted::FOLDER), &target.path)?,
            false => None,
        };
        let mut lifted = Self { target, makes_partitions, devices: Vec::new(), note };
        // The disk first: while it refuses writes, each of its partitions says that it does.
        for path in nodes(disk) {
            let say = || format!("lifting the write protection of {}", path.display());
            let device = open(&path).context(say)?;
            if device.protection()? == Protection::Writable {
                continue;
            }
            lifted.note.iter().try_for_each(|note| note.add(&path))?;
            device.protect(Protection::Writable).context(say)?;
            lifted.devices.push(device);
            if lifted
                .devices
                .last()
                .is_some_and(|device| device.protection().ok() != Some(Protection::Writable))
            {
                let what = format!("{} is write-protected by the device itself", path.display());
                return Err(Error::new(ErrorKind::Denied, what));
            }
        }
        Ok(lifted)
    }

    /// The partitions that the kernel has now.
    fn partitions(&self) -> Result<Vec<Device>> {
        let Some(number) = self.target.device else { return Ok(Vec::new()) };
        System::new().partitions(number)?.iter().map(|partition| open(&partition.path)).collect()
    }
}

impl Drop for Lifted<'_> {
    fn drop(&mut self) {
        let made_anew = match self.makes_partitions && !self.devices.is_empty() {
            true => self.partitions().unwrap_or_else(|error| {
                tracing::warn!("partitions of {} stay writable: {error}", self.target.path.display());
                Vec::new()
            }),
            false => Vec::new(),
        };
        // Another restore may write to other volumes of the disk: who ends last protects what both lifted.
        let own = if self.note.is_none() { self.devices.as_slice() } else { &[] };
        for device in made_anew.iter().chain(own) {
            if let Err(error) = device.protect(Protection::ReadOnly) {
                tracing::warn!("{} stays writable: {error}", device.path().display());
            }
        }
        if let Some(Err(error)) = self.note.take().map(LiftedNote::end) {
            tracing::warn!("{} stays writable: {error}", self.target.path.display());
        }
    }
}
