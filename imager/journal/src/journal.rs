//! The real [`ChangeLog`]: trackers in the kernel, records in `/run`.
//!
//! An epoch ends by a count in the memory that the marks are in, before the first mark is taken. A record of it follows
//! when all are taken. So whoever dies between leaves an epoch without a record, which is noticed and never guessed at.

use crate::audit::Patience;
use crate::disk::Disk;
use crate::folder::{Cursor, Folder};
use crate::followed::Followed;
use crate::log::{ChangeLog, Epoch, Marks, Since};
use crate::program::{Ends, Pins};
use crate::record::{Origin, Record};
use crate::tracker::{Tracker, Word};
use imager_units::{Error, ErrorKind, Extent, Result};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;

/// Epochs that can be ended while frozen without taking memory.
const FROZEN_EPOCHS: usize = 1024;

/// The journal of some disks, in use by this process alone.
pub struct Journal {
    disks: Vec<Followed>,
    /// For each epoch, from 1: what it is to each disk.
    ended: Vec<(u64, Origin)>,
}

impl Journal {
    /// Opens the journal of these disks, in this order.
    ///
    /// # Errors
    /// `NotFound` when it is not running for one of them; `Denied` when another process uses it; `Io`.
    pub fn open(disks: &[Disk]) -> Result<Self> {
        let disks = disks.iter().map(Followed::open).collect::<Result<Vec<_>>>()?;
        let mut journal = Self { disks, ended: Vec::new() };
        journal.ended.reserve(FROZEN_EPOCHS.saturating_mul(journal.disks.len()));
        Ok(journal)
    }

    /// Starts to follow a disk; false when it was followed already.
    ///
    /// # Errors
    /// `Unsupported` or `Denied` with what is in the way; `Io`.
    pub fn start(disk: &Disk) -> Result<bool> {
        Self::start_at(disk, Ends::Both)
    }

    /// The same with marks that are not enough, to show that they are not.
    #[doc(hidden)]
    pub fn start_at(disk: &Disk, ends: Ends) -> Result<bool> {
        let folder = Folder::of(disk.name());
        let _lock = folder.lock()?;
        match Tracker::start(disk, ends)? {
            None => Ok(false),
            Some(_) => folder.clear().map(|()| true),
        }
    }

    /// Ceases to follow the disk of this name, which need not be there any more; false when it was not followed.
    ///
    /// # Errors
    /// `Denied` when a process uses its journal; `Io`.
    pub fn stop(name: &str) -> Result<bool> {
        let (pins, folder) = (Pins::of(name), Folder::of(name));
        let _lock = folder.lock()?;
        let was_running = pins.exist();
        pins.remove()?;
        folder.clear()?;
        Ok(was_running)
    }

    /// The names of all disks that are followed, or were when they were last seen.
    ///
    /// # Errors
    /// `Io`.
    pub fn names() -> Result<Vec<String>> {
        Pins::names()
    }

    /// Ends the epoch of all disks.
    fn end_epoch(&mut self) -> Epoch {
        for disk in &self.disks {
            let number = disk.tracker.word(Word::Epoch).fetch_add(1, SeqCst).saturating_add(1);
            self.ended.push((number, disk.origin()));
        }
        self.last()
    }

