//! The running tracker of one disk: its marks, and the proof that they are all.
//!
//! The proof is a sum. The kernel counts the sectors of every write and discard that is completed (`/sys/block/X/stat`),
//! and so does the program, so that whenever nothing happens between, the two differ by what they differed by when the
//! program was started. The program counts first; so it may be ahead by what is being completed just now, and is never
//! behind unless it missed something.

use crate::about::About;
use crate::disk::{Disk, Gauges, Sectors};
use crate::program::{Ends, Pins};
use crate::support;
use crate::sys::{self, SharedWords};
use imager_units::{ByteLen, Context, Error, ErrorKind, Extent, Result};
use nix::time::{ClockId, clock_gettime};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// The words of `struct state` of `journal.bpf.c`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    WrittenSectors,
    DiscardedSectors,
    PassedThrough,
    Failed,
    Beyond,
    Overflowed,
    /// Epochs that were ended.
    Epoch,
    /// Rises whenever all that was recorded before becomes worthless.
    Era,
    /// Trouble that was taken note of.
    Noted,
    /// What the kernel had counted when the program had counted nothing.
    WrittenBase,
    DiscardedBase,
    /// For how long the machine had been suspended, in seconds.
    Slept,
    IssuedWrittenSectors,
    IssuedDiscardedSectors,
    IssuedWrittenBase,
    IssuedDiscardedBase,
    /// The last epoch at whose end nothing was under way.
    Drained,
}

/// So often nothing must be under way, and so long lies between two looks.
const DRAINED_LOOKS: u32 = 5;
const DRAIN_PAUSE: Duration = Duration::from_millis(3);
/// So often nothing was written between two looks, and still the kernel had not counted what the program had.
const QUIET_TRIES: u32 = 300;
/// How often the difference of the sums is taken before it is believed.
const BASE_SAMPLES: u32 = 200;

const STATE_WORDS: NonZeroUsize = NonZeroUsize::new(17).expect("some");

/// Which marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Written,
    Discarded,
}

/// What may have kept a write from being marked, counted since the tracker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Commands that went past the kernel's block layer (`SG_IO`, NVMe's own).
    pub passed_through: u64,
    /// Writes that failed, and may land late.
    pub failed: u64,
    /// Writes behind the end that the disk had at first.
    pub beyond: u64,
    /// Writes of more ranges than could be marked.
    pub overflowed: u64,
    /// Requests that were issued unseen, because the processor was in the program already. Where the other end of a write
    /// goes unseen, the sums tell.
    pub missed: u64,
}

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

pub(crate) struct Tracker {
    disk: Disk,
    gauges: Gauges,
    about: About,
    written: SharedWords,
    discarded: SharedWords,
    state: SharedWords,
    programs: [OwnedFd; 2],
}

