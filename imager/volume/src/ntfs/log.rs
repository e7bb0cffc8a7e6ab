//! Whether `$LogFile` was closed.
//!
//! ntfs-3g, include/ntfs-3g/logfile.h and libntfs-3g/logfile.c: two restart pages, the one with the higher sequence
//! number counts; the log is closed when nobody has it open or the volume was marked clean in it. A log full of ones
//! was emptied while everything was in place, as Linux does before it writes. Version 2 is what Windows 8 and later
//! write while the volume is in use and keep when they start fast: then a part of the metadata is in their cache.

use super::record::fix;
use super::stream::{Stream, Table};
use crate::State;
use crate::bytes::Bytes;
use imager_units::Result;

/// The sizes of the pages that logs are made of.
const PAGE_BYTES: std::ops::RangeInclusive<u64> = 512..=65_536;
const LOGFILE_NO_CLIENT: u16 = 0xFFFF;
const RESTART_VOLUME_IS_CLEAN: u16 = 2;
/// So much of a log must be ones for it to be empty: the two restart pages whatever their size.
const EMPTY_BYTES: u64 = 128 << 10;

/// What the log says of the volume.
///
/// # Errors
/// `Corrupt` when it is not there, `Io` when it cannot be read.
pub(super) fn state(table: &Table<'_>, log: &Stream) -> Result<State> {
    let dirty = |why: &str| Ok(State::Dirty(why.to_owned()));
    let start = table.read(log, 0, EMPTY_BYTES.min(log.len))?;
    if !start.is_empty() && start.iter().all(|&byte| byte == 0xFF) {
        return Ok(State::Clean);
    }
    let first = Restart::parse(&start);
    let page = first.as_ref().map_or(0, |restart| restart.page);
    let second = start.get(page..).and_then(Restart::parse).filter(|second| second.page == page);
    let (Some(first), Some(second)) = (first, second) else {
        return dirty("its log ($LogFile) is damaged");
    };
    let newest = if second.lsn > first.lsn { second } else { first };
    if newest.major_version >= 2 {
        dirty("Windows has it in use, or started fast and keeps a part of it in its cache (log version 2)")
    } else if newest.is_closed {
        Ok(State::Clean)
    } else {
        dirty("its log ($LogFile) holds changes that are not in place yet")
    }
}

/// A restart page with the restart area in it.
struct Restart {
    page: usize,
    lsn: u64,
    major_version: u16,
    is_closed: bool,
}

impl Restart {
    /// Reads the page at the beginning of `log`.
    fn parse(log: &[u8]) -> Option<Self> {
        let header = Bytes(log);
        // A page of chkdsk's says that it put everything in order.
        let by_chkdsk = header.is(0, b"CHKD");
        let size = header.le32(16).filter(|_| by_chkdsk || header.is(0, b"RSTR"))?;
        let size =
            Some(size).filter(|size| size.is_power_of_two() && PAGE_BYTES.contains(&u64::from(*size)))?;
        let page = usize::try_from(size).ok()?;
        let mut bytes = header.slice(0, page)?.to_vec();
        if !by_chkdsk || header.le16(6)? != 0 {
            fix(&mut bytes)?;
        }
        let b = Bytes(&bytes);
        let area = Bytes(bytes.get(usize::from(b.le16(24)?)..)?);
        Some(Self {
            page,
            lsn: if by_chkdsk { b.le64(8)? } else { area.le64(0)? },
            major_version: b.le16(28)?,
            is_closed: area.le16(12)? == LOGFILE_NO_CLIENT || area.le16(14)? & RESTART_VOLUME_IS_CLEAN != 0,
        })
    }
}
