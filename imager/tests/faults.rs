//! Every operation on a disk or a share fails once, at every place: what is left is never half of anything.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::cast_possible_truncation, reason = "volumes made here fit into memory")]

mod common;

use common::fat::{FatVolume, Layout};
use common::random::Random;
use common::{
    capture, difference, extent, is_recognised, listed, masks, open, plain, range, restore, verify,
    verify_listed,
};
use imager::repository::Repository;
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt, Unflushed, Window, WriteAt};
use imager_image::manifest::{Kind, Manifest};
use imager_units::{ByteLen, ErrorKind, Extent, ExtentSet, SectorSize};
use netshare_store::{FaultyStore, MemoryStore, Store, StoreFault};
use std::sync::Arc;

/// A backup of the boot sector behind the first mebibyte, clusters of every kind on both sides of it.
fn volume() -> FatVolume {
    let volume = FatVolume::new(Layout { reserved: 3200, backup: 3100, ..Layout::SMALL });
    let mut random = Random::new(7);
    for cluster in (2..400).filter(|cluster| cluster % 17 < 9 || (170..210).contains(cluster)) {
        let content = if cluster % 5 == 0 { vec![0; 4096] } else { random.bytes(4096) };
        volume.put(cluster, &content);
    }
    // Left over from deleted files.
    volume.write(volume.cluster(12).start().get(), &random.bytes(4096));
    volume
}

/// What a day of use does to it.
fn change(volume: &FatVolume) {
    let mut random = Random::new(8);
    for cluster in [3, 100, 101, 300] {
        volume.put(cluster, &random.bytes(4096));
    }
    volume.set_used(4, false);
    volume.put(12, &[0; 4096]);
}

/// A repository with one capture of the volume.
fn with_one_capture(volume: &FatVolume) -> (Arc<MemoryStore>, Manifest) {
    let store = plain();
    let manifest = capture(&open(Arc::clone(&store)).unwrap(), volume.snapshot(), None).unwrap();
    (store, manifest)
}

/// A copy of a share.
fn copy(store: &Arc<MemoryStore>) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::clone(store))
}

/// A capture puts this back where it counts.
fn assert_restores(store: &Arc<MemoryStore>, manifest: &Manifest, expected: &MemoryDisk) {
    let repository = open(Arc::clone(store)).unwrap();
    let size = expected.geometry().size.to_usize().unwrap();
    let target = MemoryDisk::from_bytes(&Random::new(3).bytes(size), SectorSize::B512);
    let outcome = restore(&repository, manifest, &target).unwrap();
    assert!(outcome.is_complete && outcome.unreadable.is_empty());
    let used = imager_volume::used(expected).unwrap().extents;
    assert_eq!(difference(&used, &expected.to_vec(), &target.to_vec()), None);
}

fn store_faults(nth: u64) -> [StoreFault; 7] {
    let (io, full) = (ErrorKind::Io, ErrorKind::OutOfSpace);
    [
        StoreFault::Fails { nth, kind: io },
        StoreFault::Fails { nth, kind: full },
        StoreFault::FailsAfter { nth, kind: io },
        StoreFault::Gone { nth, kind: io },
        StoreFault::Gone { nth, kind: ErrorKind::Lost },
        StoreFault::Truncates { nth, len: ByteLen::ZERO },
        StoreFault::Truncates { nth, len: ByteLen::new(100) },
    ]
}

