//! The engine against a naive model: a vector of bytes and a set of those that count, for every capture.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::cast_possible_truncation, reason = "volumes made here fit into memory")]

mod common;

use common::fat::{FatVolume, Layout};
use common::random::Random;
use common::{difference, extent, look, open, options, plain, range, restore, verify};
use imager::capture;
use imager::monitor::Silent;
use imager::repository::Repository;
use imager_disk::{Geometry, MemoryDisk, ReadAt, WriteAt};
use imager_image::Compression;
use imager_image::manifest::{Kind, Manifest};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet, Result, SectorSize};
use netshare_store::{MemoryStore, RecordingStore, Verb};
use std::sync::{Arc, Mutex};

/// What the model knows of a capture.
struct Known {
    manifest: Manifest,
    bytes: Vec<u8>,
    used: ExtentSet,
}

struct Model {
    random: Random,
    volume: FatVolume,
    store: Arc<MemoryStore>,
    known: Vec<Known>,
}

/// A volume of any grain, none of whose parts is a multiple of anything.
fn any_layout(random: &mut Random) -> Layout {
    let cluster = 512 << random.below(8);
    let most = (3 << 20) / cluster;
    let most_reserved = if random.chance(30) { 4000 } else { 100 };
    let reserved = 33 + random.below(most_reserved);
    let backup = 1 + random.below(reserved - 1);
    let skew = if random.chance(30) { random.below(cluster / 512) } else { 0 };
    let tail = if random.chance(70) { random.below(200_000) } else { 0 };
    Layout { cluster, clusters: 1 + random.below(most.min(2000)), reserved, backup, skew, tail }
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let volume = FatVolume::new(any_layout(&mut random));
        let mut model = Self { random, volume, store: plain(), known: Vec::new() };
        for _ in 0..model.random.below(10) {
            model.mutate();
        }
        model
    }

    fn repository(&self) -> Repository {
        open(Arc::clone(&self.store)).unwrap()
    }

    fn any_cluster(&mut self) -> u64 {
        2 + self.random.below(self.volume.layout.clusters)
    }

    /// A cluster's worth of bytes: noise, zeros, text, a mixture, or what another cluster has.
    fn content(&mut self) -> Vec<u8> {
        let len = self.volume.layout.cluster as usize;
        match self.random.below(5) {
            0 => vec![0; len],
            1 => vec![self.random.below(4) as u8; len],
            2 => {
                let mut mixed = vec![0; len];
                let half = len / 2;
                self.random.fill(&mut mixed[half..]);
                mixed
            }
            3 => {
                let other = self.any_cluster();
                let mut bytes = vec![0; len];
                self.volume.disk.read_exact_at(self.volume.cluster(other).start(), &mut bytes).unwrap();
                bytes
            }
            _ => self.random.bytes(len),
        }
    }

    /// Something that a filesystem does.
    fn mutate(&mut self) {
        let first = self.any_cluster();
        let run = 1 + self.random.below(40);
        let last = (first + run).min(self.volume.layout.clusters + 2);
        let what = self.random.below(6);
        for cluster in first..last {
            match what {
                0 | 1 => {
                    let content = self.content();
                    self.volume.put(cluster, &content);
                }
                2 => self.volume.set_used(cluster, cluster == 2),
                // Allocated, and what lay there before is in it.
                3 => self.volume.set_used(cluster, true),
                // Something in a free cluster, which does not count, or a part of a used one.
                4 => {
                    let content = self.content();
                    let at = self.volume.cluster(cluster).start().get() + content.len() as u64 / 3;
                    self.volume.write(at, &content[..content.len() / 3]);
                }
                _ => {
                    let tail = self.volume.layout.tail;
                    let at = self.volume.size() - tail + self.random.below(tail.max(1));
                    let len = (self.volume.size() - at).min(5000) as usize;
                    let bytes = self.random.bytes(len);
                    self.volume.write(at, &bytes);
                    break;
                }
            }
        }
    }

    fn capture(&mut self) {
        let kinds =
            [None, Some(Kind::Full), Some(Kind::Incremental), Some(Kind::Differential), Some(Kind::Copy)];
        let machine = self.random.pick(&["m", "m", "m", "n"]);
        let mut how = options(machine, self.random.pick(&kinds));
        how.compression = self.random.pick(&[Compression::Fast, Compression::Small]);
        let survey = look(self.volume.snapshot()).unwrap();
        let manifest = capture::run(&self.repository(), &survey, &how, &Silent::default()).unwrap();
        assert_eq!(manifest.problems, []);
        let used = self.volume.mask();
        assert_eq!(manifest.volumes[0].cost.used_bytes, used.total().get());
        self.known.push(Known { manifest, bytes: self.volume.disk.to_vec(), used });
    }

    /// What a disk may hold before something is restored onto it.
    fn any_target(&mut self) -> Vec<u8> {
        let other = self.random.below(self.known.len() as u64) as usize;
        let size = self.volume.size() as usize;
        match self.random.below(5) {
            0 => self.random.bytes(size),
            1 => vec![0; size],
            2 => self.known[other].bytes.clone(),
            3 => self.volume.disk.to_vec(),
            _ => {
                let mut bytes = self.known[other].bytes.clone();
                for _ in 0..self.random.below(20) {
                    let at = self.random.below(size as u64) as usize;
                    let len = (self.random.below(100_000) as usize).min(size - at);
                    self.random.fill(&mut bytes[at..at + len]);
                }
                bytes
            }
        }
    }

    fn restore(&mut self) {
        let before = self.any_target();
        let which = self.random.below(self.known.len() as u64) as usize;
        let known = &self.known[which];
        let target = MemoryDisk::from_bytes(&before, SectorSize::B512);
        let outcome = restore(&self.repository(), &known.manifest, &target).unwrap();
        assert!(outcome.is_complete && outcome.damaged.is_empty() && outcome.unreadable.is_empty());
        let after = target.to_vec();
        assert_eq!(difference(&known.used, &known.bytes, &after), None, "a byte that counts");
        // What does not count is as it was, or is given what a block of the capture has there: zeros, or what lay there
        // when it still counted.
        for gap in known.used.complement(Extent::first(ByteLen::of(&after))).iter() {
            let wrong = range(gap).find(|&at| {
                after[at] != before[at]
                    && (after[at] != 0 && !self.known.iter().any(|k| k.bytes[at] == after[at]))
            });
            assert_eq!(wrong, None, "a byte that does not count");
        }
        // Once more: nothing is left to do.
        let again = restore(&self.repository(), &known.manifest, &target).unwrap();
        assert!(again.is_complete && again.written.is_zero(), "{again:?}");
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..5 => self.mutate(),
            5..8 => self.capture(),
            _ if self.known.is_empty() => self.capture(),
            _ => self.restore(),
        }
    }

    fn finish(&mut self) {
        assert_eq!(verify(&self.repository()).len(), self.known.len());
        for which in 0..self.known.len() {
            let known = &self.known[which];
            let target = MemoryDisk::new(ByteLen::new(self.volume.size()), SectorSize::B512);
            restore(&self.repository(), &known.manifest, &target).unwrap();
            assert_eq!(difference(&known.used, &known.bytes, &target.to_vec()), None, "capture {which}");
        }
    }
}

