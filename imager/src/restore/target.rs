//! Targets: which disk, whether it may be written at all, and how it is opened.
//!
//! In place, each planned volume is written through its own partition node, claimed for us alone. What else is on the
//! disk may stay in use, as long as nothing but the planned partitions is written; a regular file is opened once and
//! bounded by windows. The whole disk is opened for writing only for bare metal, and, bounded and last, for boot code.

use crate::survey;
use imager_disk::identity::{DiskIdentity, Partition};
use imager_disk::usage::{DiskUses, Use, What};
use imager_disk::{Access, Device, DeviceNumber, Geometry, ReadAt, System, Window, WriteAt};
use imager_image::manifest::Stack;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `bootenv build` calls the filesystem of a medium.
const MEDIUM: &[u8] = b"HALFHOUR_RESCUE";
/// Where a filesystem of ISO 9660 describes itself.
const DESCRIPTOR_BYTE: u64 = 16 * 2048;

/// A disk that a person named as a target; nothing of it is open for writing.
pub struct Target {
    /// Its path.
    pub path: PathBuf,
    /// Which disk it is.
    pub identity: DiskIdentity,
    /// Its size and sectors.
    pub geometry: Geometry,
    /// Whether it is a block device.
    pub is_block: bool,
    /// The kernel's number of a block device.
    pub device: Option<DeviceNumber>,
    /// Its partitions as the kernel has them.
    pub partitions: Vec<Partition>,
    /// Who used it when it was opened.
    pub uses: DiskUses,
    /// To look at it.
    pub reader: Arc<dyn ReadAt>,
}

impl Target {
    /// Opens a disk to look at it. A file counts in sectors of `sector`, those of the captured disk.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Io` from the system; `Invalid` when a block device has other logical sectors.
    pub fn open(path: &Path, sector: SectorSize) -> Result<Self> {
        let device = Device::open(path, Access::Read, None)?;
        let is_block = device.is_block();
        let device = if is_block { device } else { Device::open(path, Access::Read, Some(sector))? };
        let system = System::new();
        let identity = system.identity(&device)?;
        let geometry = device.geometry();
        if geometry.logical != sector {
            let what = format!(
                "{} has logical sectors of {} bytes, the captured disk of {}: tables and filesystems would not fit",
                path.display(),
                geometry.logical.get(),
                sector.get()
            );
            return Err(Error::new(ErrorKind::Denied, what));
        }
        let number = device.number();
        let partitions = number.map(|number| system.partitions(number)).transpose()?.unwrap_or_default();
        let uses = system.uses_by_partition(&device)?;
        if is_block {
            // Beside a mounted partition the disk's own cache outlives whoever filled it.
            device.drop_cache(geometry.extent());
        }
        Ok(Self {
            path: identity.path.clone(),
            identity,
            geometry,
            is_block,
            device: number,
            partitions,
            uses,
            reader: Arc::new(device),
        })
    }

    /// How a person recognises it: model, serial number, size, path.
    pub fn describe(&self) -> String {
        let serial = self.identity.serial.as_deref().or(self.identity.wwn.as_deref());
        let serial =
            serial.map_or_else(|| "no serial number".to_owned(), |serial| format!("serial {serial}"));
        let size = self.geometry.size;
        match self.is_block {
            true => format!("{}, {serial}, {size}, {}", self.identity.model, self.path.display()),
            false => format!("file {}, {size}", self.path.display()),
        }
    }

    /// What stays the same about it, for the plan's hash: serial number or WWN, else the path.
    pub fn constant_name(&self) -> String {
        let DiskIdentity { serial, wwn, .. } = &self.identity;
        wwn.as_ref()
            .map(|wwn| format!("wwn:{wwn}"))
            .or_else(|| serial.as_ref().map(|serial| format!("serial:{serial}")))
            .unwrap_or_else(|| self.path.display().to_string())
    }

