//! Random sequences of captures, prunes, holds, dying captures and damage, against a naive model: a list of what each
//! capture of each machine must read as.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
mod pruned;

use common::fat::FatVolume;
use common::random::Random;
use common::{difference, listed, names, open, plain, restore};
use imager::monitor::Silent;
use imager::prune::{self, Options, Rules};
use imager::verify::{Depth, Mark};
use imager_disk::{MemoryDisk, ReadAt};
use imager_image::manifest::{Kind, Manifest};
use imager_image::{CaptureId, names as grammar};
use imager_units::{ErrorKind, ExtentSet, SectorSize};
use netshare_store::{FaultyStore, MemoryStore, Store, StoreFault};
use pruned::{KIB_64, check, fill, noise, object, settle, try_capture, try_prune};
use std::sync::Arc;

const MACHINES: [&str; 3] = ["a", "b", "c"];
const CLUSTERS: u64 = 24;

struct Known {
    machine: usize,
    manifest: Manifest,
    bytes: Vec<u8>,
    used: ExtentSet,
    held: bool,
    /// Some of what it needs was damaged: it may lack that, but not be wrong.
    hurt: bool,
}

struct Model {
    random: Random,
    store: Arc<MemoryStore>,
    volumes: Vec<FatVolume>,
    known: Vec<Known>,
    dead: Vec<CaptureId>,
    counts: [u64; 8],
}

impl Model {
    fn new(seed: u64) -> Self {
        let volumes = (0..MACHINES.len()).map(|_| noise(1, CLUSTERS)).collect();
        let (random, store) = (Random::new(seed), plain());
        Self { random, store, volumes, known: Vec::new(), dead: Vec::new(), counts: [0; 8] }
    }

    fn machine(&mut self) -> usize {
        usize::try_from(self.random.below(MACHINES.len() as u64)).unwrap()
    }

    /// Some clusters change, to content that may have been there before, also on another machine.
    fn change(&mut self, machine: usize) {
        let first = 2 + self.random.below(CLUSTERS);
        let last = (first + 1 + self.random.below(CLUSTERS)).min(CLUSTERS + 2);
        let seed = self.random.below(6);
        fill(&self.volumes[machine], seed, first..last);
    }

    fn kind(&mut self) -> Option<Kind> {
        self.random.pick(&[None, None, Some(Kind::Full), Some(Kind::Differential)])
    }

    fn capture(&mut self) {
        let (machine, kind) = (self.machine(), self.kind());
        if self.random.chance(80) {
            self.change(machine);
        }
        let volume = &self.volumes[machine];
        let manifest = try_capture(Arc::clone(&self.store), MACHINES[machine], volume, kind).unwrap();
        let (bytes, used) = (volume.disk.to_vec(), volume.mask());
        self.known.push(Known { machine, manifest, bytes, used, held: false, hurt: false });
        self.counts[0] += 1;
    }

    /// A capture that is cut off; what it had begun stays, its lease too.
    fn die(&mut self) {
        let (machine, kind) = (self.machine(), self.kind());
        self.change(machine);
        let nth = 1 + self.random.below(25);
        let fault = StoreFault::Gone { nth, kind: ErrorKind::Lost };
        let faulty = FaultyStore::new(Arc::clone(&self.store), [fault]);
        let volume = &self.volumes[machine];
        match try_capture(faulty, MACHINES[machine], volume, kind) {
            Ok(manifest) => {
                let (bytes, used) = (volume.disk.to_vec(), volume.mask());
                self.known.push(Known { machine, manifest, bytes, used, held: false, hurt: false });
            }
            Err(_) => self.counts[1] += 1,
        }
        let known: Vec<_> = self.known.iter().map(|known| grammar::lease(known.manifest.header.id)).collect();
        let leases = names(&*self.store, "leases").into_iter().filter(|lease| !known.contains(lease));
        self.dead = leases.map(|lease| lease.rsplit('/').next().unwrap().parse().unwrap()).collect();
    }

    fn prune(&mut self) {
        let keep = u32::try_from(1 + self.random.below(4)).unwrap();
        let break_leases = if self.random.chance(50) { std::mem::take(&mut self.dead) } else { Vec::new() };
        let rules = if self.random.chance(70) {
            Rules { last: Some(keep), ..Rules::default() }
        } else {
            Rules::default()
        };
        let options = Options { rules: rules.clone(), break_leases, force: true, ..Options::default() };
        if self.random.chance(20) {
            // One that dies is no prune, but what it removed is gone.
            let fault = StoreFault::Gone { nth: 1 + self.random.below(120), kind: ErrorKind::Lost };
            let faulty = FaultyStore::new(Arc::clone(&self.store), [fault]);
            drop(try_prune(faulty, &options));
        }
        // Those that were broken by the one that died are over; their leases may be gone.
        let leases = names(&*self.store, "leases");
        let is_there = |id: &CaptureId| leases.contains(&grammar::lease(*id));
        let break_leases = options.break_leases.iter().copied().filter(is_there).collect();
        let report = try_prune(Arc::clone(&self.store), &Options { break_leases, ..options }).unwrap();
        for machine in 0..MACHINES.len() {
            let mut newer = self.known.iter().filter(|known| known.machine == machine).count();
            self.known.retain(|known| {
                if known.machine != machine {
                    return true;
                }
                newer -= 1;
                known.held || rules.last.is_none_or(|keep| newer < usize::try_from(keep).unwrap())
            });
        }
        self.counts[2] += 1;
        self.counts[3] += report.deleted_packs;
        self.counts[4] += report.moved_packs;
        self.counts[5] += report.healed_frames;
    }

