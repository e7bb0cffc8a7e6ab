//! The instant: what is marked last is copied while everything is frozen.
//!
//! The copies go into memory that was made for it. Before each freeze everything that is marked is copied there while the
//! machine runs, without a share in between, so that little is left; what then does not fit into the time is copied when
//! the machine runs again, and it is frozen once more.

mod copiers;
mod copying;

use super::machine::Live;
use super::passes::{Passes, bytes, gave_up, union};
use copiers::Copiers;
use copying::{Copying, Place};
use imager_image::manifest::Freeze;
use imager_journal::{Arena, Epoch, FrozenFor};
use imager_units::{ByteLen, Error, ErrorKind, Extent, ExtentSet, Result};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many times what is marked is copied before a freeze, at most.
const ROUNDS: usize = 6;
/// When so little was marked it is time to freeze.
const LITTLE: ByteLen = ByteLen::new(2 << 20);
/// How many runs of marks are taken down in a freeze.
const MOST_RUNS: usize = 1 << 14;
/// How many blocks may be unreadable at the instant.
const MOST_BAD: usize = 64;

/// The way to the instant, and then what was copied.
pub(super) struct Still {
    copiers: Copiers,
    /// How much the log's disks hold.
    sizes: Vec<ByteLen>,
    /// By the log's disks: what has to be copied yet.
    pending: Vec<ExtentSet>,
    /// What the frozen harvest said.
    runs: Vec<(usize, Extent)>,
    /// What could not be read.
    bad: Vec<(usize, Extent)>,
    epoch: Option<Epoch>,
    freezes: Vec<Freeze>,
    frozen: Duration,
}

