//! What block devices are made of, and what is made of them.

use super::{Release, Use, What, mounts};
use crate::identity::partition_folders;
use crate::system::{folders, leaf, number, text};
use crate::{Device, DeviceNumber, System};
use imager_units::Result;
use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

impl System {
    /// The disk that a partition is on.
    pub(super) fn disk_of_partition(&self, device: DeviceNumber) -> Result<Option<DeviceNumber>> {
        let disk = number(&self.disk_folder(device)?.join("dev"))?;
        Ok((disk != device).then_some(disk))
    }

    /// Notes the loop devices and swap space that a regular file is behind, and returns the former.
    pub(super) fn uses_of_file(&self, file: &Device, uses: &mut BTreeSet<Use>) -> Result<Vec<DeviceNumber>> {
        let on = file.path().display().to_string();
        let is_it = |path: &Path| {
            let found = fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
            found.ok() == file.file_id()
        };
        if self.swaps()?.iter().any(|path| is_it(path)) {
            uses.insert(Use { on: on.clone(), what: What::Swap });
        }
        let mut devices = Vec::new();
        for (device, name, _) in self.loops()?.into_iter().filter(|(_, _, behind)| is_it(behind)) {
            uses.insert(Use { on: on.clone(), what: What::Loop(name) });
            devices.push(device);
        }
        Ok(devices)
    }

    /// Notes what is built on `roots`, on their partitions, on `disk` (but not on its partitions), and on all that;
    /// returns every device it met.
    pub(super) fn stacked_on(
        &self,
        roots: Vec<DeviceNumber>,
        disk: Option<DeviceNumber>,
        uses: &mut BTreeSet<Use>,
    ) -> Result<BTreeSet<DeviceNumber>> {
        let loops = self.loops()?;
        let mut all = BTreeSet::new();
        let mut pending = roots;
        pending.extend(disk);
        while let Some(device) = pending.pop() {
            if !all.insert(device) {
                continue;
            }
            let (folder, on) = (self.folder(device)?, self.kernel_name(device)?);
            for holder in folders(&folder.join("holders"))? {
                uses.insert(Use { on: on.clone(), what: holder_in(&holder) });
                pending.push(number(&holder.join("dev"))?);
            }
            for (above, name, behind) in &loops {
                if self.number_of_node(behind) == Some(device) && behind.starts_with("/dev") {
                    uses.insert(Use { on: on.clone(), what: What::Loop(name.clone()) });
                    pending.push(*above);
                }
            }
            if disk != Some(device) {
                for partition in partition_folders(&folder)? {
                    pending.push(number(&partition.join("dev"))?);
                }
            }
        }
        Ok(all)
    }

    pub(super) fn mounts_and_swaps_on(
        &self,
        devices: &BTreeSet<DeviceNumber>,
        uses: &mut BTreeSet<Use>,
    ) -> Result<()> {
        for mount in mounts::read(self)? {
            for device in self.devices_of(&mount)?.into_iter().filter(|device| devices.contains(device)) {
                let what = What::Mounted { at: mount.at.clone(), read_only: mount.read_only };
                uses.insert(Use { on: self.kernel_name(device)?, what });
            }
        }
        for swap in self.swaps()? {
            if let Some(device) = self.number_of_node(&swap).filter(|device| devices.contains(device)) {
                uses.insert(Use { on: self.kernel_name(device)?, what: What::Swap });
            }
        }
        Ok(())
    }

    /// Notes what the kernel has given to somebody for himself alone where nothing else explains it.
    pub(super) fn claims_on(&self, devices: &BTreeSet<DeviceNumber>, uses: &mut BTreeSet<Use>) -> Result<()> {
        for &device in devices {
            let on = self.kernel_name(device)?;
            // A disk is claimed with each of its partitions; those are asked themselves.
            let explained = uses.iter().any(|known| known.on == on);
            if !explained
                && partition_folders(&self.folder(device)?)?.is_empty()
                && is_claimed(&self.node(&on))
            {
                uses.insert(Use { on, what: What::Claimed });
            }
        }
        Ok(())
    }

    /// What a device lies on: its disk, its parts, and the file behind a loop device.
    pub(super) fn directly_under(
        &self,
        device: DeviceNumber,
    ) -> Result<(Vec<DeviceNumber>, Option<PathBuf>)> {
        let folder = self.folder(device)?;
        let mut under = vec![number(&self.disk_folder(device)?.join("dev"))?];
        for slave in folders(&folder.join("slaves"))? {
            under.push(number(&slave.join("dev"))?);
        }
        let file = backing_file(&folder);
        // A loop device on a node lies on that device, not on the file system of /dev.
        let node = file.as_deref().and_then(DeviceNumber::of_node);
        under.extend(node);
        Ok((under, file.filter(|_| node.is_none())))
    }

    /// The loop devices in use: number, name, and the path of the file behind.
    fn loops(&self) -> Result<Vec<(DeviceNumber, String, PathBuf)>> {
        let mut loops = Vec::new();
        for disk in self.disks()? {
            if let Some(file) = backing_file(&disk) {
                loops.push((number(&disk.join("dev"))?, leaf(&disk), file));
            }
        }
        Ok(loops)
    }
}

/// A holder by the kernel's name, with the name of a device-mapper device, which is the one a person knows.
fn holder_in(folder: &Path) -> What {
    let (name, given) = (leaf(folder), text(&folder.join("dm/name")));
    let kind = text(&folder.join("dm/uuid")).unwrap_or_default();
    let release = match given.as_deref() {
        Some(given) if kind.starts_with("LVM-") => Some(Release::Group(group_in(given))),
        Some(given) if kind.starts_with("CRYPT-") => Some(Release::Mapping(given.to_owned())),
        _ if folder.join("md").is_dir() => Some(Release::Array(name.clone())),
        _ => None,
    };
    What::Holder { name: given.map_or(name.clone(), |given| format!("{name} ({given})")), release }
}

/// The volume group in a name that LVM made: up to the first hyphen, for those within a name are doubled
/// (`dm_build_dm_name` in its libdm).
fn group_in(name: &str) -> String {
    let own = name.replace("--", "\0");
    own.split('-').next().unwrap_or_default().replace('\0', "-")
}

/// Whether an exclusive opening is refused. What cannot be opened at all (no medium, no node) is not claimed either.
fn is_claimed(node: &Path) -> bool {
    let opened = File::options().read(true).custom_flags(OFlag::O_EXCL.bits()).open(node);
    opened.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

/// The path of the file behind a loop device, as it was when that was set up.
fn backing_file(folder: &Path) -> Option<PathBuf> {
    let mut path = fs::read(folder.join("loop/backing_file")).ok()?;
    while path.last() == Some(&b'\n') {
        path.pop();
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}