    fn hold(&mut self) {
        if self.known.is_empty() {
            return;
        }
        let which = usize::try_from(self.random.below(self.known.len() as u64)).unwrap();
        let known = &mut self.known[which];
        let repository = open(Arc::clone(&self.store)).unwrap();
        if known.held {
            prune::release(&repository, known.manifest.header.id).unwrap();
        } else {
            prune::hold(&repository, &known.manifest).unwrap();
        }
        known.held = !known.held;
    }

    /// A pack of blocks is damaged and found to be; then every machine is captured again.
    fn damage(&mut self) {
        let is_data = |pack: &String| self.store.len(&object(pack)).unwrap().unwrap().get() > KIB_64;
        let packs: Vec<_> = names(&*self.store, "packs").into_iter().filter(is_data).collect();
        if packs.is_empty() {
            return;
        }
        let which = usize::try_from(self.random.below(packs.len() as u64)).unwrap();
        let len = self.store.len(&object(&packs[which])).unwrap().unwrap().get();
        let at = usize::try_from(self.random.below(len)).unwrap();
        self.store.damage(&object(&packs[which]), |bytes| bytes[at] ^= 1).unwrap();
        let report = check(Arc::clone(&self.store), Depth::ReadData, Mark::Damaged);
        let hurt: Vec<CaptureId> = report
            .damaged
            .iter()
            .flat_map(|damaged| &damaged.affects)
            .map(|affected| affected.capture)
            .collect();
        for known in &mut self.known {
            known.hurt |= hurt.contains(&known.manifest.header.id);
        }
        self.counts[6] += 1;
    }

    fn check(&self) {
        let repository = open(Arc::clone(&self.store)).unwrap();
        let there: Vec<CaptureId> =
            listed(&repository).into_iter().map(|listed| listed.manifest.unwrap().header.id).collect();
        let mut known: Vec<CaptureId> = self.known.iter().map(|known| known.manifest.header.id).collect();
        let mut found = there;
        found.sort();
        known.sort();
        assert_eq!(found, known, "the captures that stay");
        for known in &self.known {
            let target = MemoryDisk::new(self.volumes[known.machine].disk.geometry().size, SectorSize::B512);
            let outcome = restore(&repository, &known.manifest, &target).unwrap();
            if known.hurt && !outcome.is_complete {
                continue;
            }
            assert!(outcome.is_complete, "{outcome:?}");
            assert_eq!(difference(&known.used, &known.bytes, &target.to_vec()), None);
        }
    }

    /// Nothing is on its way out any more, but what damage keeps from being emptied: packs of which captures need what is
    /// nowhere to be had.
    fn assert_rest(&mut self) {
        let trash = names(&*self.store, "trash");
        let report = check(Arc::clone(&self.store), Depth::ReadData, Mark::Leave);
        let is_damaged = |tombstone: &String| {
            let pack = grammar::pack(grammar::pack_of(tombstone).unwrap());
            report.damaged.iter().any(|damaged| damaged.object == pack)
        };
        let left: Vec<_> = trash.iter().filter(|tombstone| !is_damaged(tombstone)).collect();
        assert!(left.is_empty(), "{left:?} stay: {report:#?} {:#?}", pruned::objects(&*self.store));
        let repository = open(Arc::clone(&self.store)).unwrap();
        let plan = prune::plan(&repository, &Options::default(), &Silent::default()).unwrap();
        assert!(plan.is_empty(), "what cannot be done is not begun again: {:#?}", plan.report());
        self.counts[7] += trash.len() as u64;
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..=4 => self.capture(),
            5 => self.die(),
            6..=8 => self.prune(),
            9 => self.hold(),
            10 => self.damage(),
            _ => self.check(),
        }
    }
}

#[test]
fn whatever_happens_captures_that_stay_read_as_they_should() {
    let rounds: u64 = if std::env::var_os("HALFHOUR_FULL").is_some() { 300 } else { 12 };
    let mut counts = [0; 8];
    for round in 0..rounds {
        let seed = Random::seed() + round;
        println!("HALFHOUR_SEED={seed}");
        let mut model = Model::new(seed);
        for _ in 0..40 {
            model.step();
        }
        model.check();
        // In the end everything of dead captures goes, and pruning comes to rest.
        let leases = names(&*model.store, "leases");
        let is_there = |id: &CaptureId| leases.contains(&grammar::lease(*id));
        let break_leases = model.dead.iter().copied().filter(is_there).collect();
        try_prune(Arc::clone(&model.store), &Options { break_leases, ..Options::default() }).unwrap();
        settle(&model.store);
        model.check();
        model.assert_rest();
        counts.iter_mut().zip(model.counts).for_each(|(sum, count)| *sum += count);
    }
    let [captures, died, prunes, deleted, moved, healed, damaged, kept] = counts;
    println!(
        "{captures} captures, {died} that died, {prunes} prunes: {deleted} packs deleted, {moved} emptied, {damaged} \
         damaged, {healed} frames healed; {kept} on their way out stay because what is needed of them is lost"
    );
}