    fn last(&self) -> Epoch {
        let count = self.ended.len().checked_div(self.disks.len()).unwrap_or(0);
        Epoch(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// What an epoch is to each disk.
    fn epoch(&self, epoch: Epoch) -> Option<&[(u64, Origin)]> {
        let at = usize::try_from(epoch.0.checked_sub(1)?).ok()?.checked_mul(self.disks.len())?;
        self.ended.get(at..at.checked_add(self.disks.len())?)
    }

    /// Makes sure that nothing was missed up to now; otherwise everything begins anew.
    fn prove(&mut self) -> Result<()> {
        let mut doubts = Vec::new();
        for disk in &self.disks {
            if let Some(doubt) = disk.reconcile(Patience::LONG)? {
                disk.taint(&doubt)?;
                doubts.push(doubt);
            }
        }
        match doubts.is_empty() {
            true => Ok(()),
            false => {
                Err(Error::corrupt(format!("the journal may have missed writes: {}", doubts.join("; "))))
            }
        }
    }
}

impl Journal {
    /// The same while frozen: that it is in doubt is kept in memory.
    fn prove_frozen(&self) -> Result<()> {
        for disk in &self.disks {
            if let Some(doubt) = disk.reconcile(Patience::SHORT)? {
                disk.tracker.word(Word::Era).fetch_add(1, SeqCst);
                return Err(Error::corrupt(format!("the journal may have missed writes: {doubt}")));
            }
        }
        Ok(())
    }
}

impl ChangeLog for Journal {
    fn harvest(&mut self) -> Result<Vec<Marks>> {
        for disk in &mut self.disks {
            disk.record_taken()?;
        }
        self.ended.reserve(FROZEN_EPOCHS.saturating_mul(self.disks.len()));
        self.end_epoch();
        let all: Vec<Marks> = self.disks.iter_mut().map(Followed::take).collect();
        self.prove()?;
        self.disks.iter_mut().try_for_each(Followed::settle)?;
        for ((disk, marks), (number, origin)) in
            self.disks.iter().zip(&all).zip(self.epoch(self.last()).unwrap_or_default())
        {
            let (first, last) = (*number, *number);
            disk.folder.put_epoch(&Record { origin: *origin, first, last, marks: marks.clone() })?;
        }
        Ok(all)
    }

    fn harvest_frozen(&mut self, each: &mut dyn FnMut(usize, Extent) -> bool) -> Result<Epoch> {
        // Before, so that what may have been read too early is taken once more; and after, for what happened meanwhile.
        self.prove_frozen()?;
        let epoch = self.end_epoch();
        let mut wants_more = true;
        for (number, disk) in self.disks.iter_mut().enumerate() {
            disk.open_epoch();
            if wants_more {
                disk.take_written(&mut |extent| {
                    wants_more = each(number, extent);
                    wants_more
                });
            }
        }
        self.prove_frozen()?;
        self.disks.iter_mut().try_for_each(Followed::settle)?;
        Ok(epoch)
    }

    fn since(&self, base: &str) -> Result<Since> {
        let mut all = Vec::new();
        for disk in &self.disks {
            match disk.since(base)? {
                Ok(marks) => all.push(marks),
                Err(why) => return Ok(Since::Unknown(why)),
            }
        }
        Ok(Since::Known(all))
    }

    fn is_marked(&self, disk: usize, extent: Extent) -> bool {
        self.disks.get(disk).is_none_or(|disk| disk.tracker.is_marked(extent))
    }

    fn commit(&mut self, capture: &str, epoch: Epoch, keep: &[String]) -> Result<()> {
        for disk in &mut self.disks {
            disk.record_taken()?;
        }
        let no_epoch = || Error::new(ErrorKind::Invalid, format!("no epoch {} ended", epoch.0));
        let at = self.epoch(epoch).ok_or_else(no_epoch)?;
        let captures: BTreeSet<_> = keep.iter().map(String::as_str).chain([capture]).collect();
        for (disk, (epoch, origin)) in self.disks.iter().zip(at) {
            let cursor = Cursor { capture: capture.to_owned(), origin: *origin, epoch: *epoch };
            disk.folder.put_cursor(&cursor)?;
            disk.folder.keep(&captures, &disk.origin())?;
        }
        Ok(())
    }

    fn taint(&mut self, why: &str) -> Result<()> {
        self.disks.iter().try_for_each(|disk| disk.taint(why))
    }
}

impl Drop for Journal {
    /// What was taken while frozen is recorded also for a capture that failed.
    fn drop(&mut self) {
        for disk in &mut self.disks {
            drop(disk.record_taken());
        }
    }
}
