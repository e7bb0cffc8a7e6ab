//! One disk of the open journal: what its tracker marked becomes records, and what is in doubt is said.

use crate::audit::{Audit, Patience};
use crate::bits::Bitmap;
use crate::disk::Disk;
use crate::folder::{Folder, Lock};
use crate::log::Marks;
use crate::record::{Origin, Record, changes};
use crate::tracker::{Tracker, Which, Word};
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
    /// What was taken while frozen and has no record yet, and in which epochs.
    taken: Bitmap,
    unrecorded: Option<(u64, u64)>,
    /// What was taken since nothing was under way: it may have been read before it landed.
    suspects: [Bitmap; 2],
}

impl Followed {
    /// Opens the journal of a disk, which nobody else may have open.
    pub(crate) fn open(disk: &Disk) -> Result<Self> {
        let folder = Folder::of(disk.name());
        let lock = folder.lock()?;
        let tracker = Tracker::open(disk)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the journal is not running for {}", disk.name()))
        })?;
        let bitmap = || Bitmap::of(tracker.about().levels);
        let (taken, suspects) = (bitmap(), [bitmap(), bitmap()]);
        let boot = boot_id()?;
        let mut followed = Self { tracker, folder, _lock: lock, boot, taken, unrecorded: None, suspects };
        followed.suspect_again()?;
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
    pub(crate) fn take(&mut self) -> Marks {
        let Self { tracker, suspects: [written, discarded], .. } = self;
        let take = |which, suspects: &mut Bitmap| {
            let mut set = ExtentSet::new();
            tracker.sweep(which, &mut |extent| {
                set.insert(extent);
                suspects.insert(extent);
                true
            });
            set.coarsen(RUNS_MAX)
        };
        Marks { written: take(Which::Written, written), discarded: take(Which::Discarded, discarded) }
    }

    /// Suspects what another process took before.
    fn suspect_again(&mut self) -> Result<()> {
        let drained = self.tracker.word(Word::Drained).load(SeqCst);
        let now = self.tracker.word(Word::Epoch).load(SeqCst);
        let known = changes(&self.folder.epochs(&self.origin())?, drained, now);
        let [written, discarded] = &mut self.suspects;
        match known {
            Ok(marks) => {
                marks.written.iter().for_each(|run| written.insert(run));
                marks.discarded.iter().for_each(|run| discarded.insert(run));
            }
            Err(_) => written.fill(),
        }
        Ok(())
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
        let Self { tracker, taken, suspects: [written, _], .. } = self;
        tracker.sweep(Which::Written, &mut |extent| {
            taken.insert(extent);
            written.insert(extent);
            each(extent)
        });
    }

    /// What was taken so.
    fn taken(&self) -> Option<Record> {
        let (first, last) = self.unrecorded?;
        let mut written = ExtentSet::new();
        self.tracker.about().levels.each_run(self.taken.words(), &mut |extent| written.insert(extent));
        let marks = Marks { written: written.coarsen(RUNS_MAX), discarded: ExtentSet::new() };
        Some(Record { origin: self.origin(), first, last, marks })
    }

    /// Records it.
    pub(crate) fn record_taken(&mut self) -> Result<()> {
        if let Some(record) = self.taken() {
            self.folder.put_epoch(&record)?;
            self.unrecorded = None;
            self.taken.clear();
        }
        Ok(())
    }

    /// Why a write may have been missed. One whose completion alone went unseen is not: it was marked when it was issued,
    /// but what was taken meanwhile may have been read before it landed, and is marked again.
    pub(crate) fn reconcile(&self, patience: Patience) -> Result<Option<String>> {
        match finding(&self.tracker, patience)? {
            Finding::Well => Ok(None),
            Finding::Doubt(why) => Ok(Some(why)),
            Finding::Unseen => {
                let [written, discarded] = &self.suspects;
                self.tracker.mark_again(Which::Written, written.words());
                self.tracker.mark_again(Which::Discarded, discarded.words());
                let is_counted = self.tracker.absorb()?;
                Ok((!is_counted).then(|| format!("{}: completions went unseen", self.name())))
            }
        }
    }

    /// At the end of an epoch: what was taken has landed where nothing is under way.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.tracker.is_drained()? {
            self.suspects.iter_mut().for_each(Bitmap::clear);
            let epoch = self.tracker.word(Word::Epoch).load(SeqCst);
            self.tracker.word(Word::Drained).store(epoch, SeqCst);
        }
        Ok(())
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
            return Ok(Err(format!("{}, its size or the start of the machine is another", self.name())));
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

/// What a look at a tracker came to.
pub(crate) enum Finding {
    /// Nothing was missed.
    Well,
    /// Completions went unseen of writes that were seen when they were issued.
    Unseen,
    /// A write may have been missed, for this reason.
    Doubt(String),
}

/// Whether a tracker saw everything.
pub(crate) fn finding(tracker: &Tracker, patience: Patience) -> Result<Finding> {
    let why = match doubt(tracker) {
        Ok(None) => match tracker.audit(patience) {
            Ok(Audit::Equal) => return Ok(Finding::Well),
            Ok(Audit::Short(_)) if tracker.issues_were_seen(patience)? => return Ok(Finding::Unseen),
            Ok(audit) => format!("{}: {audit}", tracker.disk().name()),
            Err(error) => format!("{}: {error}", tracker.disk().name()),
        },
        Ok(Some(why)) => why,
        Err(error) => return Err(error),
    };
    Ok(Finding::Doubt(why))
}

/// What is wrong before anything is counted.
fn doubt(tracker: &Tracker) -> Result<Option<String>> {
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
    Ok(None)
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
