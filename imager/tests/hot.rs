//! Captures of a machine that runs, against the instant that they say they are of. Something changes at every step.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
mod running;

use common::fat::Layout;
use common::random::Random;
use common::{open, plain, verify};
use imager::capture::hot::Limits;
use imager_image::manifest::{Consistency, Kind, Truth};
use imager_units::ErrorKind;
use netshare_store::{FaultyStore, MemoryStore, StoreFault};
use running::{Flaw, World};
use std::sync::Arc;

/// A few dozen blocks, more than fit into what memory there is at the instant.
fn layout(random: &mut Random) -> Layout {
    let cluster = 4096 << random.below(5);
    Layout { cluster, clusters: ((3 << 20) / cluster).min(300), ..Layout::SMALL }
}

/// Several captures of one machine; how many came about, and how many of them are wrong.
fn story(seed: u64, flaw: Flaw) -> (usize, usize) {
    let mut random = Random::new(seed);
    let world = World::new(seed, layout(&mut random), flaw);
    let (store, mut made, mut wrong) = (plain(), 0, 0);
    let kinds = [None, None, None, Some(Kind::Full), Some(Kind::Differential), Some(Kind::Copy)];
    for _ in 0..1 + random.below(4) {
        let repository = open(Arc::clone(&store)).unwrap();
        let busy = random.pick(&[0, 3, 10, 30, 45]);
        world.set_busy(busy);
        match world.capture(&repository, random.pick(&kinds)) {
            Ok(manifest) => {
                made += 1;
                assert_eq!(manifest.consistency, Consistency::Frozen);
                wrong += usize::from(world.first_difference(&repository, &manifest).is_some());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}"),
        }
        world.live(random.below(100));
    }
    verify(&open(store).unwrap());
    (made, wrong)
}

fn stories(count: u64, flaw: Flaw) -> (usize, usize) {
    let seed = Random::seed();
    println!("HALFHOUR_SEED={seed}, {count} stories");
    let mut total = (0, 0);
    for case in 0..count {
        let seed = seed.wrapping_add(case * 7919);
        let (made, wrong) = story(seed, flaw);
        if wrong > 0 && flaw == Flaw::None {
            panic!("{wrong} of {made} captures are wrong with HALFHOUR_SEED={seed}");
        }
        total = (total.0 + made, total.1 + wrong);
    }
    println!("{} captures, {} wrong", total.0, total.1);
    total
}

fn full() -> bool {
    std::env::var_os("HALFHOUR_FULL").is_some()
}

#[test]
fn whatever_changes_meanwhile_a_capture_is_the_instant_it_was_frozen() {
    let (made, wrong) = stories(if full() { 5000 } else { 100 }, Flaw::None);
    assert!(made > 100 && wrong == 0);
}

#[test]
fn marks_at_issue_alone_stale_reads_or_no_first_freeze_would_be_noticed() {
    for flaw in [Flaw::MarksAtIssueOnly, Flaw::StaleReads, Flaw::NoFirstFreeze] {
        let (made, wrong) = stories(30, flaw);
        assert!(wrong > 0, "{flaw:?}: none of {made} captures is wrong");
    }
}

/// A machine at rest with a capture, and a share.
fn at_rest() -> (World, Arc<MemoryStore>) {
    let layout = Layout { cluster: 65_536, clusters: 2000, reserved: 3200, backup: 3100, ..Layout::SMALL };
    let (world, store) = (World::new(3, layout, Flaw::None), plain());
    world.set_busy(0);
    (2..1900).for_each(|cluster| world.write_cluster(cluster));
    world.capture(&open(Arc::clone(&store)).unwrap(), None).unwrap();
    (world, store)
}

#[test]
fn a_delta_reads_what_is_marked_and_little_else() {
    let (world, store) = at_rest();
    let repository = open(store).unwrap();
    (100..119).for_each(|cluster| world.write_cluster(cluster));
    world.free_cluster(700);
    let manifest = world.capture(&repository, None).unwrap();
    let volume = &manifest.volumes[0];
    assert_eq!((volume.truth, volume.consistency), (Truth::Journal, Some(Consistency::Frozen)));
    // Nineteen blocks, the tables, and what the two harvests around them have of those again.
    let blocks = volume.cost.read_bytes >> 16;
    println!("{blocks} blocks read, {} audited", volume.cost.audited_bytes >> 16);
    assert!((19..60).contains(&blocks), "{blocks}");
    assert!((1..=100).contains(&(volume.cost.audited_bytes >> 16)));
    assert_eq!(world.first_difference(&repository, &manifest), None);
}