impl Tracker {
    /// Starts one; `None` when one is running already.
    pub(crate) fn start(disk: &Disk, ends: Ends) -> Result<Option<Self>> {
        support::check(disk)?;
        if Self::open(disk)?.is_some_and(|running| running.is_of_this_size().unwrap_or(false)) {
            return Ok(None);
        }
        let say = || format!("starting the journal of {}", disk.name());
        let about = About::of(disk, &disk.gauges()?, ends)?;
        Pins::of(disk.name()).load(&about).context(say)?;
        let tracker = Self::open(disk)?;
        let tracker = tracker.ok_or_else(|| Error::corrupt(format!("disk {} was exchanged", disk.name())))?;
        // No era of this start of the machine was ever called so.
        let now = clock(ClockId::CLOCK_BOOTTIME).context(say)?;
        tracker.word(Word::Era).store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), SeqCst);
        tracker.rebase().context(say)?;
        Ok(Some(tracker))
    }

    /// The running one; `None` when there is none of just this disk.
    pub(crate) fn open(disk: &Disk) -> Result<Option<Self>> {
        let pins = Pins::of(disk.name());
        if !pins.exist() {
            return Ok(None);
        }
        let gauges = disk.gauges()?;
        let now = About::of(disk, &gauges, Ends::Both)?;
        let Some(about) = pins.about()?.filter(|about| about.is_same_disk(&now)) else { return Ok(None) };
        let map = |name: &str, words: usize| {
            let words = NonZeroUsize::new(words).unwrap_or(NonZeroUsize::MIN);
            SharedWords::map(pins.map(name)?.as_fd(), words)
                .map_err(|errno| Error::io(format!("mapping {name} of {}", disk.name()), errno.into()))
        };
        Ok(Some(Self {
            written: map("written", about.levels.words())?,
            discarded: map("discarded", about.levels.words())?,
            state: map("state", STATE_WORDS.get())?,
            programs: pins.programs()?,
            disk: disk.clone(),
            gauges,
            about,
        }))
    }

    /// The disk.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Which disk it was started for.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// A word of its state.
    pub(crate) fn word(&self, word: Word) -> &AtomicU64 {
        static NONE: AtomicU64 = AtomicU64::new(0);
        self.state.get().get(word as usize).unwrap_or(&NONE)
    }

    fn marks(&self, which: Which) -> &[AtomicU64] {
        match which {
            Which::Written => self.written.get(),
            Which::Discarded => self.discarded.get(),
        }
    }

    /// Takes marks, until `each` has had enough.
    pub(crate) fn sweep(&self, which: Which, each: &mut dyn FnMut(Extent) -> bool) {
        self.about.levels.sweep(self.marks(which), each);
    }

    /// Whether a byte of `extent` is marked as written or discarded.
    pub(crate) fn is_marked(&self, extent: Extent) -> bool {
        [Which::Written, Which::Discarded]
            .iter()
            .any(|&which| self.about.levels.is_marked(self.marks(which), extent))
    }

    /// How much is marked now, about.
    pub(crate) fn marked(&self, which: Which) -> ByteLen {
        self.about.levels.marked(self.marks(which))
    }

    /// What happened since it was started.
    pub(crate) fn trouble(&self) -> Result<Trouble> {
        let word = |word| self.word(word).load(SeqCst);
        Ok(Trouble {
            passed_through: word(Word::PassedThrough),
            failed: word(Word::Failed),
            beyond: word(Word::Beyond),
            overflowed: word(Word::Overflowed),
            missed: info(&self.programs[0])?.misses,
        })
    }

    /// What it cost: for each end of a write how often the program ran, and for how many nanoseconds.
    pub(crate) fn cost(&self) -> Result<[(u64, u64); 2]> {
        let [issued, completed] = [info(&self.programs[0])?, info(&self.programs[1])?];
        Ok([(issued.runs, issued.time), (completed.runs, completed.time)])
    }

    /// Whether the disk is as large as when it was started.
    pub(crate) fn is_of_this_size(&self) -> Result<bool> {
        Ok(self.gauges.size()? == self.about.size && self.gauges.sequence()? == self.about.sequence)
    }

    /// Whether the machine was suspended since: somebody else may have written to its disks.
    pub(crate) fn has_slept(&self) -> Result<bool> {
        Ok(slept()?.abs_diff(self.word(Word::Slept).load(SeqCst)) > 1)
    }

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

    /// Marks blocks again.
    pub(crate) fn mark_again(&self, which: Which, blocks: &[u64]) {
        for (word, &bits) in self.marks(which).iter().zip(blocks).filter(|(_, bits)| **bits != 0) {
            word.fetch_or(bits, SeqCst);
        }
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

fn clock(id: ClockId) -> Result<Duration> {
    let now = clock_gettime(id).map_err(std::io::Error::from);
    now.map(Duration::from).context(|| "reading the clock".to_owned())
}

/// For how many seconds the machine has been suspended: one clock goes on meanwhile, the other does not.
fn slept() -> Result<u64> {
    let awake = clock(ClockId::CLOCK_MONOTONIC)?;
    Ok(clock(ClockId::CLOCK_BOOTTIME)?.saturating_sub(awake).as_secs())
}

fn info(program: &OwnedFd) -> Result<sys::ProgramInfo> {
    let info = sys::program_info(program.as_fd()).map_err(std::io::Error::from);
    info.context(|| "asking for what the kernel knows of a program".to_owned())
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            (self.passed_through, "commands past the block layer"),
            (self.failed, "failed writes"),
            (self.beyond, "writes beyond the end"),
            (self.overflowed, "discards of too many ranges"),
            (self.missed, "writes unseen"),
        ];
        let told: Vec<_> = all
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{what}: {count}"))
            .collect();
        f.write_str(&told.join(", "))
    }
}

impl Trouble {
    /// All of it.
    pub fn total(self) -> u64 {
        [self.passed_through, self.failed, self.beyond, self.overflowed, self.missed].iter().sum()
    }
}
