//! One disk of the open journal: what its tracker marked becomes records, and what is in doubt is said.

use crate::disk::Disk;
use crate::folder::{Folder, Lock};
use crate::log::{MARK_BYTES, Marks};
use crate::record::{Origin, Record, changes};
use crate::tracker::{Audit, Patience, Tracker, Which, Word};
use imager_units::{Context, Error, ErrorKind, Extent, ExtentSet, Result};
use std::fs;
use std::sync::atomic::Ordering::SeqCst;

/// More runs than this are joined over the smallest gaps: a superset is as good, and memory is bounded.
const RUNS_MAX: usize = 1 << 17;

/// A disk that is followed.
pub(crate) struct Followed {
    pub(crate) tracker: Tracker,
    pub(crate) folder: Folder,
    _lock: Lock,
    boot: [u8; 16],
    /// What was taken while frozen and has no record yet: a bit a block, and in which epochs.
    taken: Vec<u64>,
    unrecorded: Option<(u64, u64)>,
}

impl Followed {
    /// Opens the journal of a disk, which nobody else may have open.
    pub(crate) fn open(disk: &Disk) -> Result<Self> {
        let folder = Folder::of(disk.name());
        let lock = folder.lock()?;
        let tracker = Tracker::open(disk)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the journal is not running for {}", disk.name()))
        })?;
        let words = usize::try_from(tracker.about().levels.blocks().div_ceil(64)).unwrap_or(0);
        let boot = boot_id()?;
        let followed = Self { tracker, folder, _lock: lock, boot, taken: vec![0; words], unrecorded: None };
        followed.folder.compact(&followed.origin())?;
        Ok(followed)
    }

    /// The disk's name.
    pub(crate) fn name(&self) -> &str {
        self.tracker.disk().name()
    }

    /// What ties a record of now to the marks.
    pub(crate) fn origin(&self) -> Origin {
        Origin::new(self.boot, self.tracker.about(), self.tracker.word(Word::Era).load(SeqCst))
    }

    /// All marks.
    pub(crate) fn take(&self) -> Marks {
        let take = |which| {
            let mut set = ExtentSet::new();
            self.tracker.sweep(which, &mut |extent| {
                set.insert(extent);
                true
            });
            set.coarsen(RUNS_MAX)
        };
        Marks { written: take(Which::Written), discarded: take(Which::Discarded) }
    }
}

impl Followed {
    /// Begins what will be recorded of a frozen instant.
    pub(crate) fn open_epoch(&mut self) {
        let number = self.tracker.word(Word::Epoch).load(SeqCst);
        self.unrecorded = Some((self.unrecorded.map_or(number, |(first, _)| first), number));
    }

    /// Takes marks of writes into memory that is there.
    pub(crate) fn take_written(&mut self, each: &mut dyn FnMut(Extent) -> bool) {
        let Self { tracker, taken, .. } = self;
        tracker.sweep(Which::Written, &mut |extent| {
            for block in blocks(extent) {
                if let Some(word) = usize::try_from(block / 64).ok().and_then(|word| taken.get_mut(word)) {
                    *word |= 1 << (block % 64);
                }
            }
            each(extent)
        });
    }

    /// What was taken so.
    fn taken(&self) -> Option<Record> {
        let (first, last) = self.unrecorded?;
        let mut written = ExtentSet::new();
        self.tracker.about().levels.each_run(&self.taken, &mut |extent| written.insert(extent));
        let marks = Marks { written: written.coarsen(RUNS_MAX), discarded: ExtentSet::new() };
        Some(Record { origin: self.origin(), first, last, marks })
    }

    /// Records it.
    pub(crate) fn record_taken(&mut self) -> Result<()> {
        if let Some(record) = self.taken() {
            self.folder.put_epoch(&record)?;
            self.unrecorded = None;
            self.taken.fill(0);
        }
        Ok(())
    }

    /// Why a write may have been missed.
    pub(crate) fn doubt(&self, patience: Patience) -> Result<Option<String>> {
        doubt(&self.tracker, patience)
    }

    /// Begins anew.
    pub(crate) fn taint(&self, why: &str) -> Result<()> {
        tracing::warn!("the journal of {} begins anew: {why}", self.name());
        self.tracker.rebase()?;
        self.folder.put_trouble(why)
    }

    /// The changes since a capture, or why they are not known.
    pub(crate) fn since(&self, capture: &str) -> Result<Result<Marks, String>> {
        let origin = self.origin();
        let Some(cursor) = self.folder.cursors()?.into_iter().find(|cursor| cursor.capture == capture) else {
            return Ok(Err(format!("the journal knows nothing of capture {capture}")));
        };
        if !self.tracker.is_of_this_size()? || !cursor.origin.is_same_disk(&origin) {
            return Ok(Err("the disk, its size or the start of the machine is another".to_owned()));
        }
        if cursor.origin != origin {
            return Ok(Err(self.folder.trouble().unwrap_or_else(|| "the journal began anew".to_owned())));
        }
        let mut records = self.folder.epochs(&origin)?;
        records.extend(self.taken());
        let now = self.tracker.word(Word::Epoch).load(SeqCst);
        Ok(changes(&records, cursor.epoch, now).map_err(|epoch| {
            format!("what happened in epoch {epoch} was not recorded, because a process ended in it")
        }))
    }
}

/// Why a tracker may have missed a write.
pub(crate) fn doubt(tracker: &Tracker, patience: Patience) -> Result<Option<String>> {
    let name = tracker.disk().name();
    if !tracker.is_of_this_size().unwrap_or(false) {
        let advice = "imager journal start DISK begins anew";
        return Ok(Some(format!("{name} is not of the size that it was ({advice})")));
    }
    if tracker.has_slept()? {
        return Ok(Some(format!("{name}: the machine was suspended meanwhile")));
    }
    let trouble = tracker.trouble()?;
    if trouble.total() != tracker.word(Word::Noted).load(SeqCst) {
        return Ok(Some(format!("{name}: {trouble}")));
    }
    let audit = match tracker.audit(patience) {
        Ok(audit) => audit,
        Err(error) => return Ok(Some(format!("{name}: {error}"))),
    };
    Ok(match audit {
        Audit::Equal => None,
        Audit::Busy if patience == Patience::SHORT => None,
        Audit::Busy => Some(format!("{name} was written without a pause in which to check")),
        Audit::Over => {
            Some(format!("{name}: the kernel did not count all; were its statistics off for a while?"))
        }
        Audit::Short(by) => Some(format!(
            "{name}: the kernel counts {} sectors written and {} discarded more",
            by.written, by.discarded
        )),
    })
}

/// The numbers of the blocks of an extent.
fn blocks(extent: Extent) -> std::ops::Range<u64> {
    let unit = MARK_BYTES.get();
    extent.start().get() / unit..extent.end().get().div_ceil(unit)
}

/// Which start of the machine this is.
pub(crate) fn boot_id() -> Result<[u8; 16]> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).context(|| format!("reading {path}"))?;
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | u8::try_from(*digit).unwrap_or(0));
    }
    Ok(id)
}
