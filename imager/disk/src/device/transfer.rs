//! Reads and writes at any byte, past the page cache where that is possible.
//!
//! `O_DIRECT` takes whole units (the logical sector of a block device, 4096 bytes of a file) in aligned memory. What
//! is aligned goes straight; what is not goes through a buffer of ours, and a write that covers a part of a unit reads
//! the rest first, under a lock: two such writes may meet in one unit. What lies behind the last whole unit of a file of odd
//! length goes through the page cache, and nothing else of that page ever goes past it.

use super::Access;
use crate::{AlignedBuf, Geometry, sys};
use imager_units::{ByteLen, Context, Extent, Result};
use nix::fcntl::OFlag;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every file system that can do direct I/O on files can do it in units of this many bytes, or is not used so.
const FILE_UNIT_BYTES: u64 = 4096;
const BOUNCE_BYTES: usize = 1 << 20;
/// Linux moves a little less than 2 GiB at once; this is aligned to every unit.
const CALL_BYTES_MAX: usize = 1 << 30;
const SPARE_BUFFERS_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Transfer {
    file: File,
    direct: Option<File>,
    unit: u64,
    /// Where the last whole unit ends, and the page cache begins.
    direct_end: u64,
    merging: Mutex<()>,
    spare: Mutex<Vec<AlignedBuf>>,
}

impl Transfer {
    pub(super) fn new(file: File, geometry: &Geometry, access: Access, is_file: bool) -> Result<Self> {
        let unit = if is_file {
            FILE_UNIT_BYTES
        } else {
            let sector = sys::logical_sector_bytes(&file).map_err(io::Error::from);
            sector.context(|| "asking for the sector size".to_owned())?.into()
        };
        let through_cache = matches!(access, Access::Read | Access::ReadClaimed);
        let direct = if through_cache { None } else { open_direct(&file, access, unit) };
        let (merging, spare) = (Mutex::default(), Mutex::default());
        let mut transfer = Self { file, direct, unit, direct_end: 0, merging, spare };
        transfer.resize(geometry.size);
        Ok(transfer)
    }

    pub(super) fn resize(&mut self, size: ByteLen) {
        self.direct_end = if self.direct.is_some() { size.get() - size.get() % self.unit } else { 0 };
    }

    /// As on a file system that cannot do direct I/O.
    #[cfg(test)]
    pub(super) fn without_direct(&mut self) {
        self.direct = None;
        self.direct_end = 0;
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// What is zeroed or moved without being read first.
    pub(super) fn unit(&self) -> ByteLen {
        ByteLen::new(self.unit)
    }

    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let (direct, buffered) = buf.split_at_mut(self.direct_part(at, buf.len()));
        let behind = at + as_u64(direct.len());
        if let Some(file) = self.direct.as_ref().filter(|_| !direct.is_empty()) {
            self.read_direct(file, at, direct)?;
        }
        read_exact(&self.file, behind, buffered)
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (direct, buffered) = bytes.split_at(self.direct_part(at, bytes.len()));
        if let Some(file) = self.direct.as_ref().filter(|_| !direct.is_empty()) {
            self.write_direct(file, at, direct)?;
        }
        if buffered.is_empty() { Ok(()) } else { self.file.write_all_at(buffered, at + as_u64(direct.len())) }
    }

    pub(super) fn write_zeros(&self, extent: Extent) -> io::Result<()> {
        let (mut at, end) = (extent.start().get(), extent.end().get());
        if at < end {
            let zeros = AlignedBuf::zeroed(BOUNCE_BYTES.min(as_usize(end - at)));
            while at < end {
                // Up to the first whole unit, so that all but the edges goes straight.
                let most = match at % self.unit {
                    0 => zeros.len(),
                    before => as_usize(self.unit - before),
                };
                let len = as_usize(end - at).min(most);
                self.write(at, &zeros[..len])?;
                at += as_u64(len);
            }
        }
        Ok(())
    }