#[test]
fn a_write_that_the_journal_missed_is_found_by_the_audit_and_everything_is_compared() {
    let (world, store) = at_rest();
    let repository = open(store).unwrap();
    let backup = world.backup().start().get();
    world.write_unseen(backup + 90, b"other code");
    world.write_unseen(1500 << 16, b"elsewhere, too");
    let manifest = world.capture(&repository, None).unwrap();
    assert_eq!(manifest.volumes[0].truth, Truth::Compare);
    assert_eq!(world.first_difference(&repository, &manifest), None);
    assert!(manifest.problems.iter().any(|problem| problem.message.contains("missed a write")));
    // It begins anew with this capture.
    let manifest = world.capture(&repository, None).unwrap();
    assert_eq!((manifest.volumes[0].truth, manifest.problems.len()), (Truth::Journal, 0));
}

#[test]
fn cursors_are_kept_for_the_newest_and_the_newest_full_and_a_copy_moves_none() {
    let (world, store) = at_rest();
    let repository = open(store).unwrap();
    let full = world.cursors();
    world.write_cluster(40);
    let copy = world.capture(&repository, Some(Kind::Copy)).unwrap();
    assert_eq!((copy.volumes[0].truth, world.cursors()), (Truth::Journal, full.clone()));
    world.write_cluster(41);
    let next = world.capture(&repository, None).unwrap();
    assert_eq!((next.parent.unwrap().to_string(), next.volumes[0].truth), (full[0].clone(), Truth::Journal));
    assert_eq!(world.cursors().len(), 2);
    world.write_cluster(42);
    let differential = world.capture(&repository, Some(Kind::Differential)).unwrap();
    assert_eq!(differential.volumes[0].truth, Truth::Journal);
    assert_eq!(differential.parent.unwrap().to_string(), full[0]);
    assert!(world.cursors().contains(&full[0]) && !world.cursors().contains(&next.header.id.to_string()));
    let last = world.capture(&repository, Some(Kind::Full)).unwrap();
    assert_eq!(world.cursors(), [last.header.id.to_string()]);
    assert_eq!(world.first_difference(&repository, &last), None);
}

#[test]
fn a_machine_that_writes_too_fast_is_an_error_and_no_image() {
    let layout = Layout { cluster: 65_536, clusters: 300, ..Layout::SMALL };
    let (world, store) = (World::new(5, layout, Flaw::None), plain());
    let repository = open(store).unwrap();
    world.set_busy(93);
    let limits = Limits { passes: 4, freezes: 3, ..Limits::default() };
    let error = world.capture_with(&repository, None, limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("writes faster"), "{error}");
    assert!(verify(&repository).is_empty() && world.cursors().is_empty());
}

#[test]
fn a_share_that_fails_at_any_call_moves_no_cursor_and_the_next_capture_is_right() {
    let layout = Layout { cluster: 16_384, clusters: 60, ..Layout::SMALL };
    let (mut failed, step) = (0, if full() { 1 } else { 2 });
    for at in (1..).step_by(step) {
        let (world, store) = (World::new(at, layout, Flaw::None), plain());
        world.set_busy(10);
        world.capture(&open(Arc::clone(&store)).unwrap(), None).unwrap();
        let (before, listed) = (world.cursors(), verify(&open(Arc::clone(&store)).unwrap()).len());
        world.live(30);
        let share =
            FaultyStore::new(Arc::clone(&store), [StoreFault::Gone { nth: at, kind: ErrorKind::Lost }]);
        let done = open(share).and_then(|repository| world.capture(&repository, None));
        let repository = open(Arc::clone(&store)).unwrap();
        let now = verify(&repository).len();
        match &done {
            Ok(manifest) => assert_eq!(world.first_difference(&repository, manifest), None, "{at}"),
            Err(_) => failed += 1,
        }
        if now == listed {
            assert_eq!(world.cursors(), before, "{at}");
        }
        world.live(30);
        let next = world.capture(&repository, None).unwrap();
        assert_eq!(world.first_difference(&repository, &next), None, "{at}: after {done:?}");
        if done.is_ok() && at > 40 {
            break;
        }
    }
    println!("{failed} of them failed");
    assert!(failed > 8);
}