/// Runs a second capture with every fault at every call; returns how many failed.
fn every_call_of_a_capture_fails(kind: Option<Kind>) -> (u64, u64) {
    let volume = volume();
    let (base, first) = with_one_capture(&volume);
    let before = volume.snapshot();
    change(&volume);
    let after = volume.snapshot();
    let calls = {
        let share = Arc::new(FaultyStore::new(copy(&base), []));
        capture(&open(Arc::clone(&share)).unwrap(), after.clone(), kind).unwrap();
        share.calls()
    };
    let (mut runs, mut failures) = (0, 0);
    for nth in 1..=calls {
        for fault in store_faults(nth) {
            let store = copy(&base);
            let attempt = open(FaultyStore::new(Arc::clone(&store), [fault]))
                .and_then(|repository| capture(&repository, after.clone(), kind));
            runs += 1;
            failures += u64::from(attempt.is_err());
            // Whatever is published is whole. A manifest whose put succeeded and whose answer was lost is published.
            let repository = open(Arc::clone(&store)).unwrap();
            assert_only_cut_manifests_are_damaged(&repository);
            let published = verify_listed(&repository);
            let answer_lost = matches!(fault, StoreFault::FailsAfter { .. });
            let expected = 1 + usize::from(attempt.is_ok() || (answer_lost && published.len() == 2));
            assert_eq!(published.len(), expected, "{fault:?}: {attempt:?}");
            assert_eq!(published[0].header.id, first.header.id);
            if let Ok(manifest) = &attempt {
                assert_restores(&store, manifest, &after);
            }
            let again = capture(&repository, after.clone(), kind)
                .unwrap_or_else(|error| panic!("the next run after {fault:?}: {error:?}"));
            assert!(again.header.sequence > published.last().unwrap().header.sequence, "{fault:?}");
            assert_restores(&store, &again, &after);
            assert_restores(&store, &first, &before);
            verify_listed(&repository);
        }
    }
    (runs, failures)
}

/// A share that leaves part of an object under its name may do so with a manifest, too: it is then damaged, and no
/// more than that.
fn assert_only_cut_manifests_are_damaged(repository: &Repository) {
    for listed in listed(repository) {
        let kind = listed.manifest.as_ref().err().map(imager_units::Error::kind);
        assert!(matches!(kind, None | Some(ErrorKind::Corrupt)), "{:?}", listed.manifest);
    }
}

#[test]
fn a_capture_on_a_share_that_fails_at_any_call_publishes_all_or_nothing() {
    for kind in [None, Some(Kind::Full)] {
        let (runs, failures) = every_call_of_a_capture_fails(kind);
        println!("{kind:?}: {runs} runs, {failures} failed");
        assert!(failures > runs / 2);
    }
}

#[test]
fn a_disk_that_fails_at_any_read_is_captured_all_the_same_or_not_at_all() {
    let volume = volume();
    let (base, first) = with_one_capture(&volume);
    let before = volume.snapshot();
    change(&volume);
    let operations = {
        let disk = Arc::new(FaultyDisk::new(volume.snapshot(), []));
        capture(&open(copy(&base)).unwrap(), Arc::clone(&disk), None).unwrap();
        disk.operations()
    };
    for nth in 1..=operations {
        for power in [false, true] {
            let unflushed = Unflushed::Kept;
            let fault = if power { Fault::PowerLost { nth, unflushed } } else { Fault::Once { nth } };
            let store = copy(&base);
            let repository = open(Arc::clone(&store)).unwrap();
            let result = capture(&repository, FaultyDisk::new(volume.snapshot(), [fault]), None);
            let published = verify(&repository);
            assert_eq!(published.len(), 1 + usize::from(result.is_ok()), "{fault:?}");
            match result {
                // A single failed read is tried again.
                Ok(manifest) if !power => {
                    assert_eq!(manifest.problems, []);
                    assert_restores(&store, &manifest, &volume.disk);
                }
                Ok(manifest) => assert!(!manifest.problems.is_empty(), "{fault:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{fault:?}: {error:?}"),
            }
            let again = capture(&repository, volume.snapshot(), None).unwrap();
            assert_eq!(again.problems, []);
            assert_restores(&store, &again, &volume.disk);
            assert_restores(&store, &first, &before);
        }
    }
}

/// A disk with the volume in its middle and something that must not be touched on both sides.
struct Surrounded {
    disk: Arc<FaultyDisk<MemoryDisk>>,
    window: Extent,
    before: Vec<u8>,
}

const MARGIN: u64 = 300_000;

impl Surrounded {
    fn new(content: &[u8], faults: &[Fault]) -> Self {
        let mut random = Random::new(11);
        let mut bytes = random.bytes(MARGIN as usize);
        bytes.extend_from_slice(content);
        bytes.extend(random.bytes(MARGIN as usize));
        let disk = MemoryDisk::from_bytes(&bytes, SectorSize::B512);
        let disk = Arc::new(FaultyDisk::new(disk, faults.iter().copied()));
        Self { disk, window: extent(MARGIN, content.len() as u64), before: bytes }
    }

    fn target(&self) -> Window<&FaultyDisk<MemoryDisk>> {
        Window::part(&*self.disk, self.window).unwrap()
    }