    /// Refuses the disk on which the repository lies, or the system that runs here: a rescue medium's, perhaps.
    ///
    /// # Errors
    /// `Denied`; `Io` when that cannot be found out.
    pub fn check_apart(&self, repository: Option<&Path>) -> Result<()> {
        if let Some(repository) = repository
            && (repository.canonicalize().is_ok_and(|repository| self.path.starts_with(repository))
                || self.is_under(repository)?)
        {
            let what = format!("the repository {} lies on {}", repository.display(), self.path.display());
            return Err(Error::new(ErrorKind::Denied, what));
        }
        if self.is_rescue_medium()? {
            let what = format!(
                "{} is a rescue medium: is it the right disk? (wipefs -a makes it one like any other)",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::Denied, what));
        }
        // Where this program lies may be gone from sight; the root never is.
        if self.is_under(Path::new("/"))? || self.is_under(Path::new("/proc/self/exe")).unwrap_or(false) {
            let what = format!(
                "the system that runs here lies on {}: restore it from the rescue medium, or from another one",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::Denied, what));
        }
        Ok(())
    }

    /// Whether it is a rescue medium, which uses nothing once it has started: told by the name of its filesystem
    /// (ECMA-119, 8.4: the primary volume descriptor).
    fn is_rescue_medium(&self) -> Result<bool> {
        let mut descriptor = [0; 72];
        if self.geometry.size < ByteLen::new(DESCRIPTOR_BYTE.saturating_add(2048)) {
            return Ok(false);
        }
        self.reader.read_exact_at(ByteOffset::new(DESCRIPTOR_BYTE), &mut descriptor)?;
        let name = descriptor.get(40..72).unwrap_or_default();
        Ok(descriptor.starts_with(b"\x01CD001") && name.trim_ascii_end() == MEDIUM)
    }

    /// Whether a path is on this disk or one of its partitions.
    fn is_under(&self, path: &Path) -> Result<bool> {
        let under = System::new().backs_path(path)?;
        let mut ours = self.device.into_iter().chain(self.partitions.iter().map(|p| p.device));
        Ok(ours.any(|number| under.contains(&number)))
    }

    /// Refuses a disk that anything uses.
    ///
    /// # Errors
    /// `Denied` with who uses it.
    pub fn check_free(&self) -> Result<()> {
        self.refuse_if(self.uses.iter())
    }

    /// Refuses a disk of which anything uses what is `planned`, or the disk as a whole.
    ///
    /// # Errors
    /// `Denied` with who uses it.
    pub fn check_free_at(&self, planned: &[Extent]) -> Result<()> {
        let there = planned.iter().flat_map(|extent| self.users_of(*extent));
        self.refuse_if(self.uses.whole.iter().chain(there))
    }

    fn refuse_if<'a>(&self, uses: impl Iterator<Item = &'a Use>) -> Result<()> {
        let uses: BTreeSet<_> = uses.collect();
        if uses.is_empty() {
            return Ok(());
        }
        let release = |one: &&Use| match &one.what {
            What::Holder { release, .. } => release.clone(),
            _ => None,
        };
        let releases: BTreeSet<_> = uses.iter().filter_map(release).collect();
        let uses: Vec<_> = uses.iter().map(ToString::to_string).collect();
        let what = format!("{} is in use: {}", self.path.display(), uses.join("; "));
        if releases.is_empty() {
            return Err(Error::new(ErrorKind::Denied, what));
        }
        let commands: Vec<_> = releases.iter().map(|release| format!("({release})")).collect();
        let what = format!(
            "{what}. Take apart first what is built on it, from the top down {}",
            commands.join(", ")
        );
        Err(Error::new(ErrorKind::Denied, what))
    }

    /// The uses of the partitions, as the kernel has them, that reach into `extent`.
    pub fn users_of(&self, extent: Extent) -> impl Iterator<Item = &Use> {
        let there =
            self.uses.partitions.iter().filter(move |(partition, _)| partition.extent.overlaps(extent));
        there.flat_map(|(_, uses)| uses)
    }

    /// Whether anybody uses what reaches into `extent`.
    pub fn is_used(&self, extent: Extent) -> bool {
        self.users_of(extent).next().is_some()
    }

    /// The partition node that is exactly `extent`.
    ///
    /// # Errors
    /// `Denied` when the kernel has none.
    pub fn partition(&self, extent: Extent) -> Result<&Partition> {
        let missing = || {
            let what = format!(
                "the kernel has no partition at {extent} of {}: have it read the table again (partprobe, or attach a \
                 loop device with --partscan)",
                self.path.display()
            );
            Error::new(ErrorKind::Denied, what)
        };
        self.partitions.iter().find(|partition| partition.extent == extent).ok_or_else(missing)
    }

    /// The table and volumes on it as they are now.
    ///
    /// # Errors
    /// As [`survey::survey`].
    pub fn survey(&self, number: u32) -> Result<survey::Survey> {
        let source = survey::Source { device: Arc::clone(&self.reader), identity: self.identity.clone() };
        let mut seen = survey::survey(vec![(number, source)], &survey::Assigned::new())?;
        // What lies in other volumes is told by these.
        seen.volumes.retain(|volume| !matches!(volume.stack, Some(Stack::Logical { .. })));
        Ok(seen)
    }
}

