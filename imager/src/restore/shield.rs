//! The shield over what must not be written: the kernel refuses writes to it for as long as a restore lasts.
//!
//! A partition that somebody uses has none: a filesystem that meets a disk gone read-only breaks. That nobody uses the
//! others is the kernel's own word, given at the moment the shield goes up, not what was seen when the plan was made.

use super::target::Target;
use imager_disk::{Access, Device, Protection};
use imager_units::{Context, Error, ErrorKind, Extent, Result};

/// The partitions of a disk that refuse writes for as long as this lives.
pub struct Shield {
    protected: Vec<(Device, Protection)>,
}

impl Shield {
    /// Has every partition of `target` refuse writes but those in `planned` and those in use.
    ///
    /// # Errors
    /// `Denied` without the privilege, or when one came into use since the target was opened; `Io`.
    pub fn raise(target: &Target, planned: &[Extent]) -> Result<Self> {
        let mut shield = Self { protected: Vec::new() };
        for partition in &target.partitions {
            let is_planned = planned.iter().any(|extent| extent.overlaps(partition.extent));
            if is_planned || target.is_used(partition.extent) {
                continue;
            }
            let say = || format!("protecting partition {}", partition.number);
            let claim = Device::open(&partition.path, Access::ReadClaimed, None).map_err(came_into_use);
            let claim = claim.context(say)?;
            // Without the claim: whoever wants to write boot code claims the whole disk.
            let device = Device::open(&partition.path, Access::Read, None).context(say)?;
            let before = device.protection()?;
            device.protect(Protection::ReadOnly)?;
            shield.protected.push((device, before));
            drop(claim);
        }
        Ok(shield)
    }
}

fn came_into_use(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Denied => error.within("it came into use since the plan was made: make the plan again"),
        _ => error,
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        for (device, before) in &self.protected {
            if let Err(error) = device.protect(*before) {
                tracing::warn!("{} stays write-protected: {error}", device.path().display());
            }
        }
    }
}
