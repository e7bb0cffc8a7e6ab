//! Targets: which disk, whether it may be written at all, and how it is opened.
//!
//! In place, each planned volume is written through its own partition node, claimed for us alone, while the disk's
//! other partitions refuse writes; a regular file is opened once and bounded by windows. The whole disk is opened for
//! writing only for bare metal, and, bounded and last, for boot code.

use crate::survey;
use imager_disk::identity::{DiskIdentity, Partition};
use imager_disk::{Access, Device, DeviceNumber, Geometry, Protection, ReadAt, System, Window, WriteAt};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        Ok(Self {
            path: identity.path.clone(),
            identity,
            geometry,
            is_block,
            device: number,
            partitions,
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

    /// Refuses a disk that anything uses, or on which the repository lies.
    ///
    /// # Errors
    /// `Denied` with who uses it; `Io` when that cannot be found out.
    pub fn check_free(&self, repository: Option<&Path>) -> Result<()> {
        let device = Device::open(&self.path, Access::Read, None)?;
        let system = System::new();
        if let Some(repository) = repository {
            self.check_apart(&system, &device, repository)?;
        }
        let uses = system.uses(&device)?;
        if uses.is_empty() {
            return Ok(());
        }
        let uses: Vec<_> = uses.iter().map(ToString::to_string).collect();
        let what = format!("{} is in use: {}", self.path.display(), uses.join("; "));
        Err(Error::new(ErrorKind::Denied, what))
    }

    fn check_apart(&self, system: &System, device: &Device, repository: &Path) -> Result<()> {
        let under = system.backs_path(repository)?;
        let ours = device.number().into_iter().chain(self.partitions.iter().map(|p| p.device));
        let inside = repository.canonicalize().is_ok_and(|repository| self.path.starts_with(repository));
        if inside || ours.into_iter().any(|number| under.contains(&number)) {
            let what = format!("the repository {} lies on {}", repository.display(), self.path.display());
            return Err(Error::new(ErrorKind::Denied, what));
        }
        Ok(())
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
        survey::survey(vec![(number, source)], &survey::Assigned::new())
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

/// The partitions of a disk that must not be written: they refuse writes for as long as this lives.
pub struct Shield {
    protected: Vec<(Device, Protection)>,
}

impl Shield {
    /// Has every partition of `target` but those in `planned` refuse writes.
    ///
    /// # Errors
    /// `Denied` without the privilege; `Io`.
    pub fn raise(target: &Target, planned: &[Extent]) -> Result<Self> {
        let mut shield = Self { protected: Vec::new() };
        for partition in &target.partitions {
            if planned.iter().any(|extent| extent.overlaps(partition.extent)) {
                continue;
            }
            let device = Device::open(&partition.path, Access::Read, None)
                .context(|| format!("protecting partition {}", partition.number))?;
            let before = device.protection()?;
            device.protect(Protection::ReadOnly)?;
            shield.protected.push((device, before));
        }
        Ok(shield)
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

/// A volume of a disk that is open as a whole.
///
/// # Errors
/// `Invalid` when it lies outside.
pub fn window(disk: &Arc<Writer>, extent: Extent) -> Result<Window<Arc<Writer>>> {
    Window::part(Arc::clone(disk), extent)
}
