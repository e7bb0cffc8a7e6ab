//! Volumes that are restored together, interrupted at every place: no system is recognised that is half another one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::cast_possible_truncation, reason = "volumes made here fit into memory")]

mod common;

use common::fat::{FatVolume, Layout};
use common::random::Random;
use common::{difference, extent, head, is_recognised, look, masks, open, options, plain, range};
use imager::capture;
use imager::monitor::{Monitor, Silent, Stage};
use imager::repository::Repository;
use imager::restore::plan::{self, Plan, Request, Scope};
use imager::restore::protection::Protected;
use imager::restore::untouched::Proof;
use imager::restore::volume::{Job, Outcome, ReadBack};
use imager::restore::volumes::Bodies;
use imager::restore::{self, Options, Report};
use imager::survey::{self, Assigned};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, Unflushed, Window};
use imager_image::manifest::{Manifest, Volume};
use imager_units::{ByteLen, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use netshare_store::{FaultyStore, MemoryStore, StoreFault};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Boot sectors have their copies behind the first mebibyte.
const FAR: Layout = Layout { reserved: 3200, backup: 3100, clusters: 100, tail: 1024, ..Layout::SMALL };
/// In it.
const NEAR: Layout = Layout { clusters: 300, tail: 512, ..Layout::SMALL };

/// A volume with something of its own in it.
fn volume(layout: Layout, seed: u64) -> FatVolume {
    let volume = FatVolume::new(layout);
    let mut random = Random::new(seed);
    for cluster in (2..layout.clusters).filter(|cluster| cluster % 17 < 9) {
        volume.put(cluster, &random.bytes(4096));
    }
    volume
}

/// What a day of use does to it.
fn later(layout: Layout, seed: u64) -> FatVolume {
    let volume = volume(layout, seed);
    let mut random = Random::new(seed + 100);
    [30, 41, 70].into_iter().for_each(|cluster| volume.put(cluster, &random.bytes(4096)));
    volume
}

/// A captured volume.
struct Captured {
    volume: Volume,
    bytes: Vec<u8>,
    mask: ExtentSet,
}

/// A captured system: its own volume, and the one that it starts from.
struct System {
    store: Arc<MemoryStore>,
    repository: Repository,
    volumes: [Captured; 2],
}

const OS: usize = 0;
const BOOT: usize = 1;
const MARGIN: u64 = 200_000;

impl System {
    fn new() -> Self {
        let store = plain();
        let repository = open(Arc::clone(&store)).unwrap();
        let volumes = [("os", volume(FAR, 1)), ("boot", volume(NEAR, 2))].map(|(machine, volume)| {
            let seen = look(volume.snapshot()).unwrap();
            let manifest =
                capture::run(&repository, &seen, &options(machine, None), &Silent::default()).unwrap();
            let (mask, _) = masks(&repository, manifest.volumes[0].map.as_ref().unwrap());
            Captured { volume: manifest.volumes[0].clone(), bytes: volume.disk.to_vec(), mask }
        });
        Self { store, repository, volumes }
    }

    /// What a disk may hold before it is restored: the system's volume, and the one it starts from.
    fn targets(&self) -> Vec<(&'static str, [Vec<u8>; 2])> {
        let now = [OS, BOOT].map(|which| self.volumes[which].bytes.clone());
        let newer = [later(FAR, 1).disk.to_vec(), later(NEAR, 2).disk.to_vec()];
        let junk = [OS, BOOT].map(|which| Random::new(9).bytes(now[which].len()));
        let mut headless = now.clone();
        headless.iter_mut().for_each(|volume| volume[..1 << 20].fill(0));
        vec![
            ("lost", junk.clone()),
            ("newer", newer.clone()),
            ("only the boot volume is newer", [now[OS].clone(), newer[BOOT].clone()]),
            ("only the system is newer", [newer[OS].clone(), now[BOOT].clone()]),
            ("only the system is lost", [junk[OS].clone(), newer[BOOT].clone()]),
            ("only the heads are missing", headless),
        ]
    }

    fn restore(&self, disk: &Disk, repository: &Repository) -> Result<Vec<Outcome>> {
        let targets = disk.places.map(|place| Window::part(&*disk.disk, place).unwrap());
        let jobs: Vec<_> = self
            .volumes
            .iter()
            .zip(&targets)
            .map(|(captured, target)| Job {
                label: captured.volume.key.clone(),
                map: captured.volume.map.as_ref().unwrap(),
                target,
                head: head(&captured.volume),
                only: None,
                read_back: ReadBack::Yes,
            })
            .collect();
        let monitor = Silent::default();
        Bodies::write(repository, &jobs, &monitor)?.write_heads(repository, &jobs, &monitor)
    }

    fn is_whole(&self, which: usize, disk: &Disk) -> bool {
        let captured = &self.volumes[which];
        difference(&captured.mask, &captured.bytes, &disk.volume(which)).is_none()
    }

    /// After a restore that was interrupted.
    fn assert_not_half(&self, disk: &Disk, what: &str) {
        let now = disk.disk.inner().to_vec();
        let mut between = 0;
        for place in disk.places {
            let (from, to) = (between, range(place).start);
            assert!(now[from..to] == disk.before[from..to], "{what}: what lies beside was written");
            between = range(place).end;
        }
        assert!(now[between..] == disk.before[between..], "{what}: what lies behind was written");
        if now == disk.before {
            return;
        }
        let recognised = disk.places.map(|place| is_recognised(&Window::part(&*disk.disk, place).unwrap()));
        let whole = [OS, BOOT].map(|which| self.is_whole(which, disk));
        assert!(!recognised[OS] || whole == [true, true], "{what}: a system that is not whole: {whole:?}");
        let untouched = now[range(disk.places[BOOT])] == disk.before[range(disk.places[BOOT])];
        assert!(!recognised[BOOT] || whole[BOOT] || untouched, "{what}: a boot volume that is not whole");
    }
}

/// A disk with the two volumes on it, and something that must not be touched around them.
struct Disk {
    disk: Arc<FaultyDisk<MemoryDisk>>,
    places: [Extent; 2],
    before: Vec<u8>,
}

impl Disk {
    fn new(volumes: &[Vec<u8>; 2], faults: &[Fault]) -> Self {
        let mut random = Random::new(11);
        let mut before = Vec::new();
        let places = [OS, BOOT].map(|which| {
            before.extend(random.bytes(MARGIN as usize));
            let place = extent(before.len() as u64, volumes[which].len() as u64);
            before.extend_from_slice(&volumes[which]);
            place
        });
        before.extend(random.bytes(MARGIN as usize));
        let disk = MemoryDisk::from_bytes(&before, SectorSize::B512);
        Self { disk: Arc::new(FaultyDisk::new(disk, faults.iter().copied())), places, before }
    }

    /// The bytes of a volume as the medium has them.
    fn volume(&self, which: usize) -> Vec<u8> {
        self.disk.inner().to_vec()[range(self.places[which])].to_vec()
    }
}

fn faults(nth: u64) -> [Fault; 7] {
    let power = |unflushed| Fault::PowerLost { nth, unflushed };
    [
        Fault::Once { nth },
        Fault::LostWrite { nth },
        power(Unflushed::Kept),
        power(Unflushed::Dropped),
        power(Unflushed::Some { seed: nth }),
        power(Unflushed::Some { seed: nth + 1000 }),
        power(Unflushed::Some { seed: nth + 2000 }),
    ]
}

#[test]
fn a_restore_cut_short_at_any_operation_leaves_no_system_that_is_half_another() {
    let system = System::new();
    let mut runs = 0;
    for (name, content) in system.targets() {
        let operations = {
            let disk = Disk::new(&content, &[]);
            let outcomes = system.restore(&disk, &system.repository).unwrap();
            assert!(outcomes.iter().all(|outcome| outcome.is_complete), "{name}");
            assert_eq!([OS, BOOT].map(|which| system.is_whole(which, &disk)), [true, true], "{name}");
            disk.disk.operations()
        };
        for nth in 1..=operations {
            for fault in faults(nth) {
                let what = format!("{name}, {fault:?} of {operations}");
                let disk = Disk::new(&content, &[fault]);
                let outcome = system.restore(&disk, &system.repository);
                if matches!(fault, Fault::PowerLost { .. }) {
                    disk.disk.power_cycle().unwrap();
                }
                if outcome.is_ok() {
                    assert_eq!([OS, BOOT].map(|w| system.is_whole(w, &disk)), [true, true], "{what}");
                }
                system.assert_not_half(&disk, &what);
                let left = [OS, BOOT].map(|which| disk.volume(which));
                let again = Disk::new(&left, &[]);
                let outcomes = system.restore(&again, &system.repository).unwrap();
                assert!(outcomes.iter().all(|outcome| outcome.is_complete), "{what}");
                assert_eq!([OS, BOOT].map(|w| system.is_whole(w, &again)), [true, true], "{what}");
                runs += 1;
            }
        }
    }
    println!("{runs} interrupted restores, each run again");
}

#[test]
fn a_share_that_goes_away_at_any_call_leaves_no_system_that_is_half_another() {
    let system = System::new();
    let (name, content) = system.targets().swap_remove(1);
    let calls = {
        let share = Arc::new(FaultyStore::new(MemoryStore::clone(&system.store), []));
        let repository = open(Arc::clone(&share)).unwrap();
        system.restore(&Disk::new(&content, &[]), &repository).unwrap();
        share.calls()
    };
    let mut interrupted = 0;
    for nth in 1..=calls {
        let disk = Disk::new(&content, &[]);
        let gone = StoreFault::Gone { nth, kind: ErrorKind::Lost };
        let share = FaultyStore::new(MemoryStore::clone(&system.store), [gone]);
        let outcome = open(share).and_then(|repository| system.restore(&disk, &repository));
        interrupted += u64::from(outcome.is_err());
        system.assert_not_half(&disk, &format!("{name}, {gone:?}"));
    }
    assert!(interrupted >= calls / 2, "{interrupted} of {calls}");
}

#[test]
fn what_is_right_already_is_not_written_and_costs_its_head_beside_what_is_not() {
    let system = System::new();
    let now = [OS, BOOT].map(|which| system.volumes[which].bytes.clone());
    let disk = Disk::new(&now, &[]);
    let outcomes = system.restore(&disk, &system.repository).unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.is_complete && outcome.written.is_zero()));
    assert!(outcomes.iter().all(|outcome| !outcome.matched.is_zero() && outcome.matched == outcome.compared));
    assert_eq!(disk.disk.inner().to_vec(), disk.before);

    let newer = [now[OS].clone(), later(NEAR, 2).disk.to_vec()];
    let outcomes = system.restore(&Disk::new(&newer, &[]), &system.repository).unwrap();
    let head: ByteLen = head(&system.volumes[OS].volume).iter().map(|extent| extent.len()).sum();
    let (written, most) = (outcomes[OS].written, ByteLen::new(head.get() + (2 << 16)));
    assert!(
        !written.is_zero() && written <= most,
        "{written} of a volume that was right, its head has {head}"
    );
    let content = |outcome: &Outcome| outcome.matched.get() + outcome.written.get();
    let fresh = Disk::new(&now.clone().map(|volume| vec![0; volume.len()]), &[]);
    let whole = system.restore(&fresh, &system.repository).unwrap();
    assert_eq!(content(&outcomes[OS]), content(&whole[OS]), "each byte was there or was written");
}