    /// The bytes of the volume as the medium has them.
    fn volume(&self) -> Vec<u8> {
        self.disk.inner().to_vec()[range(self.window)].to_vec()
    }

    /// What is beside the volume is as it was; inside, what does not count is as it was or cleared.
    fn assert_only_planned_writes(&self, mask: &ExtentSet, what: &str) {
        let now = self.disk.inner().to_vec();
        let inside = range(self.window);
        assert!(now[..inside.start] == self.before[..inside.start], "{what}: before the volume");
        assert!(now[inside.end..] == self.before[inside.end..], "{what}: behind the volume");
        let (now, before) = (&now[inside.clone()], &self.before[inside]);
        for gap in mask.complement(Extent::first(self.window.len())).iter() {
            let wrong = range(gap).find(|&at| now[at] != before[at] && now[at] != 0);
            assert_eq!(wrong, None, "{what}: a byte that does not count was given a value");
        }
    }
}

/// Whether the volume is what was captured, wherever it counts.
fn is_whole(captured: &Captured, bytes: &[u8]) -> bool {
    difference(&captured.mask, &captured.bytes, bytes).is_none()
}

struct Captured {
    store: Arc<MemoryStore>,
    manifest: Manifest,
    bytes: Vec<u8>,
    mask: ExtentSet,
    backup: Extent,
}

fn captured() -> Captured {
    let volume = volume();
    let (store, manifest) = with_one_capture(&volume);
    let repository = open(Arc::clone(&store)).unwrap();
    let (mask, _) = masks(&repository, manifest.volumes[0].map.as_ref().unwrap());
    Captured { store, manifest, bytes: volume.disk.to_vec(), mask, backup: volume.backup() }
}

/// What a disk may hold before it is restored.
fn targets(captured: &Captured) -> Vec<(&'static str, Vec<u8>)> {
    let size = captured.bytes.len();
    let junk = Random::new(5).bytes(size);
    let later = volume();
    change(&later);
    // The body of one and the head of the other: what an interrupted restore without order would leave.
    let mut headless = captured.bytes.clone();
    headless[..1 << 20].fill(0);
    let mut only_body_differs = captured.bytes.clone();
    only_body_differs[3 << 20..].fill(0xEE);
    vec![
        ("junk", junk),
        ("a later state", later.disk.to_vec()),
        ("no head", headless),
        ("a right head on a wrong body", only_body_differs),
        ("zeros", vec![0; size]),
    ]
}

fn disk_faults(nth: u64) -> [Fault; 7] {
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

/// After a restore that was cut short: a volume that anything would recognise is whole.
fn assert_not_half(captured: &Captured, after: &Surrounded, what: &str) {
    let bytes = after.volume();
    let recognised = is_recognised(&after.target());
    let is_untouched = after.disk.inner().to_vec() == after.before;
    if recognised && !is_untouched {
        assert!(is_whole(captured, &bytes), "{what}: recognisable and not whole");
    }
    let backup = range(captured.backup);
    let wanted = &captured.bytes[backup.clone()];
    if bytes[backup.clone()] == *wanted && after.before[range(after.window)][backup] != *wanted {
        // The copy of the superblock may come back only when all but the head's first blocks are there.
        let first = ExtentSet::from(extent(0, 128 << 10));
        let rest = captured.mask.difference(&first);
        let at = difference(&rest, &captured.bytes, &bytes);
        assert_eq!(at, None, "{what}: a superblock's copy on a volume that is not whole");
    }
}

#[test]
fn a_restore_cut_short_at_any_operation_leaves_nothing_that_looks_whole_and_is_not() {
    let captured = captured();
    let repository = open(Arc::clone(&captured.store)).unwrap();
    let (mut runs, mut whole, mut later_whole) = (0, 0, 0);
    for (name, content) in targets(&captured) {
        let operations = {
            let target = Surrounded::new(&content, &[]);
            restore(&repository, &captured.manifest, &target.target()).unwrap();
            assert!(is_whole(&captured, &target.volume()));
            target.assert_only_planned_writes(&captured.mask, name);
            target.disk.operations()
        };
        for nth in 1..=operations {
            for fault in disk_faults(nth) {
                let what = format!("{name}, {fault:?} of {operations}");
                let target = Surrounded::new(&content, &[fault]);
                let outcome = restore(&repository, &captured.manifest, &target.target());
                if matches!(fault, Fault::PowerLost { .. }) {
                    target.disk.power_cycle().unwrap();
                }
                runs += 1;
                match &outcome {
                    Ok(outcome) => {
                        assert!(outcome.is_complete && outcome.unreadable.is_empty(), "{what}");
                        assert!(is_whole(&captured, &target.volume()), "{what}: it was said to be complete");
                        whole += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error:?}");
                        assert_not_half(&captured, &target, &what);
                        later_whole += u64::from(is_recognised(&target.target()));
                    }
                }
                target.assert_only_planned_writes(&captured.mask, &what);
                let again = Surrounded { disk: Arc::clone(&target.disk), ..target };
                again.disk.power_cycle().unwrap();
                let outcome = restore(&repository, &captured.manifest, &again.target()).unwrap();
                assert!(outcome.is_complete, "{what}");
                assert!(is_whole(&captured, &again.volume()), "{what}: not whole after it was run again");
                again.assert_only_planned_writes(&captured.mask, &what);
            }
        }
    }
    println!(
        "{runs} restores: {whole} complete in spite of the fault, {later_whole} failed when all was written"
    );
}

