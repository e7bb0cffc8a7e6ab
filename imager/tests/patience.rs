//! Whole operations over a share that fails again and again, asked again with patience: all succeed, and when the
//! patience is over nothing half done is visible.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::fat::{FatVolume, Layout};
use common::random::Random;
use common::{capture, difference, listed, open, plain, restore, verify};
use imager_disk::{MemoryDisk, ReadAt};
use imager_units::{ErrorKind, SectorSize};
use netshare_store::{Clock, FaultyStore, MemoryStore, Nobody, Retry, StoreFault, TestClock};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(600);

fn volume() -> FatVolume {
    let volume = FatVolume::new(Layout::SMALL);
    let mut random = Random::new(11);
    for cluster in (2..400).filter(|cluster| cluster % 17 < 9) {
        volume.put(cluster, &random.bytes(4096));
    }
    volume
}

type Share = Retry<FaultyStore<Arc<MemoryStore>>>;

fn share(store: &Arc<MemoryStore>, faults: impl IntoIterator<Item = StoreFault>) -> Arc<Share> {
    let faulty = FaultyStore::new(Arc::clone(store), faults);
    let clock: Arc<dyn Clock> = Arc::new(TestClock::new(1));
    Arc::new(Retry::with_clock(faulty, PATIENCE, Arc::new(Nobody), clock))
}

fn blank(like: &MemoryDisk) -> MemoryDisk {
    let size = like.geometry().size.to_usize().unwrap();
    MemoryDisk::from_bytes(&Random::new(3).bytes(size), SectorSize::B512)
}

/// Captures twice, restores and verifies over a share with such faults.
fn a_days_work(store: &Arc<MemoryStore>, faults: &dyn Fn() -> Vec<StoreFault>) -> u64 {
    let volume = volume();
    let capturing = share(store, faults());
    capture(&open(Arc::clone(&capturing)).unwrap(), volume.snapshot(), None).unwrap();
    volume.put(12, &Random::new(12).bytes(4096));
    let after = volume.snapshot();
    let manifest = capture(&open(Arc::clone(&capturing)).unwrap(), after.clone(), None).unwrap();

    let reading = share(store, faults());
    let repository = open(Arc::clone(&reading)).unwrap();
    let target = blank(&after);
    let outcome = restore(&repository, &manifest, &target).unwrap();
    assert!(outcome.is_complete && outcome.unreadable.is_empty());
    let used = imager_volume::used(&after).unwrap().extents;
    assert_eq!(difference(&used, &after.to_vec(), &target.to_vec()), None);
    verify(&repository);
    assert_eq!(listed(&repository).len(), 2);
    capturing.inner().calls() + reading.inner().calls()
}

#[test]
fn every_second_and_every_nth_call_fails_and_everything_succeeds() {
    for every in [2, 3, 5, 7, 13] {
        let store = plain();
        let calls = a_days_work(&store, &|| vec![StoreFault::Often { every }]);
        assert!(calls > 20, "{calls} calls");
    }
}

#[test]
fn every_answer_but_the_last_of_each_call_is_lost() {
    let io = ErrorKind::Io;
    for step in [2, 3] {
        let lost = move || {
            (1..2000)
                .filter(move |nth| nth % step > 0)
                .map(move |nth| StoreFault::FailsAfter { nth, kind: io })
        };
        a_days_work(&plain(), &|| lost().collect());
    }
}

#[test]
fn every_listing_breaks_off() {
    let breaks = || (1..2000).filter(|nth| nth % 3 > 0).map(|nth| StoreFault::Breaks { nth, after: 1 });
    a_days_work(&plain(), &|| breaks().collect());
}

#[test]
fn when_the_patience_is_over_nothing_is_half_published_and_the_next_run_succeeds() {
    let disk = volume().snapshot();
    let calls = {
        let store = plain();
        let share = share(&store, []);
        capture(&open(Arc::clone(&share)).unwrap(), disk.clone(), None).unwrap();
        share.inner().calls()
    };
    for nth in 1..=calls {
        let store = plain();
        let gone = share(&store, [StoreFault::Gone { nth, kind: ErrorKind::Io }]);
        let error = match open(Arc::clone(&gone)).and_then(|share| capture(&share, disk.clone(), None)) {
            Err(error) => error,
            // Ids are random, and with them whether there is an index to store: this one was done before.
            Ok(_) => {
                assert!(gone.inner().calls() < nth, "call {nth} failed and nobody noticed");
                continue;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Lost, "call {nth}: {error:?}");
        let repository = open(Arc::clone(&store)).unwrap();
        assert!(listed(&repository).is_empty(), "call {nth}");
        let manifest = capture(&repository, disk.clone(), None).unwrap();
        let target = blank(&disk);
        assert!(restore(&repository, &manifest, &target).unwrap().is_complete);
    }
    // The same from the other side: a restore that loses its share is run again.
    let store = plain();
    let manifest = capture(&open(Arc::clone(&store)).unwrap(), disk.clone(), None).unwrap();
    let target = blank(&disk);
    let mut lost = 0;
    for nth in 1.. {
        let gone = share(&store, [StoreFault::Gone { nth, kind: ErrorKind::Io }]);
        match open(gone).and_then(|share| restore(&share, &manifest, &target)) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Lost, "call {nth}: {error:?}"),
            Ok(outcome) if outcome.is_complete => break,
            Ok(outcome) => panic!("call {nth}: {outcome:?}"),
        }
        lost += 1;
    }
    assert!(lost > 2, "{lost} restores were cut off");
    let used = imager_volume::used(&disk).unwrap().extents;
    assert_eq!(difference(&used, &disk.to_vec(), &target.to_vec()), None);
}
