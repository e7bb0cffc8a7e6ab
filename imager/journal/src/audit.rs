//! The proof that a tracker saw everything.
//!
//! The proof is a sum. The kernel counts the sectors of every write and discard that is completed (`/sys/block/X/stat`),
//! and so does the program, so that whenever nothing happens between, the two differ by what they differed by when the
//! program was started. The program counts first; so it may be ahead by what is being completed just now, and is never
//! behind unless it missed something. Then what was issued may still make up the sum.

use crate::disk::Sectors;
use crate::tracker::{Tracker, Word, slept};
use imager_units::{Error, ErrorKind, Result};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// So often nothing must be under way, and so long lies between two looks.
const DRAINED_LOOKS: u32 = 5;
const DRAIN_PAUSE: Duration = Duration::from_millis(3);
/// So often nothing was written between two looks, and still the kernel had not counted what the program had.
const QUIET_TRIES: u32 = 300;
/// How often the difference of the sums is taken before it is believed.
const BASE_SAMPLES: u32 = 200;

/// Whether the kernel and the program counted the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audit {
    /// They did.
    Equal,
    /// Nothing is known: more was written all the time.
    Busy,
    /// By so much the kernel counted more.
    Short(Sectors),
    /// The kernel counted less, as it does while its statistics are off.
    Over,
}

impl std::fmt::Display for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Equal => f.write_str("every write was seen"),
            Self::Busy => f.write_str("it was written without a pause in which to check"),
            Self::Short(by) => write!(
                f,
                "the kernel counts {} sectors written and {} discarded more",
                by.written, by.discarded
            ),
            Self::Over => f.write_str("the kernel did not count all; were its statistics off for a while?"),
        }
    }
}

/// How often the sums are compared until they stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    tries: u32,
    pause: Duration,
    /// How often it is looked whether anything is under way, where something went unseen.
    drains: u32,
}

impl Patience {
    /// While nothing waits: most of a second.
    pub(crate) const LONG: Self = Self { tries: 2000, pause: Duration::from_micros(300), drains: 200 };
    /// While the machine is frozen.
    pub(crate) const SHORT: Self = Self { tries: 300, pause: Duration::ZERO, drains: 10 };
}

impl Tracker {
    /// Compares the sums. Takes no memory.
    pub(crate) fn audit(&self, patience: Patience) -> Result<Audit> {
        let mut quiet = (Sectors::default(), 0_u32);
        for _ in 0..patience.tries {
            let before = self.counted();
            let kernel = self.gauges.sectors()?;
            let after = self.counted();
            if before == after && kernel == before {
                self.raise_issued(kernel);
                return Ok(Audit::Equal);
            }
            let short = Sectors {
                written: kernel.written.saturating_sub(after.written),
                discarded: kernel.discarded.saturating_sub(after.discarded),
            };
            if short != Sectors::default() {
                return Ok(Audit::Short(short));
            }
            quiet = if quiet.0 == after { (after, quiet.1 + 1) } else { (after, 0) };
            if quiet.1 > QUIET_TRIES {
                return Ok(Audit::Over);
            }
            if !patience.pause.is_zero() {
                std::thread::sleep(patience.pause);
            }
        }
        Ok(Audit::Busy)
    }

    /// Whether nothing is under way, by what was issued and by the kernel's own count.
    pub(crate) fn is_drained(&self) -> Result<bool> {
        // In this order: whatever is issued later makes them differ.
        let kernel = self.gauges.sectors()?;
        Ok(self.gauges.in_flight()? == 0 && self.issued() == kernel)
    }

    /// Whether every write whose completion went unseen was seen, and marked, when it was issued. Some milliseconds
    /// pass, so that no write under way makes up for one that was never seen.
    pub(crate) fn issues_were_seen(&self, patience: Patience) -> Result<bool> {
        let mut seen = 0;
        for _ in 0..patience.drains {
            seen += u32::from(self.is_drained()?);
            if seen == DRAINED_LOOKS {
                return Ok(true);
            }
            std::thread::sleep(DRAIN_PAUSE);
        }
        Ok(false)
    }

    /// Counts what went unseen, if nothing is under way.
    pub(crate) fn absorb(&self) -> Result<bool> {
        let (before, kernel) = (self.counted(), self.gauges.sectors()?);
        let is_still = self.is_drained()? && self.counted() == before && self.gauges.sectors()? == kernel;
        if is_still {
            let add = |word, more: u64| self.word(word).fetch_add(more, SeqCst);
            add(Word::WrittenBase, kernel.written.wrapping_sub(before.written));
            add(Word::DiscardedBase, kernel.discarded.wrapping_sub(before.discarded));
        }
        Ok(is_still)
    }

    /// What the kernel should have counted when all that was issued is completed.
    fn issued(&self) -> Sectors {
        let sum = |counted, base| self.word(counted).load(SeqCst).wrapping_add(self.word(base).load(SeqCst));
        Sectors {
            written: sum(Word::IssuedWrittenSectors, Word::IssuedWrittenBase),
            discarded: sum(Word::IssuedDiscardedSectors, Word::IssuedDiscardedBase),
        }
    }

    /// What is under way makes the difference smaller; so the largest there ever was is the true one.
    fn raise_issued(&self, kernel: Sectors) {
        let raise = |counted, base, kernel: u64| {
            let difference = kernel.saturating_sub(self.word(counted).load(SeqCst));
            self.word(base).fetch_max(difference, SeqCst);
        };
        raise(Word::IssuedWrittenSectors, Word::IssuedWrittenBase, kernel.written);
        raise(Word::IssuedDiscardedSectors, Word::IssuedDiscardedBase, kernel.discarded);
    }

    /// What the kernel should have counted.
    fn counted(&self) -> Sectors {
        let sum = |counted, base| self.word(counted).load(SeqCst).wrapping_add(self.word(base).load(SeqCst));
        Sectors {
            written: sum(Word::WrittenSectors, Word::WrittenBase),
            discarded: sum(Word::DiscardedSectors, Word::DiscardedBase),
        }
    }

    /// Begins the proof anew, from what both count now; and the era.
    pub(crate) fn rebase(&self) -> Result<()> {
        self.word(Word::Era).fetch_add(1, SeqCst);
        self.word(Word::Noted).store(self.trouble()?.total(), SeqCst);
        self.word(Word::Slept).store(slept()?, SeqCst);
        for base in
            [Word::WrittenBase, Word::DiscardedBase, Word::IssuedWrittenBase, Word::IssuedDiscardedBase]
        {
            self.word(base).store(0, SeqCst);
        }
        // What is being completed was counted here and not there yet, which makes the difference smaller, never larger.
        let mut base: Option<(u64, u64)> = None;
        for _ in 0..BASE_SAMPLES {
            let before = self.counted();
            let kernel = self.gauges.sectors()?;
            self.raise_issued(kernel);
            if self.counted() == before {
                let written = kernel.written.saturating_sub(before.written);
                let discarded = kernel.discarded.saturating_sub(before.discarded);
                let (most_written, most_discarded) = base.unwrap_or_default();
                base = Some((written.max(most_written), discarded.max(most_discarded)));
            }
            std::thread::sleep(Duration::from_micros(30));
        }
        let (written, discarded) = base.ok_or_else(|| {
            Error::new(ErrorKind::Io, format!("disk {} is written without a pause", self.disk.name()))
        })?;
        self.word(Word::WrittenBase).store(written, SeqCst);
        self.word(Word::DiscardedBase).store(discarded, SeqCst);
        Ok(())
    }
}