/// Two disks with MBR and boot code: a boot volume and two of a system, and one more of it.
struct Pair {
    folder: tempfile::TempDir,
    repository: Repository,
    manifest: Manifest,
    captured: [Vec<u8>; 2],
    masks: [ExtentSet; 2],
}

/// Where the volumes lie: disk, start, type, how they are laid out.
const PARTS: [(usize, u64, u8, Layout); 4] =
    [(0, 1 << 20, 0xEF, NEAR), (0, 4 << 20, 0x0C, FAR), (0, 8 << 20, 0x0C, NEAR), (1, 1 << 20, 0x0C, NEAR)];
const BOOT_CODE: Extent = Extent::first(ByteLen::new(440));
const GAP: u64 = 512;

/// The two disks, `newer` says of each volume whether it was used for another day.
fn pair(newer: [bool; 4], code: u8) -> [Vec<u8>; 2] {
    let mut disks = [vec![0; 12 << 20], vec![0; 4 << 20]];
    for (n, disk) in disks.iter_mut().enumerate() {
        disk[..440].fill(code);
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
        disk[440] = n as u8;
        disk[GAP as usize..][..20 * 512].fill(code);
    }
    let mut entries = [0; 2];
    for (n, (disk, start, kind, layout)) in PARTS.into_iter().enumerate() {
        let made = if newer[n] { later(layout, n as u64) } else { volume(layout, n as u64) };
        let bytes = made.disk.to_vec();
        let mut entry = vec![0, 0, 0, 0, kind, 0, 0, 0];
        entry.extend((start as u32 / 512).to_le_bytes());
        entry.extend((bytes.len() as u32).div_ceil(512).to_le_bytes());
        let at = 446 + 16 * entries[disk];
        disks[disk][at..at + 16].copy_from_slice(&entry);
        entries[disk] += 1;
        disks[disk][start as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    disks
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let captured = pair([false; 4], 0xC0);
        let paths = write(folder.path(), &captured);
        let repository = open(plain()).unwrap();
        let opened = paths.iter().zip(1..).map(|(path, n)| (n, survey::open(path, None).unwrap())).collect();
        let seen = survey::survey(opened, &Assigned::new()).unwrap();
        let manifest = capture::run(&repository, &seen, &options("m", None), &Silent::default()).unwrap();
        let roles: Vec<_> = manifest.volumes.iter().map(|volume| format!("{:?}", volume.role)).collect();
        assert_eq!(roles, ["Boot", "Os", "Os", "Os"]);
        let mut all = [0, 1].map(|_| [BOOT_CODE, extent(GAP, 20 * 512)].into_iter().collect::<ExtentSet>());
        for (volume, (disk, start, ..)) in manifest.volumes.iter().zip(PARTS) {
            let (mask, _) = masks(&repository, volume.map.as_ref().unwrap());
            all[disk].extend(mask.iter().map(|run| extent(start + run.start().get(), run.len().get())));
        }
        Self { folder, repository, manifest, captured, masks: all }
    }

    fn plan(&self, scope: Scope) -> Plan {
        let path = |n| self.folder.path().join(format!("disk{n}"));
        let request = Request {
            targets: vec![(1, path(0)), (2, path(1))],
            scope,
            volumes: Vec::new(),
            erase: Vec::new(),
            erase_files: true,
            erase_volumes: Vec::new(),
            repository: None,
        };
        plan::plan(&self.repository, &self.manifest, &request).unwrap()
    }

    fn restore(&self, scope: Scope, monitor: &dyn Monitor) -> Result<Report> {
        let how = Options { read_back: ReadBack::Yes, proof: Proof::Samples, protected: Protected::Refuse };
        restore::run(&self.repository, &self.plan(scope), how, monitor)
    }

    fn now(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|n| fs::read(self.folder.path().join(format!("disk{n}"))).unwrap())
    }

    fn is_whole(&self, now: &[Vec<u8>; 2]) -> bool {
        (0..2).all(|n| difference(&self.masks[n], &self.captured[n], &now[n]).is_none())
    }

    /// Restores onto `before` and stops at every moment at which somebody asks whether to; returns how many there were.
    fn stops(&self, name: &str, scope: Scope, before: &[Vec<u8>; 2]) -> u64 {
        write(self.folder.path(), before);
        let whole = Stop::at(u64::MAX);
        self.restore(scope, &whole).unwrap();
        assert!(self.is_whole(&self.now()), "{name}");
        let moments = whole.asked.load(Ordering::Relaxed);
        for nth in 1..=moments {
            write(self.folder.path(), before);
            let outcome = self.restore(scope, &Stop::at(nth));
            let (now, what) = (self.now(), format!("{name}, stopped at {nth} of {moments}"));
            match outcome {
                Ok(_) => assert!(self.is_whole(&now), "{what}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Cancelled, "{what}: {error:?}");
                    self.assert_unrecognised(scope, before, &now, &what);
                }
            }
            self.restore(scope, &Silent::default()).unwrap();
            assert!(self.is_whole(&self.now()), "{what}: run again");
        }
        moments
    }

    /// What was stopped is not whole either: a person was told so.
    fn assert_unrecognised(&self, scope: Scope, before: &[Vec<u8>; 2], now: &[Vec<u8>; 2], what: &str) {
        if now == before {
            return;
        }
        for (disk, start, kind, layout) in PARTS {
            let len = volume(layout, 0).disk.to_vec().len();
            let bytes = &now[disk][start as usize..][..len];
            let recognised = is_recognised(&MemoryDisk::from_bytes(bytes, SectorSize::B512));
            let has_table = now[disk][510..512] == [0x55, 0xAA];
            let counts = kind != 0xEF && (scope == Scope::InPlace || has_table);
            assert!(!(recognised && counts), "{what}: the volume at {start} of disk {disk} is recognised");
        }
    }
}

