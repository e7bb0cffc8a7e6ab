//! A machine that runs, in memory: a FAT volume whose filesystem keeps its table in memory, as those that can be frozen
//! do, writes that are under way for a while, and a journal. Something happens at every step of a capture.

#![allow(dead_code, reason = "each test takes what it needs, and none takes all")]

use crate::common::fat::{FatVolume, Layout};
use crate::common::random::Random;
use crate::common::{difference, extent, options, restore};
use imager::capture::hot::{self, Held, Limits, Live, Running};
use imager::monitor::Silent;
use imager::repository::Repository;
use imager::survey::{self, Assigned, Survey, Volume};
use imager_disk::identity::DiskIdentity;
use imager_disk::{Geometry, MemoryDisk, ReadAt, WriteAt};
use imager_image::manifest::{Kind, Manifest};
use imager_journal::{Arena, ChangeLog, Epoch, Freeze, FrozenFor, MARK_BYTES, Marks, Since};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How the machine misbehaves, to see that it would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Marks when a write is asked for, and not when it is done.
    MarksAtIssueOnly,
    /// Reads through a cache that is never told of writes.
    StaleReads,
    /// The first freeze does nothing.
    NoFirstFreeze,
}

struct State {
    volume: FatVolume,
    random: Random,
    flaw: Flaw,
    /// How often something happens, in percent of steps.
    busy: u64,
    /// How long a write is under way, in percent of steps on which one is done.
    quick: u64,
    used: BTreeSet<u64>,
    /// Allocated, and not written since.
    unwritten: BTreeSet<u64>,
    under_way: BTreeMap<u64, Vec<u8>>,
    now: Marks,
    epochs: Vec<Marks>,
    cursors: BTreeMap<String, usize>,
    frozen: bool,
    freezes: usize,
    /// What a capture of the last freeze has to hold.
    instant: Option<(MemoryDisk, ExtentSet)>,
    cache: BTreeMap<u64, Vec<u8>>,
    why: String,
}

/// The machine.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    pub(crate) fn new(seed: u64, layout: Layout, flaw: Flaw) -> Self {
        let (mut random, volume) = (Random::new(seed), FatVolume::new(layout));
        let (busy, quick) = (5 + random.below(40), 5 + random.below(90));
        let mut state = State {
            volume,
            random,
            flaw,
            busy,
            quick,
            used: BTreeSet::from([2]),
            unwritten: BTreeSet::new(),
            under_way: BTreeMap::new(),
            now: Marks::default(),
            epochs: Vec::new(),
            cursors: BTreeMap::new(),
            frozen: false,
            freezes: 0,
            instant: None,
            cache: BTreeMap::new(),
            why: "no capture yet".to_owned(),
        };
        for _ in 0..state.random.below(200) {
            state.happen();
        }
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time passes.
    pub(crate) fn live(&self, steps: u64) {
        let mut state = self.state();
        (0..steps).for_each(|_| state.happen());
    }

    pub(crate) fn set_busy(&self, percent: u64) {
        self.state().busy = percent;
    }

    /// A write that nobody marks.
    pub(crate) fn write_unseen(&self, at: u64, bytes: &[u8]) {
        self.state().volume.write(at, bytes);
    }

    /// The backup of the boot sector, which is a superblock of the volume.
    pub(crate) fn backup(&self) -> Extent {
        self.state().volume.backup()
    }

    /// Writes a cluster, marked.
    pub(crate) fn write_cluster(&self, cluster: u64) {
        let mut state = self.state();
        state.used.insert(cluster);
        state.unwritten.remove(&cluster);
        let bytes = state.content();
        let place = state.volume.cluster(cluster);
        state.mark(place);
        state.volume.write(place.start().get(), &bytes);
    }

    pub(crate) fn free_cluster(&self, cluster: u64) {
        self.state().used.remove(&cluster);
    }

    pub(crate) fn cursors(&self) -> Vec<String> {
        self.state().cursors.keys().cloned().collect()
    }

    pub(crate) fn disk(&self) -> Busy {
        let geometry = self.state().volume.disk.geometry();
        Busy { world: self.clone(), geometry }
    }

    pub(crate) fn survey(&self) -> Survey {
        let disk = self.disk();
        let identity = DiskIdentity {
            path: "/dev/memory".into(),
            model: "memory".to_owned(),
            serial: Some("M-1".to_owned()),
            wwn: None,
            size: disk.geometry.size,
            kernel_name: None,
        };
        survey::survey(vec![(1, survey::Source { device: Arc::new(disk), identity })], &Assigned::new())
            .unwrap()
    }

    /// A capture as machine `m`.
    pub(crate) fn capture(&self, repository: &Repository, kind: Option<Kind>) -> Result<Manifest> {
        self.capture_with(repository, kind, Limits::default())
    }

    pub(crate) fn capture_with(
        &self,
        repository: &Repository,
        kind: Option<Kind>,
        limits: Limits,
    ) -> Result<Manifest> {
        let limits = Limits { target: ByteLen::new(256 << 10), pause: Duration::ZERO, ..limits };
        let mut arena = Arena::new(ByteLen::new(1 << 20)).unwrap();
        let (mut log, mut machine) = (Log(self.clone()), Machine(self.clone()));
        self.state().freezes = 0;
        let survey = self.survey();
        let live = Live {
            log: &mut log,
            disks: vec![1],
            machine: &mut machine,
            arena: &mut arena,
            limits,
            assigned: &Assigned::new(),
        };
        hot::run(repository, &survey, &options("m", kind), live, &Silent::default())
    }

    /// Where a capture differs from the last instant in anything that counts.
    pub(crate) fn first_difference(&self, repository: &Repository, manifest: &Manifest) -> Option<u64> {
        let (expected, counts) = self.state().instant.clone().unwrap();
        let target = MemoryDisk::new(expected.geometry().size, expected.geometry().logical);
        let outcome = restore(repository, manifest, &target).unwrap();
        assert!(outcome.is_complete && outcome.damaged.is_empty() && outcome.unreadable.is_empty());
        difference(&counts, &expected.to_vec(), &target.to_vec())
    }
}

