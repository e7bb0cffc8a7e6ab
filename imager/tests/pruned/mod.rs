//! What tests of pruning share: volumes of noise, captures and prunes of them, and what must always hold.

#![allow(dead_code, reason = "each test takes what it needs, and none takes all")]

use crate::common::fat::{FatVolume, Layout};
use crate::common::random::Random;
use crate::common::{look, open, options};
use imager::capture;
use imager::capture::hot::{self, Held, Limits, Live, Running};
use imager::monitor::Silent;
use imager::prune::{self, Options, Report, Rules};
use imager::survey::{Assigned, Volume};
use imager::verify::{self, Depth, Mark, Scope, Status, VerifyReport};
use imager_image::manifest::{Kind, Manifest};
use imager_journal::{Arena, ChangeLog, Epoch, Freeze, FrozenFor, Marks, Since};
use imager_units::{ByteLen, Extent, ExtentSet, Result};
use netshare_store::{ObjectName, Store};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const KIB_64: u64 = 64 << 10;

/// A volume of clusters of one block each, `count` of which hold noise.
pub(crate) fn noise(seed: u64, count: u64) -> FatVolume {
    let volume = FatVolume::new(Layout { cluster: KIB_64, clusters: count + 8, ..Layout::SMALL });
    fill(&volume, seed, 2..count + 2);
    volume
}

/// Other noise in these clusters.
pub(crate) fn fill(volume: &FatVolume, seed: u64, clusters: std::ops::Range<u64>) {
    let mut random = Random::new(seed);
    let len = usize::try_from(KIB_64).unwrap();
    clusters.for_each(|cluster| volume.put(cluster, &random.bytes(len)));
}

pub(crate) fn try_capture(
    store: impl Store + 'static,
    machine: &str,
    volume: &FatVolume,
    kind: Option<Kind>,
) -> Result<Manifest> {
    let survey = look(volume.snapshot())?;
    capture::run(&open(store)?, &survey, &options(machine, kind), &Silent::default())
}

pub(crate) fn take(store: impl Store + 'static, machine: &str, volume: &FatVolume) -> Manifest {
    try_capture(store, machine, volume, None).unwrap()
}

/// The same while the machine runs, by a journal that knows of no change since any capture.
pub(crate) fn try_unchanged(
    store: impl Store + 'static,
    machine: &str,
    volume: &FatVolume,
    kind: Option<Kind>,
) -> Result<Manifest> {
    let survey = look(volume.snapshot())?;
    let mut arena = Arena::new(ByteLen::new(KIB_64))?;
    let live = Live {
        log: &mut Quiet,
        disks: vec![1],
        machine: &mut Quiet,
        arena: &mut arena,
        limits: Limits::default(),
        assigned: &Assigned::new(),
    };
    hot::run(&open(store)?, &survey, &options(machine, kind), live, &Silent::default())
}

/// A machine on which nothing happens.
struct Quiet;

impl ChangeLog for Quiet {
    fn harvest(&mut self) -> Result<Vec<Marks>> {
        Ok(vec![Marks::default()])
    }
    fn harvest_frozen(&mut self, _each: &mut dyn FnMut(usize, Extent) -> bool) -> Result<Epoch> {
        Ok(Epoch(1))
    }
    fn since(&self, _base: &str) -> Result<Since> {
        Ok(Since::Known(vec![Marks::default()]))
    }
    fn is_marked(&self, _disk: usize, _extent: Extent) -> bool {
        false
    }
    fn commit(&mut self, _capture: &str, _epoch: Epoch, _keep: &[String]) -> Result<()> {
        Ok(())
    }
    fn taint(&mut self, _why: &str) -> Result<()> {
        Ok(())
    }
}

impl Freeze for Quiet {
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
    fn frozen(&mut self, work: &mut dyn FnMut(Instant)) -> Result<FrozenFor> {
        work(Instant::now() + Duration::from_secs(5));
        Ok(FrozenFor::default())
    }
}

impl Running for Quiet {
    fn held(&self, _volume: &Volume) -> Result<Held> {
        Ok(Held::Frozen)
    }
    fn used(&self, _volume: &Volume) -> Option<ExtentSet> {
        None
    }
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }
    fn resume(&mut self, _succeeded: bool) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) fn last(count: u32) -> Options {
    Options { rules: Rules { last: Some(count), ..Rules::default() }, force: true, ..Options::default() }
}

pub(crate) fn try_prune(store: impl Store + 'static, options: &Options) -> Result<Report> {
    let repository = open(store)?;
    let plan = prune::plan(&repository, options, &Silent::default())?;
    prune::run(&repository, options, plan, &Silent::default())
}

pub(crate) fn prune(store: impl Store + 'static, options: &Options) -> Report {
    try_prune(store, options).unwrap()
}

/// Prunes without rules until nothing changes any more.
pub(crate) fn settle(store: &(impl Store + Clone + 'static)) {
    for _ in 0..8 {
        let before = objects(store);
        prune(store.clone(), &Options::default());
        if objects(store) == before {
            return;
        }
    }
    panic!("pruning comes to no end");
}

pub(crate) fn check(store: impl Store + 'static, depth: Depth, mark: Mark) -> VerifyReport {
    let how = verify::Options { depth, mark };
    verify::run(&open(store).unwrap(), Scope::All, how, &Silent::default()).unwrap()
}

/// Every capture that is listed reads to the last byte.
pub(crate) fn assert_sound(store: &(impl Store + Clone + 'static), what: &str) {
    let report = check(store.clone(), Depth::ReadData, Mark::Leave);
    for capture in &report.captures {
        assert_eq!(capture.status, Status::Ok, "{what}: {:#?}", report.damaged);
    }
    assert!(!report.has_damage(), "{what}: {:#?}", report.damaged);
    let report = check(store.clone(), Depth::Structure, Mark::Leave);
    assert!(!report.has_damage(), "{what}, without data: {:#?}", report.damaged);
}

/// Every object and its length.
pub(crate) fn objects(store: &impl Store) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    store
        .list("", &mut |entry| {
            found.insert(entry.name.to_string(), entry.len.get());
            Ok(())
        })
        .unwrap();
    found
}

/// How many bytes of packs there are.
pub(crate) fn pack_bytes(store: &impl Store) -> u64 {
    objects(store).iter().filter(|(name, _)| name.starts_with("packs/")).map(|(_, len)| len).sum()
}

pub(crate) fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}
