//! The running tracker of one disk: its marks, and the words that live as long as they do.

use crate::about::About;
use crate::disk::{Disk, Gauges};
use crate::program::{Ends, Pins};
use crate::support;
use crate::sys::{self, SharedWords};
use crate::trouble::Trouble;
use imager_units::{ByteLen, Context, Error, Extent, Result};
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

const STATE_WORDS: NonZeroUsize = NonZeroUsize::new(17).expect("some");

/// Which marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Written,
    Discarded,
}

/// A running tracker.
pub(crate) struct Tracker {
    pub(crate) disk: Disk,
    pub(crate) gauges: Gauges,
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

    /// Marks blocks again.
    pub(crate) fn mark_again(&self, which: Which, blocks: &[u64]) {
        for (word, &bits) in self.marks(which).iter().zip(blocks).filter(|(_, bits)| **bits != 0) {
            word.fetch_or(bits, SeqCst);
        }
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
}

fn clock(id: ClockId) -> Result<Duration> {
    let now = clock_gettime(id).map_err(std::io::Error::from);
    now.map(Duration::from).context(|| "reading the clock".to_owned())
}

/// For how many seconds the machine has been suspended: one clock goes on meanwhile, the other does not.
pub(crate) fn slept() -> Result<u64> {
    let awake = clock(ClockId::CLOCK_MONOTONIC)?;
    Ok(clock(ClockId::CLOCK_BOOTTIME)?.saturating_sub(awake).as_secs())
}

fn info(program: &OwnedFd) -> Result<sys::ProgramInfo> {
    let info = sys::program_info(program.as_fd()).map_err(std::io::Error::from);
    info.context(|| "asking for what the kernel knows of a program".to_owned())
}
