//! A real disk: a block device, or a regular file that stands for one.
//!
//! What is written has to be compared with what is on the medium, so writing (and reading, when asked) goes past the
//! page cache wherever the file system can do that. `transfer` hides what this asks of offsets and memory: callers may
//! read and write any byte up to the last.
//!
//! A partition's node and its disk's node have page caches of their own. Whoever wrote through one and wants to read
//! through the other opens it with [`Access::ReadDirect`], or calls [`Device::drop_cache`] first.

mod transfer;

use crate::{DeviceNumber, Geometry, ReadAt, WriteAt, sys};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use transfer::Transfer;

/// How much the kernel zeroes at once, so that a device without means of its own can be interrupted between.
const ZERO_BYTES_MAX: ByteLen = ByteLen::new(256 << 20);

/// How long the kernel may be busy with a disk (udev looks at it whenever it was written) before that is an error.
const REREAD_TRIES: u32 = 20;
const REREAD_PAUSE: Duration = Duration::from_millis(100);

/// How a disk is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read, through the page cache.
    Read,
    /// To read past the page cache.
    ReadDirect,
    /// To read, while nobody else may begin to use it: a block device is claimed from the kernel.
    ReadClaimed,
    /// To read and write past the page cache; nobody else may use it: a block device is claimed from the kernel,
    /// a regular file is locked against others who ask.
    Write,
    /// To read and write past the page cache what others use too; the caller knows which bytes are his.
    WriteShared,
}

impl Access {
    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::WriteShared)
    }
}

/// Whether a block device refuses writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It refuses them.
    ReadOnly,
    /// It takes them.
    Writable,
}

/// An open block device or regular file.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    metadata: Metadata,
    access: Access,
    geometry: Geometry,
    transfer: Transfer,
    /// The offset of a descriptor is shared, and looking for data moves it.
    seeking: Mutex<()>,
}