/// Writes the two disks into `folder`.
fn write(folder: &Path, disks: &[Vec<u8>; 2]) -> Vec<PathBuf> {
    let path = |(n, disk): (usize, &Vec<u8>)| {
        let path = folder.join(format!("disk{n}"));
        fs::write(&path, disk).unwrap();
        path
    };
    disks.iter().enumerate().map(path).collect()
}

/// Says "stop" from the n-th time on that it is asked.
struct Stop {
    asked: AtomicU64,
    at: u64,
}

impl Stop {
    fn at(at: u64) -> Self {
        Self { asked: AtomicU64::new(0), at }
    }
}

impl Monitor for Stop {
    fn phase(&self, _what: &str, _total: Option<ByteLen>) {}

    fn advance(&self, _done: ByteLen) {}

    fn spent(&self, _stage: Stage, _time: std::time::Duration) {}

    fn notice(&self, _message: &str) {}

    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1 >= self.at
    }
}

#[test]
fn a_plan_over_two_disks_stopped_at_any_moment_leaves_no_system_that_is_half_another() {
    let pair_of = Pair::new();
    let newer = pair([true; 4], 0xBB);
    let mut lost = newer.clone();
    for (disk, start, _, layout) in PARTS {
        let len = volume(layout, 0).disk.to_vec().len();
        lost[disk][start as usize..][..len].copy_from_slice(&Random::new(start).bytes(len));
    }
    lost.iter_mut().for_each(|disk| disk[..440].fill(0));
    let targets = [
        ("newer", newer.clone()),
        ("lost", lost),
        ("only the second disk is newer", pair([false, false, false, true], 0xC0)),
        ("only the boot code is newer", pair([false; 4], 0xBB)),
        ("only the boot volume is newer", pair([true, false, false, false], 0xC0)),
    ];
    for (name, before) in &targets {
        let moments = pair_of.stops(name, Scope::InPlace, before);
        println!("{name}: {moments} moments");
        assert!(moments > 5, "{name}");
    }
    let moments = pair_of.stops("made anew", Scope::BareMetal, &newer);
    println!("made anew: {moments} moments");
}

#[test]
fn a_plan_whose_volumes_and_boot_code_are_there_already_writes_nothing() {
    let pair = Pair::new();
    let report = pair.restore(Scope::InPlace, &Silent::default()).unwrap();
    assert_eq!(report.written_bytes, 0);
    assert!(pair.now() == pair.captured);
}
