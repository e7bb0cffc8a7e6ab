//! Who uses a disk or file, and which disks lie under a path.
//!
//! A use of a partition is a use of its disk; what a device-mapper target, an md array or a loop device makes of a
//! device is a use, and so is whatever is done with that. Mounts are found by device number and by the name of their
//! source, because Btrfs numbers its mounts itself, and one of its filesystems may lie on several devices.
//!
//! What other mount namespaces have mounted is not seen here. The kernel refuses the exclusive opening of what they use,
//! and [`System::uses`] asks it.

mod filesystems;
mod mounts;
mod stack;

pub use filesystems::MountedFilesystem;

use crate::identity::Partition;
use crate::{Device, DeviceNumber, System};
use imager_units::{Context, Result};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How deep file systems on loop devices on file systems are followed.
const DEPTH_MAX: usize = 8;

/// One use of a disk, of a part of it, or of something made from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// The kernel's name of what is used; the path, for a file.
    pub on: String,
    /// How it is used.
    pub what: What,
}

/// How something is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Mounted.
    Mounted {
        /// Where.
        at: PathBuf,
        /// Whether the file system is read-only; a read-only mount of one that is not does not make it so.
        read_only: bool,
    },
    /// Swap space.
    Swap,
    /// Part of another block device (device-mapper, md, bcache).
    Holder {
        /// The kernel's name, and the one a person gave it.
        name: String,
        /// How it is taken apart, where that is known.
        release: Option<Release>,
    },
    /// Backs a loop device, by the kernel's name.
    Loop(String),
    /// Claimed, but not by anything visible from here: another mount namespace, ZFS, a program.
    Claimed,
}

/// How what was built on something is taken apart; nothing may use it then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// The volume group of which it is a logical volume or a part of one is deactivated.
    Group(String),
    /// The open mapping of what is encrypted, by its name, is closed.
    Mapping(String),
    /// The array, by the kernel's name, is stopped.
    Array(String),
}

impl fmt::Display for Release {
    /// The command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "vgchange -an {name}"),
            Self::Mapping(name) => write!(f, "cryptsetup close {name}"),
            Self::Array(name) => write!(f, "mdadm --stop /dev/{name}"),
        }
    }
}

impl Use {
    /// Whether it may write: then reading the disk meanwhile gives no consistent picture. What is built on a holder or
    /// loop device is listed by itself, so those do not count here.
    pub fn writes(&self) -> bool {
        match self.what {
            What::Mounted { read_only, .. } => !read_only,
            What::Swap | What::Claimed => true,
            What::Holder { .. } | What::Loop(_) => false,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { on, what } = self;
        match what {
            What::Mounted { at, read_only: false } => write!(f, "{on} is mounted at {}", at.display()),
            What::Mounted { at, read_only: true } => {
                write!(f, "{on} is mounted read-only at {}", at.display())
            }
            What::Swap => write!(f, "{on} is swap space in use"),
            What::Holder { name, .. } => write!(f, "{on} is part of {name}"),
            What::Loop(name) => write!(f, "{on} is the file behind {name}"),
            What::Claimed => write!(f, "{on} is claimed by something not visible from here"),
        }
    }
}

/// Who uses a disk, by what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUses {
    /// Uses of the disk as a whole, or of what is no disk with partitions.
    pub whole: Vec<Use>,
    /// The partitions that are in use, with their uses.
    pub partitions: Vec<(Partition, Vec<Use>)>,
}

impl DiskUses {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Use> {
        self.whole.iter().chain(self.partitions.iter().flat_map(|(_, uses)| uses))
    }
}

impl System {
    /// Every use of an open disk or file, of its partitions, of the disk it is a partition of (but not of that
    /// disk's other partitions), and of everything built on them. To be asked before it is opened for writing: our own
    /// exclusive use counts too.
    ///
    /// # Errors
    /// `Io`, `NotFound`, `Corrupt` when the kernel's description cannot be read.
    pub fn uses(&self, device: &Device) -> Result<Vec<Use>> {
        match device.number() {
            Some(number) => self.uses_above(vec![number], self.disk_of_partition(number)?, BTreeSet::new()),
            None => {
                let mut uses = BTreeSet::new();
                let loops = self.uses_of_file(device, &mut uses)?;
                self.uses_above(loops, None, uses)
            }
        }
    }