impl Device {
    /// Opens a disk. `sector` is the logical sector in which its table counts, where it is not the device's own
    /// (a file's own is 512).
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Denied` when the system does not permit it, or it is in use and `access` claims it;
    /// `Invalid` when it is neither a block device nor a regular file.
    pub fn open(path: &Path, access: Access, sector: Option<SectorSize>) -> Result<Self> {
        let say = || format!("opening {}", path.display());
        let found = fs::metadata(path).context(say)?;
        if !found.is_file() && !found.file_type().is_block_device() {
            let what = format!("{} is neither a block device nor a regular file", path.display());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let claims = matches!(access, Access::Write | Access::ReadClaimed);
        let exclusive = if claims { OFlag::O_EXCL.bits() } else { 0 };
        let mut options = File::options();
        let file = options.read(true).write(access.writes()).custom_flags(exclusive).open(path);
        let file = file.map_err(|error| busy_is_denied(path, error))?;
        let metadata = file.metadata().context(say)?;
        if (metadata.dev(), metadata.ino()) != (found.dev(), found.ino()) {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{} was exchanged while it was opened", path.display()),
            ));
        }
        if metadata.is_file() {
            lock(path, &file, access)?;
        } else if access.writes() && sys::is_read_only(&file).unwrap_or(false) {
            // The kernel opens it all the same, and refuses each write.
            return Err(Error::new(ErrorKind::Denied, format!("{} is write-protected", path.display())));
        }
        let geometry = geometry(&file, &metadata, sector).context(say)?;
        let transfer = Transfer::new(file, &geometry, access, metadata.is_file()).context(say)?;
        Ok(Self { path: path.to_owned(), metadata, access, geometry, transfer, seeking: Mutex::default() })
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was opened.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether it is a block device; otherwise it is a regular file.
    pub fn is_block(&self) -> bool {
        !self.metadata.is_file()
    }

    /// The kernel's number of a block device.
    pub fn number(&self) -> Option<DeviceNumber> {
        self.is_block().then(|| DeviceNumber::from_raw(self.metadata.rdev()))
    }

    /// What tells a regular file from others: the file system it is on, and its number there.
    pub(crate) fn file_id(&self) -> Option<(u64, u64)> {
        self.metadata.is_file().then(|| (self.metadata.dev(), self.metadata.ino()))
    }

    /// Whether all but a tail shorter than a sector goes past the page cache. Where it does not, what is read back
    /// comes from the medium only after a `flush` and [`Device::drop_cache`].
    pub fn is_direct(&self) -> bool {
        self.transfer.is_direct()
    }

    /// Makes a regular file that was opened for writing `size` bytes long; what is new reads as zeros.
    ///
    /// # Errors
    /// `Invalid` on a block device; `OutOfSpace`, `Denied`, `Io` from the system.
    pub fn set_len(&mut self, size: ByteLen) -> Result<()> {
        let what = format!("making {} {} bytes long", self.path.display(), size.get());
        if self.is_block() {
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        self.transfer.file().set_len(size.get()).context(|| what)?;
        self.geometry.size = size;
        self.transfer.resize(size);
        Ok(())
    }

    /// Starts to read `extent` into the page cache, as far as it goes through that.
    pub fn will_read(&self, extent: Extent) {
        if !self.is_direct() {
            self.advise(extent, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Forgets what the page cache holds of `extent`, so that the next read comes from the medium. What was written
    /// and not yet flushed stays.
    pub fn drop_cache(&self, extent: Extent) {
        self.advise(extent, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    /// A hint, and no more: what the kernel makes of it is not our concern.
    fn advise(&self, extent: Extent, advice: PosixFadviseAdvice) {
        if let (Ok(start), Ok(len)) = (i64::try_from(extent.start().get()), i64::try_from(extent.len().get()))
        {
            let _ignored = posix_fadvise(self.transfer.file(), start, len, advice);
        }
    }

    /// Whether the block device refuses writes; a regular file never does.
    ///
    /// # Errors
    /// `Io` from the system.
    pub fn protection(&self) -> Result<Protection> {
        if !self.is_block() {
            return Ok(Protection::Writable);
        }
        match sys::is_read_only(self.transfer.file()).map_err(|errno| self.failed("looking at", errno))? {
            true => Ok(Protection::ReadOnly),
            false => Ok(Protection::Writable),
        }
    }

    /// Has the kernel refuse or allow writes to the block device, whoever makes them. Forgotten when the table is read
    /// again.
    ///
    /// # Errors
    /// `Denied` without the privilege; `Io` from the system.
    pub fn protect(&self, protection: Protection) -> Result<()> {
        sys::set_read_only(self.transfer.file(), protection == Protection::ReadOnly)
            .map_err(|errno| self.failed("switching the write protection of", errno))
    }

    /// Has the kernel read the partition table of the disk again.
    ///
    /// # Errors
    /// `Denied` when a partition is in use or the privilege is missing; `Io` from the system.
    pub fn reread_table(&self) -> Result<()> {
        let mut tries = 1;
        loop {
            match sys::reread_table(self.transfer.file()) {
                Err(Errno::EBUSY) if tries < REREAD_TRIES => std::thread::sleep(REREAD_PAUSE),
                Err(Errno::EBUSY) => {
                    let what = format!("a partition of {} is in use", self.path.display());
                    return Err(Error::with_source(ErrorKind::Denied, what, Errno::EBUSY));
                }
                result => return result.map_err(|errno| self.failed("reading the table again on", errno)),
            }
            tries += 1;
        }
    }

    fn check_write(&self, offset: ByteOffset, len: ByteLen) -> Result<Extent> {
        if self.access.writes() {
            return self.geometry.check(offset, len);
        }
        Err(Error::new(ErrorKind::Denied, format!("{} was opened to read only", self.path.display())))
    }

    /// Zeroes whole units by the device's or file system's own means; not done where they have none.
    fn zero_quickly(&self, extent: Extent) -> Result<bool> {
        let mut at = extent.start();
        while at < extent.end() {
            let end = at.saturating_add(ZERO_BYTES_MAX).min(extent.end());
            let part = Extent::between(at, end);
            let zeroed = if self.is_block() {
                sys::zero(self.transfer.file(), part)
            } else {
                punch(self.transfer.file(), part)
            };
            match zeroed {
                Ok(()) => at = end,
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ENOTTY) => return Ok(false),
                Err(errno) => return Err(self.failed(&format!("zeroing {part} of"), errno)),
            }
        }
        Ok(true)
    }

    fn zero_by_writing(&self, extent: Extent) -> Result<()> {
        self.transfer.write_zeros(extent).map_err(|error| self.io_error("zeroing", extent, error))
    }

    fn failed(&self, what: &str, errno: Errno) -> Error {
        Error::io(format!("{what} {}", self.path.display()), errno.into())
    }

    fn io_error(&self, what: &str, extent: Extent, error: std::io::Error) -> Error {
        let what = format!("{what} {extent} of {}", self.path.display());
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            let len = self.transfer.file().metadata().map_or(0, |metadata| metadata.len());
            return Error::with_source(ErrorKind::Io, format!("{what}, which now ends at {len:#x}"), error);
        }
        Error::io(what, error)
    }
}

impl ReadAt for Device {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let extent = self.geometry.check(offset, ByteLen::of(buf))?;
        self.transfer.read(offset.get(), buf).map_err(|error| self.io_error("reading", extent, error))
    }

    fn data(&self, within: Extent) -> Result<ExtentSet> {
        let within = within.intersection(self.geometry.extent());
        if self.is_block() {
            return Ok(ExtentSet::from(within));
        }
        let _seeking = self.seeking.lock().unwrap_or_else(PoisonError::into_inner);
        data(self.transfer.file(), within).map_err(|errno| self.failed("looking for data in", errno))
    }
}

impl WriteAt for Device {
    fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let extent = self.check_write(offset, ByteLen::of(bytes))?;
        self.transfer.write(offset.get(), bytes).map_err(|error| self.io_error("writing", extent, error))
    }

    fn zero(&self, extent: Extent) -> Result<()> {
        let extent = self.check_write(extent.start(), extent.len())?;
        // The edges are written, so that they are read and merged under the lock that all unaligned writes take.
        let unit = self.transfer.unit();
        let inner = Extent::between(extent.start().align_up(unit), extent.end().align_down(unit));
        if inner.is_empty() || !self.zero_quickly(inner)? {
            return self.zero_by_writing(extent);
        }
        self.zero_by_writing(Extent::between(extent.start(), inner.start()))?;
        self.zero_by_writing(Extent::between(inner.end(), extent.end()))
    }

    fn flush(&self) -> Result<()> {
        self.transfer.file().sync_data().context(|| format!("flushing {}", self.path.display()))
    }
}

fn geometry(file: &File, metadata: &Metadata, sector: Option<SectorSize>) -> Result<Geometry> {
    if metadata.is_file() {
        let logical = sector.unwrap_or(SectorSize::B512);
        return Ok(Geometry { size: ByteLen::new(metadata.len()), logical, physical: logical });
    }
    let fail = |errno: Errno| Error::io("asking for its geometry", errno.into());
    let own = SectorSize::new(sys::logical_sector_bytes(file).map_err(fail)?)?;
    let logical = sector.unwrap_or(own);
    // Some bridges report nonsense here; the logical sector is then the safe answer.
    let physical = sys::physical_sector_bytes(file).ok().and_then(|bytes| SectorSize::new(bytes).ok());
    let physical = physical.unwrap_or(logical).max(logical);
    // A part of a sector at the end (a loop device on a file of odd length) is counted, but the kernel cannot reach it.
    let size = sys::size(file).map_err(fail)?.get();
    Ok(Geometry { size: ByteLen::new(size - size % u64::from(own.get())), logical, physical })
}

/// The runs of a regular file that are not holes. A file system that does not know says all of it.
fn data(file: &File, within: Extent) -> Result<ExtentSet, Errno> {
    let mut found = ExtentSet::new();
    let mut at = within.start();
    while at < within.end() {
        let from = i64::try_from(at.get()).map_err(|_| Errno::EOVERFLOW)?;
        let start = match lseek(file, from, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(ExtentSet::from(within)),
            Err(errno) => return Err(errno),
        };
        let end = lseek(file, start, Whence::SeekHole)?;
        let offset = |at: i64| ByteOffset::new(u64::try_from(at).unwrap_or(0));
        found.insert(Extent::between(offset(start), offset(end)).intersection(within));
        at = offset(end);
    }
    Ok(found)
}

/// Makes a hole, or where there are none, zeros that the file system only notes down.
fn punch(file: &File, extent: Extent) -> Result<(), Errno> {
    let as_signed = |bytes: u64| i64::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
    let (start, len) = (as_signed(extent.start().get())?, as_signed(extent.len().get())?);
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep, start, len) {
        Err(Errno::EOPNOTSUPP) => fallocate(file, FallocateFlags::FALLOC_FL_ZERO_RANGE | keep, start, len),
        done => done,
    }
}

fn busy_is_denied(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::ResourceBusy {
        let what = format!("{} is in use (mounted, or held by another device or program)", path.display());
        return Error::with_source(ErrorKind::Denied, what, error);
    }
    Error::io(format!("opening {}", path.display()), error)
}

/// Keeps two of us from writing to one file; a file system without locks cannot.
fn lock(path: &Path, file: &File, access: Access) -> Result<()> {
    if access != Access::Write {
        return Ok(());
    }
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Denied,
            format!("{} is being written by another process", path.display()),
        )),
        Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