#[test]
fn a_share_that_fails_at_any_call_of_a_restore_leaves_nothing_that_looks_whole_and_is_not() {
    let captured = captured();
    let (name, content) = targets(&captured).swap_remove(0);
    let calls = {
        let share = Arc::new(FaultyStore::new(copy(&captured.store), []));
        let repository = open(Arc::clone(&share)).unwrap();
        restore(&repository, &captured.manifest, &Surrounded::new(&content, &[]).target()).unwrap();
        share.calls()
    };
    for nth in 1..=calls {
        for fault in store_faults(nth) {
            let what = format!("{name}, {fault:?}");
            let target = Surrounded::new(&content, &[]);
            let share = FaultyStore::new(copy(&captured.store), [fault]);
            let outcome =
                open(share).and_then(|repository| restore(&repository, &captured.manifest, &target.target()));
            match outcome {
                Ok(outcome) if outcome.is_complete => {
                    assert!(is_whole(&captured, &target.volume()), "{what}");
                }
                _ => assert!(!is_recognised(&target.target()), "{what}"),
            }
            target.assert_only_planned_writes(&captured.mask, &what);
            let repository = open(Arc::clone(&captured.store)).unwrap();
            assert!(restore(&repository, &captured.manifest, &target.target()).unwrap().is_complete);
            assert!(is_whole(&captured, &target.volume()), "{what}");
        }
    }
}

#[test]
fn a_volume_that_is_right_already_is_not_written() {
    let captured = captured();
    let repository = open(Arc::clone(&captured.store)).unwrap();
    let target = Surrounded::new(&captured.bytes, &[]);
    let outcome = restore(&repository, &captured.manifest, &target.target()).unwrap();
    assert!(outcome.is_complete && outcome.written.is_zero());
    assert_eq!(target.disk.inner().to_vec(), target.before);
}

#[test]
fn a_head_that_cannot_be_read_on_the_target_is_written() {
    let captured = captured();
    let repository = open(Arc::clone(&captured.store)).unwrap();
    let content = Random::new(5).bytes(captured.bytes.len());
    // The drive maps a bad sector anew when it is written: the first reads fail.
    for at in [0, 4096, 1 << 20, 3 << 20] {
        let flaky = Fault::Flaky { extent: extent(MARGIN + at, 512), reads: 1 };
        let target = Surrounded::new(&content, &[flaky]);
        let outcome = restore(&repository, &captured.manifest, &target.target()).unwrap();
        assert!(outcome.is_complete && is_whole(&captured, &target.volume()), "{at:#x}");
    }
}