    /// The same, told apart: which of it are uses of one partition alone.
    ///
    /// # Errors
    /// As [`System::uses`].
    pub fn uses_by_partition(&self, device: &Device) -> Result<DiskUses> {
        match device.number() {
            Some(number) if self.disk_of_partition(number)?.is_none() => self.uses_of_disk(number),
            _ => Ok(DiskUses { whole: self.uses(device)?, partitions: Vec::new() }),
        }
    }

    fn uses_of_disk(&self, disk: DeviceNumber) -> Result<DiskUses> {
        let mut found = DiskUses {
            whole: self.uses_above(Vec::new(), Some(disk), BTreeSet::new())?,
            partitions: Vec::new(),
        };
        for partition in self.partitions(disk)? {
            let uses = self.uses_above(vec![partition.device], None, BTreeSet::new())?;
            if !uses.is_empty() {
                found.partitions.push((partition, uses));
            }
        }
        Ok(found)
    }

    /// `uses`, and those of `devices` with their partitions, of `disk` without, and of everything built on them.
    fn uses_above(
        &self,
        devices: Vec<DeviceNumber>,
        disk: Option<DeviceNumber>,
        mut uses: BTreeSet<Use>,
    ) -> Result<Vec<Use>> {
        let all = self.stacked_on(devices, disk, &mut uses)?;
        self.mounts_and_swaps_on(&all, &mut uses)?;
        self.claims_on(&all, &mut uses)?;
        Ok(uses.into_iter().collect())
    }

    /// Every block device under the file system that holds `path`: the one it is on, the disks and partitions that make
    /// it up, and those under the file behind a loop device. Empty for what is on no local disk.
    ///
    /// # Errors
    /// `Io`, `NotFound` when the path or the kernel's description cannot be read.
    pub fn backs_path(&self, path: &Path) -> Result<Vec<DeviceNumber>> {
        let mut found = BTreeSet::new();
        self.collect_under_path(path, DEPTH_MAX, &mut found)?;
        Ok(found.into_iter().collect())
    }

    fn collect_under_path(
        &self,
        path: &Path,
        depth: usize,
        found: &mut BTreeSet<DeviceNumber>,
    ) -> Result<()> {
        let path = fs::canonicalize(path).context(|| format!("resolving {}", path.display()))?;
        let metadata = fs::metadata(&path).context(|| format!("looking at {}", path.display()))?;
        let mounts = mounts::read(self)?;
        let own = DeviceNumber::from_raw(metadata.dev());
        let mut pending: Vec<_> = self.folder(own).is_ok().then_some(own).into_iter().collect();
        // Of several mounts at one place the last one counts, and so does `max_by_key`.
        let above = mounts.iter().filter(|mount| path.starts_with(&mount.at));
        if let Some(mount) = above.max_by_key(|mount| mount.at.components().count()) {
            pending.extend(self.devices_of(mount)?);
            for layer in mount.layers().filter(|_| depth > 0) {
                // The layer of a live system may be named as it was before the root changed.
                drop(self.collect_under_path(&layer, depth - 1, found));
            }
        }
        self.collect_under(pending, depth, found)
    }

    fn collect_under(
        &self,
        mut pending: Vec<DeviceNumber>,
        depth: usize,
        found: &mut BTreeSet<DeviceNumber>,
    ) -> Result<()> {
        while let Some(number) = pending.pop() {
            if found.insert(number) {
                let (below, file) = self.directly_under(number)?;
                pending.extend(below);
                if let Some(file) = file.filter(|_| depth > 0) {
                    drop(self.collect_under_path(&file, depth - 1, found));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