impl Still {
    pub(super) fn new(live: &Live<'_>, survey: &crate::survey::Survey) -> Result<Self> {
        let device = |number: &u32| {
            let disk = survey.disks.iter().find(|disk| disk.number == *number);
            disk.map(|disk| Arc::clone(&disk.device))
                .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("disk {number} is not captured")))
        };
        let devices = live.disks.iter().map(device).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            sizes: devices.iter().map(|device| device.geometry().size).collect(),
            copiers: Copiers::new(devices)?,
            pending: vec![ExtentSet::new(); live.disks.len()],
            runs: Vec::with_capacity(MOST_RUNS),
            bad: Vec::with_capacity(MOST_BAD),
            epoch: None,
            freezes: Vec::new(),
            frozen: Duration::ZERO,
        })
    }

    /// Freezes until everything that was marked is copied: then there is nothing left to do. What a pass has to take
    /// because memory does not suffice, otherwise.
    ///
    /// # Errors
    /// `Denied` when it was tried often enough; those of the journal, the disks and the machine.
    pub(super) fn attempt(
        &mut self,
        live: &mut Live<'_>,
        passes: &mut Passes<'_>,
    ) -> Result<Option<Vec<ExtentSet>>> {
        loop {
            if self.freezes.len() >= live.limits.freezes || self.frozen >= live.limits.frozen {
                return Err(self.given_up(passes));
            }
            live.machine.sync()?;
            if let Some(behind) = self.prepare(live, passes)? {
                return Ok(Some(behind));
            }
            if self.freeze(live, passes)? {
                return Ok(None);
            }
            if self.is_unquiet(passes) {
                std::thread::sleep(live.limits.pause);
            }
        }
    }

    /// Copies what is marked while the machine runs, as long as a third of the memory is left for when it does not.
    fn prepare(&mut self, live: &mut Live<'_>, passes: &mut Passes<'_>) -> Result<Option<Vec<ExtentSet>>> {
        let mut before = u64::MAX;
        for _ in 0..ROUNDS {
            let dirty = passes.harvest(live)?;
            self.pending = union(&self.pending, &dirty);
            let all = union(&self.extents(live.arena), &self.pending);
            let room = ByteLen::new(live.arena.size().get() / 3 * 2);
            if bytes(&all) > room || !self.copy_pending(live.arena)? {
                live.arena.clear();
                self.bad.clear();
                self.take_pending();
                return Ok(Some(all));
            }
            let total = bytes(&dirty);
            let is_stuck = total.get() >= before / 5 * 4;
            if (total <= LITTLE || is_stuck) && passes.quiet_harvests() > 0 {
                break;
            }
            before = total.get();
        }
        Ok(None)
    }

    /// Copies what has to be copied yet; false when there is no room for all of it.
    fn copy_pending(&mut self, arena: &mut Arena) -> Result<bool> {
        let pending = self.take_pending();
        let runs = (0..).zip(&pending).flat_map(|(disk, set)| set.iter().map(move |run| (disk, run)));
        let runs: Vec<_> = runs.collect();
        let mut copying = Copying::new(arena, &mut self.bad, &self.sizes, &runs);
        self.copiers.run(&mut copying, None)?;
        Ok(copying.is_done())
    }

    fn take_pending(&mut self) -> Vec<ExtentSet> {
        let empty = vec![ExtentSet::new(); self.pending.len()];
        std::mem::replace(&mut self.pending, empty)
    }

    /// One freeze; says whether it was the instant.
    fn freeze(&mut self, live: &mut Live<'_>, passes: &Passes<'_>) -> Result<bool> {
        let Live { log, machine, arena, limits, .. } = live;
        let (interest, quiet) = (passes.interest(), passes.quiet());
        let mut runs = std::mem::take(&mut self.runs);
        runs.clear();
        let (mut reached, mut complete, mut is_quiet) = (Place::default(), true, true);
        let mut harvested = None;
        let frozen = machine.frozen(&mut |until| {
            let until = until.min(Instant::now() + limits.copying);
            let told = log.harvest_frozen(&mut |disk, extent| {
                let of = |sets: &[ExtentSet]| sets.get(disk).is_some_and(|set| set.overlaps(extent));
                if of(interest) {
                    is_quiet &= !of(quiet);
                    runs.push((disk, extent));
                }
                complete = runs.len() < MOST_RUNS - 1;
                complete
            });
            harvested = Some(told);
            let mut copying = Copying::new(arena, &mut self.bad, &self.sizes, &runs);
            if let Err(error) = self.copiers.run(&mut copying, Some(until)) {
                harvested = Some(Err(error));
            }
            reached = copying.place();
        });
        let late = self.copiers.settle();
        let times = match frozen {
            // Somebody let go before we were done: this was no instant, and what was marked has to be copied.
            Err(error) if error.kind() == ErrorKind::Cancelled => {
                (complete, reached) = (false, Place::default());
                FrozenFor::default()
            }
            times => times?,
        };
        let epoch = harvested.transpose()?;
        for (disk, run) in reached.rest(&runs).chain(late) {
            if let Some(pending) = self.pending.get_mut(disk) {
                pending.insert(run);
            }
        }
        let left = bytes(&self.pending);
        self.freezes.push(described(&times, left));
        self.frozen += times.freezing + times.work + times.thawing;
        self.runs = runs;
        let was_quiet = is_quiet && passes.quiet_harvests() > 0;
        let is_instant = complete && left.is_zero() && was_quiet;
        self.epoch = epoch.filter(|_| is_instant);
        Ok(self.epoch.is_some())
    }

    /// Whether the last harvests had marks where there should be none.
    fn is_unquiet(&self, passes: &Passes<'_>) -> bool {
        self.unquiet(passes).is_some() || passes.quiet_harvests() == 0
    }

    fn unquiet<'p>(&self, passes: &'p Passes<'_>) -> Option<&'p str> {
        let is =
            |(disk, run): &&(usize, Extent)| passes.quiet().get(*disk).is_some_and(|set| set.overlaps(*run));
        self.runs.iter().find(is).and_then(|(disk, run)| passes.label_at(*disk, *run))
    }

    fn given_up(&self, passes: &Passes<'_>) -> Error {
        match self.unquiet(passes) {
            Some(label) => {
                let what = format!(
                    "volume {label} cannot be frozen and did not stay the same for an instant: stop what writes to it, \
                     unmount it, or leave it out (--role {label}=ignore)"
                );
                Error::new(ErrorKind::Denied, what)
            }
            None => gave_up("freezes", self.freezes.len()),
        }
    }

    /// What was copied, by the log's disks.
    pub(super) fn extents(&self, arena: &Arena) -> Vec<ExtentSet> {
        let mut found: Vec<Vec<Extent>> = vec![Vec::new(); self.sizes.len()];
        let bad = self.bad.iter().copied();
        for (disk, extent) in arena.kept().map(|(disk, extent, _)| (disk, extent)).chain(bad) {
            if let Some(found) = found.get_mut(disk) {
                found.push(extent);
            }
        }
        let sorted = |mut extents: Vec<Extent>| {
            extents.sort_unstable();
            extents.into_iter().collect()
        };
        found.into_iter().map(sorted).collect()
    }

    /// What could not be read, by the log's disks.
    pub(super) fn bad(&self) -> &[(usize, Extent)] {
        &self.bad
    }

    /// The epoch whose end was the instant.
    pub(super) fn epoch(&self) -> Result<Epoch> {
        self.epoch.ok_or_else(|| Error::new(ErrorKind::Invalid, "there was no instant"))
    }

    /// How each freeze went.
    pub(super) fn freezes(&self) -> &[Freeze] {
        &self.freezes
    }

    /// How long everything was frozen, all times together.
    pub(super) fn frozen_ms(&self) -> u64 {
        u64::try_from(self.frozen.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The copies by where they belong.
pub(super) fn by_place(arena: &Arena) -> super::instant::Copied<'_> {
    arena.kept().map(|(disk, extent, bytes)| ((disk, extent.start()), bytes)).collect::<HashMap<_, _>>()
}

/// A freeze for the report.
pub(super) fn described(times: &FrozenFor, left: ByteLen) -> Freeze {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    Freeze {
        freezing_ms: ms(times.freezing),
        held_ms: ms(times.work),
        thawing_ms: ms(times.thawing),
        left_bytes: left.get(),
    }
}