/// Something open for writing that forgets its cache when it is flushed, so that reading back asks the medium.
pub struct Writer {
    device: Device,
    account: Arc<Account>,
}

/// How many bytes were written to a disk, in whole sectors, as the kernel counts them.
#[derive(Debug, Default)]
pub struct Account(AtomicU64);

impl Account {
    /// The bytes so far.
    pub fn total(&self) -> ByteLen {
        ByteLen::new(self.0.load(Ordering::Relaxed))
    }
}

impl Writer {
    /// Opens `path` for writing, for us alone; what is written is booked in `account`.
    ///
    /// # Errors
    /// `Denied` when it is in use; as [`Device::open`].
    pub fn open(path: &Path, sector: SectorSize, account: Arc<Account>) -> Result<Self> {
        let device = Device::open(path, Access::Write, Some(sector))?;
        Ok(Self { device, account })
    }

    fn book(&self, extent: Extent) {
        let sectors = extent.align_out(self.device.geometry().logical.as_len());
        self.account.0.fetch_add(sectors.len().get(), Ordering::Relaxed);
    }

    /// Makes a regular file at least `size` long.
    ///
    /// # Errors
    /// As [`Device::set_len`].
    pub fn extend(&mut self, size: ByteLen) -> Result<()> {
        if !self.device.is_block() && self.device.geometry().size < size {
            self.device.set_len(size)?;
        }
        Ok(())
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl ReadAt for Writer {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.device.read_exact_at(offset, buf)
    }

    fn data(&self, within: Extent) -> Result<ExtentSet> {
        self.device.data(within)
    }
}

impl WriteAt for Writer {
    fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        self.book(Extent::between(offset, offset.saturating_add(ByteLen::of(bytes))));
        self.device.write_all_at(offset, bytes)
    }

    fn zero(&self, extent: Extent) -> Result<()> {
        self.book(extent);
        self.device.zero(extent)
    }

    fn flush(&self) -> Result<()> {
        self.device.flush()?;
        if !self.device.is_direct() {
            self.device.drop_cache(self.device.geometry().extent());
        }
        Ok(())
    }
}

/// A volume of a disk that is open as a whole.
///
/// # Errors
/// `Invalid` when it lies outside.
pub fn window(disk: &Arc<Writer>, extent: Extent) -> Result<Window<Arc<Writer>>> {
    Window::part(Arc::clone(disk), extent)
}

#[cfg(test)]
mod tests {
    use super::{DESCRIPTOR_BYTE, Target};
    use imager_units::{ErrorKind, SectorSize};
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_rescue_medium_is_no_target() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let judge = || {
            let target = Target::open(file.path(), SectorSize::new(512).expect("a size")).expect("a target");
            target.check_apart(None).map_err(|error| error.kind())
        };
        file.as_file().set_len(DESCRIPTOR_BYTE).expect("a size");
        assert_eq!(judge(), Ok(()), "too short");
        file.as_file().set_len(1 << 20).expect("a size");
        for (name, expected) in [("HALFHOUR_RESCUE", Err(ErrorKind::Denied)), ("Debian 12", Ok(()))] {
            let descriptor = format!("\u{1}CD001\u{1}\0{:32}{name:32}", "");
            file.as_file().write_all_at(descriptor.as_bytes(), DESCRIPTOR_BYTE).expect("writing");
            assert_eq!(judge(), expected, "{name}");
        }
    }
}
