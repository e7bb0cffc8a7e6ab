//! Epochs and cursors as files: what happened to a disk in some epochs, or that a capture holds what was there after one.
//!
//! Little-endian: magic (8), boot id (16), then words of 8: device number (major << 32 | minor), disk sequence, size in
//! bytes, era, first epoch, last epoch, number of runs written, number of runs discarded; then the runs (start, length in
//! bytes), written first; then a BLAKE3 digest (32) of all before. A cursor is one without runs. They are of use until
//! the next start of the machine, to the same version: what does not parse is as good as absent, and absence is noticed.

use crate::about::About;
use crate::log::Marks;
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};

/// The first bytes of BLAKE3("Halfhour journal record 1").
const MAGIC: [u8; 8] = [147, 128, 237, 42, 91, 101, 128, 92];
const DIGEST: usize = 32;

/// What ties a record to the memory that the marks are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The start of the machine.
    boot: [u8; 16],
    device: u64,
    sequence: u64,
    size: u64,
    /// The period in which nothing was missed.
    era: u64,
}

impl Origin {
    /// Of a disk under a tracker.
    pub(crate) fn new(boot: [u8; 16], about: &About, era: u64) -> Self {
        let (major, minor) = about.number();
        let device = u64::from(major) << 32 | u64::from(minor);
        Self { boot, device, sequence: about.sequence, size: about.size.get(), era }
    }

    #[cfg(test)]
    pub(crate) const fn for_tests(era: u64) -> Self {
        Self { boot: [7; 16], device: 8 << 32, sequence: 3, size: 1 << 30, era }
    }

    /// Whether both are of the same disk in the same start of the machine.
    pub(crate) fn is_same_disk(&self, other: &Self) -> bool {
        Self { era: 0, ..*self } == Self { era: 0, ..*other }
    }
}

/// What happened in the epochs `first..=last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) origin: Origin,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) marks: Marks,
}

impl Record {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self { origin, first, last, marks } = self;
        let sets = [&marks.written, &marks.discarded];
        let count = |set: &ExtentSet| u64::try_from(set.count()).unwrap_or(u64::MAX);
        let head = [
            origin.device,
            origin.sequence,
            origin.size,
            origin.era,
            *first,
            *last,
            count(sets[0]),
            count(sets[1]),
        ];
        let mut bytes = [&MAGIC[..], &origin.boot].concat();
        let runs =
            sets.iter().flat_map(|set| set.iter()).flat_map(|run| [run.start().get(), run.len().get()]);
        bytes.extend(head.into_iter().chain(runs).flat_map(u64::to_le_bytes));
        let digest = blake3::hash(&bytes);
        bytes.extend(digest.as_bytes());
        bytes
    }

    /// What was written whole; `None` for anything else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if blake3::hash(body).as_bytes() != digest {
            return None;
        }
        let boot = body.strip_prefix(&MAGIC)?.first_chunk::<16>()?;
        let (words, rest) = body.get(MAGIC.len() + boot.len()..)?.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next();
        let (device, sequence, size, era) = (word()?, word()?, word()?, word()?);
        let origin = Origin { boot: *boot, device, sequence, size, era };
        let (first, last, written, discarded) = (word()?, word()?, word()?, word()?);
        let mut run = || Extent::new(ByteOffset::new(word()?), ByteLen::new(word()?));
        let written = (0..written).map(|_| run()).collect::<Option<ExtentSet>>()?;
        let discarded = (0..discarded).map(|_| run()).collect::<Option<ExtentSet>>()?;
        let is_whole = word().is_none() && rest.is_empty() && first <= last;
        is_whole.then_some(Self { origin, first, last, marks: Marks { written, discarded } })
    }

    /// Both in one.
    pub(crate) fn join(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.marks.written = self.marks.written.union(&other.marks.written);
        self.marks.discarded = self.marks.discarded.union(&other.marks.discarded);
    }
}

/// Of records in the order of their first epochs: all changes of the epochs `after + 1..=now`, or the first of these that
/// was not recorded. More than asked for may be in it, never less.
pub(crate) fn changes(records: &[Record], after: u64, now: u64) -> Result<Marks, u64> {
    let mut marks = Marks::default();
    let mut next = after.saturating_add(1);
    for record in records.iter().filter(|record| record.last > after) {
        if record.first > next {
            break;
        }
        marks.written = marks.written.union(&record.marks.written);
        marks.discarded = marks.discarded.union(&record.marks.discarded);
        next = next.max(record.last.saturating_add(1));
    }
    if next > now { Ok(marks) } else { Err(next) }
}

#[cfg(test)]
mod tests;