    /// How many of `len` bytes from `at` lie in whole units.
    fn direct_part(&self, at: u64, len: usize) -> usize {
        len.min(as_usize(self.direct_end.saturating_sub(at)))
    }

    /// How many bytes may go straight between `at` and this memory.
    fn straight(&self, at: u64, memory: &[u8]) -> usize {
        let unit = as_usize(self.unit);
        let in_memory = memory.as_ptr().align_offset(unit.min(AlignedBuf::ALIGN)) == 0;
        let aligned = at.is_multiple_of(self.unit) && in_memory;
        if aligned { memory.len().min(CALL_BYTES_MAX) / unit * unit } else { 0 }
    }

    fn read_direct(&self, file: &File, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let (at, rest) = (at + as_u64(done), &mut buf[done..]);
            let read = match self.straight(at, rest) {
                0 => self.read_bounced(file, at, rest),
                len => file.read_at(&mut rest[..len], at),
            };
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the units around `buf`, or the first of them, and copies out what was asked for.
    fn read_bounced(&self, file: &File, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let before = as_usize(at % self.unit);
        let mut bounce = self.bounce(before + buf.len());
        let read = file.read_at(&mut bounce, at - as_u64(before))?;
        let len = read.saturating_sub(before).min(buf.len());
        buf[..len].copy_from_slice(&bounce[before.min(read)..][..len]);
        self.give_back(bounce);
        Ok(len)
    }

    fn write_direct(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (at, rest) = (at + as_u64(done), &bytes[done..]);
            let written = match self.straight(at, rest) {
                0 => self.write_bounced(file, at, rest),
                len => file.write_at(&rest[..len], at),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the units around `bytes`, or the first of them, merged with what is on the disk.
    fn write_bounced(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let unit = as_usize(self.unit);
        let before = as_usize(at % self.unit);
        let start = at - as_u64(before);
        let mut bounce = self.bounce(before + bytes.len());
        let len = bytes.len().min(bounce.len() - before);
        let last = bounce.len() - unit;
        let partial_end = before + len < bounce.len();
        let merging = (before > 0 || partial_end).then(|| lock(&self.merging));
        if before > 0 {
            read_exact(file, start, &mut bounce[..unit])?;
        }
        if partial_end && (before == 0 || last > 0) {
            read_exact(file, start + as_u64(last), &mut bounce[last..])?;
        }
        bounce[before..][..len].copy_from_slice(&bytes[..len]);
        file.write_all_at(&bounce, start)?;
        drop(merging);
        self.give_back(bounce);
        Ok(len)
    }

    /// A buffer of whole units for `len` bytes, or for as many as are moved at once.
    fn bounce(&self, len: usize) -> AlignedBuf {
        let mut buffer = lock(&self.spare).pop().unwrap_or_default();
        buffer.resize(len.next_multiple_of(as_usize(self.unit)).min(BOUNCE_BYTES));
        buffer
    }

    fn give_back(&self, buffer: AlignedBuf) {
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_BUFFERS_MAX {
            spare.push(buffer);
        }
    }
}

/// The same file, opened past the page cache; `None` where the file system cannot do that.
fn open_direct(file: &File, access: Access, unit: u64) -> Option<File> {
    // By its descriptor, so that it is the same file whatever became of the path meanwhile.
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut options = File::options();
    let options = options.read(true).write(access.writes()).custom_flags(OFlag::O_DIRECT.bits());
    let direct = options.open(same).ok()?;
    // Some file systems let it be opened so and then refuse every read. A bad first sector is another matter.
    let refused = direct.read_at(&mut AlignedBuf::zeroed(as_usize(unit)), 0);
    (!refused.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)).then_some(direct)
}

fn read_exact(file: &File, at: u64, buf: &mut [u8]) -> io::Result<()> {
    if buf.is_empty() { Ok(()) } else { file.read_exact_at(buf, at) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a usize has at most 64 bits")
}

fn as_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