#[test]
fn only_the_wanted_part_of_a_map_is_written() {
    let captured = captured();
    let repository = open(Arc::clone(&captured.store)).unwrap();
    let content = Random::new(5).bytes(captured.bytes.len());
    let mut random = Random::new(23);
    for round in 0..40 {
        let target = Surrounded::new(&content, &[]);
        let end = content.len() as u64;
        let only: ExtentSet = (0..=random.below(4))
            .map(|_| {
                let (a, b) = (random.below(end), random.below(end));
                let grain = if round % 2 == 0 { 1 << 16 } else { 512 };
                let (a, b) = (a.min(b) / grain * grain, (a.max(b) / grain * grain).max(grain));
                extent(a.min(b), b - a.min(b))
            })
            .collect();
        let job = imager::restore::volume::Job {
            label: "part".to_owned(),
            map: captured.manifest.volumes[0].map.as_ref().unwrap(),
            target: &target.target(),
            head: ExtentSet::new(),
            only: Some(only.clone()),
            read_back: imager::restore::volume::ReadBack::No,
        };
        imager::restore::volume::run(&repository, &job, &imager::monitor::Silent::default()).unwrap();
        let now = target.volume();
        let wanted = captured.mask.intersection(&only);
        assert_eq!(difference(&wanted, &captured.bytes, &now), None, "round {round}");
        let outside = only.complement(Extent::first(ByteLen::of(&content)));
        assert_eq!(difference(&outside, &content, &now), None, "round {round}");
        target.assert_only_planned_writes(&captured.mask, "part");
    }
}

#[test]
fn a_share_without_room_publishes_nothing_and_goes_on_once_there_is() {
    let volume = volume();
    let store = plain();
    for nth in 1..40 {
        let kind = ErrorKind::OutOfSpace;
        let full = FaultyStore::new(Arc::clone(&store), [StoreFault::Gone { nth, kind }]);
        match open(full).and_then(|repository| capture(&repository, volume.snapshot(), None)) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), kind),
        }
        assert_eq!(verify(&open(Arc::clone(&store)).unwrap()), []);
    }
    let manifest = capture(&open(Arc::clone(&store)).unwrap(), volume.snapshot(), None).unwrap();
    assert_restores(&store, &manifest, &volume.disk);
}

#[test]
fn a_repository_that_could_not_be_made_is_made_by_the_next_run() {
    let calls = {
        let share = Arc::new(FaultyStore::new(MemoryStore::new(), []));
        Repository::create(Arc::clone(&share) as Arc<dyn Store>, None).unwrap();
        share.calls()
    };
    for nth in 1..=calls {
        for fault in store_faults(nth) {
            let store = Arc::new(MemoryStore::new());
            let first = Repository::create(Arc::new(FaultyStore::new(Arc::clone(&store), [fault])), None);
            let again = Repository::create(Arc::clone(&store) as Arc<dyn Store>, None);
            match (&first, &again) {
                (Err(_), Ok(_)) => {}
                // It was made, whether we were told or not; or half its description lies there.
                (_, Err(error)) => assert_eq!(error.kind(), ErrorKind::Exists, "{fault:?}"),
                (Ok(_), Ok(_)) => panic!("{fault:?}: made twice"),
            }
            match open(Arc::clone(&store)) {
                Ok(repository) => {
                    capture(&repository, volume().snapshot(), None).unwrap();
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{fault:?}");
                    assert!(matches!(fault, StoreFault::Truncates { .. }) && nth == calls);
                }
            }
        }
    }
}

#[test]
fn a_target_that_loses_the_flush_is_not_complete() {
    let captured = captured();
    let repository = open(Arc::clone(&captured.store)).unwrap();
    let content = Random::new(5).bytes(captured.bytes.len());
    struct NoFlush<D>(D);
    impl<D: ReadAt> ReadAt for NoFlush<D> {
        fn geometry(&self) -> imager_disk::Geometry {
            self.0.geometry()
        }
        fn read_exact_at(
            &self,
            offset: imager_units::ByteOffset,
            buf: &mut [u8],
        ) -> imager_units::Result<()> {
            self.0.read_exact_at(offset, buf)
        }
    }
    impl<D: WriteAt> WriteAt for NoFlush<D> {
        fn write_all_at(&self, offset: imager_units::ByteOffset, bytes: &[u8]) -> imager_units::Result<()> {
            self.0.write_all_at(offset, bytes)
        }
        fn zero(&self, extent: Extent) -> imager_units::Result<()> {
            self.0.zero(extent)
        }
        fn flush(&self) -> imager_units::Result<()> {
            Err(imager_units::Error::new(ErrorKind::Io, "the cache was not written"))
        }
    }
    let target = Surrounded::new(&content, &[]);
    let error = restore(&repository, &captured.manifest, &NoFlush(target.target())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(!is_recognised(&target.target()));
}