impl State {
    fn mark(&mut self, written: Extent) {
        let end = self.volume.disk.geometry().extent().end();
        self.now.written.extend(ExtentSet::from(written).align_out(MARK_BYTES, end).iter());
    }

    fn content(&mut self) -> Vec<u8> {
        let len = usize::try_from(self.volume.layout.cluster).unwrap();
        match self.random.below(4) {
            0 => vec![0; len],
            1 => vec![1; len],
            _ => self.random.bytes(len),
        }
    }

    fn any(&mut self) -> u64 {
        // Some places are written much more than others.
        let all = self.volume.layout.clusters;
        let among = if self.random.chance(60) { all.min(40) } else { all };
        2 + self.random.below(among)
    }

    /// Perhaps something happens.
    fn tick(&mut self) {
        while !self.frozen && self.random.chance(self.busy) {
            self.happen();
        }
    }

    fn happen(&mut self) {
        if self.random.chance(self.quick)
            && let Some(cluster) = self.under_way.keys().next().copied()
        {
            self.land(cluster);
        }
        let cluster = self.any();
        match self.random.below(20) {
            0 => drop(self.used.insert(cluster) && self.unwritten.insert(cluster)),
            1 | 2 if cluster != 2 && !self.under_way.contains_key(&cluster) => {
                self.used.remove(&cluster);
                self.unwritten.remove(&cluster);
                if self.random.chance(50) {
                    let place = self.volume.cluster(cluster);
                    self.volume.disk.zero(place).unwrap();
                    let end = self.volume.disk.geometry().extent().end();
                    self.now.discarded.extend(ExtentSet::from(place).align_out(MARK_BYTES, end).iter());
                }
            }
            3 if self.random.chance(10) => self.checkpoint(),
            _ if !self.under_way.contains_key(&cluster) => {
                self.used.insert(cluster);
                self.unwritten.remove(&cluster);
                let bytes = self.content();
                self.mark(self.volume.cluster(cluster));
                self.under_way.insert(cluster, bytes);
            }
            _ => {}
        }
    }

    /// A write is done.
    fn land(&mut self, cluster: u64) {
        let Some(bytes) = self.under_way.remove(&cluster) else { return };
        let place = self.volume.cluster(cluster);
        self.volume.write(place.start().get(), &bytes);
        if self.flaw != Flaw::MarksAtIssueOnly {
            self.mark(place);
        }
    }

    /// What the filesystem has in memory comes to its place.
    fn checkpoint(&mut self) {
        let start = self.volume.layout.reserved * 512;
        let tables = extent(start, self.volume.data_start() - start);
        self.mark(tables);
        for cluster in 2..self.volume.layout.clusters + 2 {
            self.volume.set_used(cluster, self.used.contains(&cluster));
        }
    }

    fn finish(&mut self) {
        while let Some(cluster) = self.under_way.keys().next().copied() {
            self.land(cluster);
        }
    }

    fn settle(&mut self) {
        self.finish();
        self.checkpoint();
    }

    fn remember(&mut self) {
        let unwritten: ExtentSet =
            self.unwritten.iter().map(|cluster| self.volume.cluster(*cluster)).collect();
        self.instant = Some((self.volume.snapshot(), self.volume.mask().difference(&unwritten)));
    }