#[test]
fn any_sequence_of_changes_captures_and_restores_is_what_the_model_says() {
    let seed = Random::seed();
    let cases = std::env::var("HALFHOUR_FULL").map_or(200, |_| 5000);
    println!("HALFHOUR_SEED={seed}, {cases} cases");
    for case in 0..cases {
        let result = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed.wrapping_add(case * 7919));
            let steps = 5 + model.random.below(20);
            (0..steps).for_each(|_| model.step());
            model.finish();
        });
        if let Err(panic) = result {
            eprintln!("case {case} of HALFHOUR_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A disk that notes what is read of it.
struct Noted {
    disk: MemoryDisk,
    reads: Arc<Mutex<Vec<Extent>>>,
}

impl ReadAt for Noted {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.reads.lock().unwrap().push(extent(offset.get(), buf.len() as u64));
        self.disk.read_exact_at(offset, buf)
    }

    fn data(&self, within: Extent) -> Result<ExtentSet> {
        self.disk.data(within)
    }
}

#[test]
fn an_unchanged_volume_is_read_where_it_is_used_and_nothing_of_it_is_stored_again() {
    let volume = FatVolume::new(Layout { clusters: 3000, ..Layout::SMALL });
    let mut random = Random::new(2);
    for cluster in (2..3000).filter(|cluster| cluster % 700 < 90) {
        volume.put(cluster, &random.bytes(4096));
    }
    // Full of what was deleted.
    for cluster in (2..3000).filter(|cluster| cluster % 700 >= 90) {
        volume.write(volume.cluster(cluster).start().get(), &random.bytes(4096));
    }
    let store = plain();
    common::capture(&open(Arc::clone(&store)).unwrap(), volume.snapshot(), None).unwrap();
    let share = Arc::new(RecordingStore::new(Arc::clone(&store)));
    let repository = open(Arc::clone(&share)).unwrap();
    let reads = Arc::new(Mutex::new(Vec::new()));
    let disk = Noted { disk: volume.snapshot(), reads: Arc::clone(&reads) };
    let survey = look(disk).unwrap();
    let drain = || std::mem::take(&mut *reads.lock().unwrap());
    drain();
    survey.volumes[0].used().unwrap();
    let for_the_map: ExtentSet = drain().into_iter().collect();
    let manifest = capture::run(&repository, &survey, &options("m", None), &Silent::default()).unwrap();
    let used = volume.mask();
    let cost = manifest.volumes[0].cost;
    assert_eq!((cost.new_bytes, cost.stored_bytes), (0, 0));
    assert_eq!(cost.read_bytes, used.total().get(), "only what is used is read of the contents");
    for read in drain() {
        assert!(used.contains(read) || for_the_map.contains(read), "{read} was read");
    }
    let puts: Vec<_> = share.take().into_iter().filter(|call| call.verb == Verb::Put).collect();
    assert_eq!(puts.len(), 2, "the lease and the manifest: {puts:?}");
}

#[test]
fn sixteen_tebibytes_with_little_on_them_take_seconds_and_little_memory() {
    let started = std::time::Instant::now();
    let tail = (16_u64 << 40) - (2 << 20) - 12_345;
    let volume = FatVolume::new(Layout { tail, ..Layout::SMALL });
    let (end, mut random) = (volume.size(), Random::new(9));
    let places: Vec<_> =
        (0..60).map(|_| (4 << 20) + random.below(end - (8 << 20))).chain([end - 1, end - 70_000]).collect();
    let change = |random: &mut Random| {
        for &place in &places {
            let len = ((end - place) as usize).min(1 + random.below(300_000) as usize);
            volume.write(place, &random.bytes(len));
        }
    };
    let store = plain();
    let repository = open(Arc::clone(&store)).unwrap();
    change(&mut random);
    let (first, before) = (common::capture(&repository, volume.snapshot(), None).unwrap(), volume.snapshot());
    change(&mut random);
    volume.disk.zero(extent(places[3] >> 16 << 16, 1 << 17)).unwrap();
    let (second, after) = (common::capture(&repository, volume.snapshot(), None).unwrap(), volume.snapshot());
    let target = MemoryDisk::new(ByteLen::new(end), SectorSize::B512);
    // Something lies where there are to be zeros.
    for _ in 0..40 {
        let at = random.below(end - 200_000);
        target.write_all_at(ByteOffset::new(at), &random.bytes(150_000)).unwrap();
    }
    for (manifest, expected) in [(&first, &before), (&second, &after), (&first, &before)] {
        assert!(restore(&repository, manifest, &target).unwrap().is_complete);
        let whole = expected.geometry().extent();
        let everywhere = expected.data(whole).unwrap().union(&target.data(whole).unwrap());
        for part in everywhere.intersection(&volume.mask()).iter() {
            let (mut a, mut b) = (vec![0; part.len().get() as usize], vec![0; part.len().get() as usize]);
            expected.read_exact_at(part.start(), &mut a).unwrap();
            target.read_exact_at(part.start(), &mut b).unwrap();
            assert!(a == b, "{part}");
        }
    }
    verify(&repository);
    println!("{:?}", started.elapsed());
    assert!(started.elapsed().as_secs() < 60, "time does not depend on the size");
    assert!(peak_kib() < 512 << 10, "memory does not depend on the size: {} KiB", peak_kib());
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
