//! A disk as it was at the instant.
//!
//! Three places have its bytes. The disk itself, for whatever was not marked since: read first and asked after, because a
//! mark is set before a write can change anything. The copies made while it was frozen or just before. And the draft.
//! What is in none of them was never written between the first freeze and the instant, though it may be allocated: zeros,
//! of which a note is taken.

use crate::view::{DiskView, Status};
use imager_disk::{Geometry, ReadAt};
use imager_journal::{ChangeLog, MARK_BYTES};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Blocks in memory, by the log's number of the disk and where they start.
pub(super) type Copied<'a> = HashMap<(usize, ByteOffset), &'a [u8]>;

/// What was found nowhere, by the log's number of the disk.
#[derive(Default)]
pub(super) struct Noted(Mutex<BTreeMap<usize, ExtentSet>>);

/// The disk.
pub(super) struct InstantDisk<'a> {
    pub(super) number: usize,
    pub(super) device: std::sync::Arc<dyn ReadAt>,
    pub(super) log: &'a dyn ChangeLog,
    pub(super) copied: &'a Copied<'a>,
    /// What could not be read at the instant.
    pub(super) bad: &'a [(usize, Extent)],
    pub(super) draft: DiskView<'a>,
    pub(super) noted: &'a Noted,
}

impl Noted {
    fn add(&self, disk: usize, extent: Extent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(disk).or_default().insert(extent);
    }

    /// Of one disk.
    pub(super) fn of(&self, disk: usize) -> ExtentSet {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&disk).cloned().unwrap_or_default()
    }
}

impl InstantDisk<'_> {
    /// Reads what the disk still has; says whether that is as of the instant.
    fn read_device(&self, extent: Extent, buf: &mut [u8]) -> Result<bool> {
        let read = self.device.read_exact_at(extent.start(), buf);
        if self.log.is_marked(self.number, extent) {
            return Ok(false);
        }
        read.map(|()| true)
    }

    /// A part of one block that was written since.
    fn read_copies(&self, extent: Extent, buf: &mut [u8]) -> Result<()> {
        let start = extent.start().align_down(MARK_BYTES);
        if self.bad.iter().any(|(disk, bad)| *disk == self.number && bad.overlaps(extent)) {
            return Err(unreadable(extent));
        }
        if let Some(block) = self.copied.get(&(self.number, start)) {
            let from = extent.start().saturating_since(start).to_usize().unwrap_or(usize::MAX);
            let part = block.get(from..).and_then(|rest| rest.get(..buf.len()));
            buf.copy_from_slice(part.ok_or_else(|| Error::corrupt("a copied block that is too short"))?);
            return Ok(());
        }
        for (part, status) in self.draft.extents(extent).map_err(of_share)? {
            match status {
                Status::Unreadable => return Err(unreadable(part)),
                Status::Unused => self.noted.add(self.number, part),
                Status::Data | Status::Zero => {}
            }
        }
        self.draft.read_exact_at(extent.start(), buf).map_err(of_share)
    }
}

fn unreadable(part: Extent) -> Error {
    Error::new(ErrorKind::Io, format!("{part} could not be read and was written since"))
}

/// An error of the share must not pass for a bad sector.
fn of_share(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Io => Error::with_source(ErrorKind::Lost, "reading back what this capture wrote", error),
        _ => error.within("reading back what this capture wrote"),
    }
}

impl ReadAt for InstantDisk<'_> {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let asked = self.geometry().check(offset, ByteLen::of(buf))?;
        if let Ok(true) = self.read_device(asked, buf) {
            return Ok(());
        }
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let end = at.align_down(MARK_BYTES).saturating_add(MARK_BYTES).min(asked.end());
            let part = Extent::between(at, end);
            let (now, later) = rest.split_at_mut(part.len().to_usize().unwrap_or(0).min(rest.len()));
            if !self.read_device(part, now)? {
                self.read_copies(part, now)?;
            }
            (at, rest) = (end, later);
        }
        Ok(())
    }
}