    fn read(&mut self, at: ByteOffset, buf: &mut [u8]) -> Result<()> {
        if self.flaw != Flaw::StaleReads {
            return self.volume.disk.read_exact_at(at, buf);
        }
        let size = self.volume.size();
        for (byte, to) in (at.get()..).zip(buf) {
            let (page, within) = (byte >> 12, usize::try_from(byte & 4095).unwrap());
            if !self.cache.contains_key(&page) {
                let mut bytes = vec![0; usize::try_from((size - (page << 12)).min(4096)).unwrap()];
                self.volume.disk.read_exact_at(ByteOffset::new(page << 12), &mut bytes)?;
                self.cache.insert(page, bytes);
            }
            *to = self.cache[&page][within];
        }
        Ok(())
    }
}

/// The disk of the machine.
pub(crate) struct Busy {
    world: World,
    geometry: Geometry,
}

impl ReadAt for Busy {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let mut state = self.world.state();
        state.tick();
        let read = state.read(offset, buf);
        state.tick();
        read
    }
}

struct Log(World);

impl ChangeLog for Log {
    fn harvest(&mut self) -> Result<Vec<Marks>> {
        let mut state = self.0.state();
        state.tick();
        let marks = std::mem::take(&mut state.now);
        state.epochs.push(marks.clone());
        state.tick();
        Ok(vec![marks])
    }

    fn harvest_frozen(&mut self, each: &mut dyn FnMut(usize, Extent) -> bool) -> Result<Epoch> {
        let mut state = self.0.state();
        assert!(state.frozen);
        let runs: Vec<_> = state.now.written.iter().collect();
        let said = runs.iter().take_while(|run| each(0, **run)).count() + 1;
        let written: ExtentSet = runs.iter().take(said).copied().collect();
        state.now.written = state.now.written.difference(&written);
        state.epochs.push(Marks { written, discarded: ExtentSet::new() });
        Ok(Epoch(state.epochs.len() as u64))
    }

    fn since(&self, base: &str) -> Result<Since> {
        let state = self.0.state();
        let Some(cursor) = state.cursors.get(base) else { return Ok(Since::Unknown(state.why.clone())) };
        let mut all = Marks::default();
        for marks in &state.epochs[*cursor..] {
            all.written = all.written.union(&marks.written);
            all.discarded = all.discarded.union(&marks.discarded);
        }
        Ok(Since::Known(vec![all]))
    }

    fn is_marked(&self, _disk: usize, extent: Extent) -> bool {
        let mut state = self.0.state();
        let marked = state.now.written.overlaps(extent) || state.now.discarded.overlaps(extent);
        state.tick();
        marked
    }

    fn commit(&mut self, capture: &str, epoch: Epoch, keep: &[String]) -> Result<()> {
        let mut state = self.0.state();
        state.cursors.retain(|known, _| keep.contains(known));
        state.cursors.insert(capture.to_owned(), usize::try_from(epoch.0).unwrap());
        Ok(())
    }

    fn taint(&mut self, why: &str) -> Result<()> {
        let mut state = self.0.state();
        state.cursors.clear();
        state.why = why.to_owned();
        Ok(())
    }
}

struct Machine(World);

impl Freeze for Machine {
    fn sync(&mut self) -> Result<()> {
        // What was asked for is done; the table stays in memory until a freeze.
        let mut state = self.0.state();
        state.finish();
        state.tick();
        Ok(())
    }

    fn frozen(&mut self, work: &mut dyn FnMut(Instant)) -> Result<FrozenFor> {
        let mut state = self.0.state();
        state.freezes += 1;
        if state.flaw == Flaw::NoFirstFreeze && state.freezes == 1 {
            return Ok(FrozenFor::default());
        }
        state.tick();
        state.settle();
        state.frozen = true;
        state.remember();
        drop(state);
        work(Instant::now() + Duration::from_secs(5));
        let mut state = self.0.state();
        state.frozen = false;
        state.tick();
        // Somebody let go too early, once in a while.
        if state.freezes > 1 && state.random.chance(5) {
            return Err(Error::new(ErrorKind::Cancelled, "thawed"));
        }
        Ok(FrozenFor::default())
    }
}

impl Running for Machine {
    fn held(&self, _volume: &Volume) -> Result<Held> {
        Ok(Held::Frozen)
    }

    fn used(&self, _volume: &Volume) -> Option<ExtentSet> {
        let mut state = self.0.state();
        // With the first freeze, what is on the disk is as good as what is in memory was then.
        let known = state.flaw == Flaw::NoFirstFreeze || state.random.chance(30);
        let whole = state.volume.disk.geometry().extent();
        let free: ExtentSet = (2..state.volume.layout.clusters + 2)
            .filter(|cluster| !state.used.contains(cluster))
            .map(|cluster| state.volume.cluster(cluster))
            .collect();
        state.tick();
        (!known).then(|| free.complement(whole))
    }

    fn prepare(&mut self) -> Result<()> {
        self.0.live(3);
        Ok(())
    }

    fn resume(&mut self, _succeeded: bool) -> Vec<String> {
        self.0.live(20);
        Vec::new()
    }
}
