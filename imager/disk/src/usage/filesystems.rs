//! The mounted filesystems of a machine, each once however often it is mounted, with all that lies beneath it.

use super::{DEPTH_MAX, mounts};
use crate::{DeviceNumber, System};
use imager_units::Result;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFilesystem {
    /// Its own number: of its device, or one that it made up.
    pub number: DeviceNumber,
    /// The kernel's name for its kind.
    pub kind: String,
    /// Whether nothing can be written to it.
    pub read_only: bool,
    /// Each of its mounts: the number that the kernel gave it, and where it is. One may hide another.
    pub mounts: Vec<(u64, PathBuf)>,
    /// The devices that it is on.
    pub devices: Vec<DeviceNumber>,
    /// Those and everything that they are made of, through the files behind loop devices.
    pub beneath: BTreeSet<DeviceNumber>,
}

impl System {
    /// Every mounted filesystem that lies on block devices, in the order of mounting.
    ///
    /// # Errors
    /// `Io`, `NotFound` when the kernel's description cannot be read.
    pub fn filesystems(&self) -> Result<Vec<MountedFilesystem>> {
        let mut found: Vec<MountedFilesystem> = Vec::new();
        for mount in mounts::read(self)? {
            let (Some(number), mut devices) = (mount.device, self.devices_of(&mount)?) else { continue };
            // One that was pulled out may still be mounted.
            devices.retain(|device| self.folder(*device).is_ok());
            let place = (mount.id, mount.at.clone());
            match found.iter_mut().find(|known| known.number == number) {
                Some(known) => known.mounts.push(place),
                None if devices.is_empty() => {}
                None => {
                    let mut beneath = BTreeSet::new();
                    self.collect_under(devices.clone(), DEPTH_MAX, &mut beneath)?;
                    let (kind, read_only) = (mount.kind(), mount.read_only);
                    let mounts = vec![place];
                    found.push(MountedFilesystem { number, kind, read_only, mounts, devices, beneath });
                }
            }
        }
        Ok(found)
    }
}
