//! Captures go by rules, and space comes back: what is needed stays readable before, during and after.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
mod pruned;

use common::fat::FatVolume;
use common::{difference, entries, names, open, plain, restore};
use imager::captures;
use imager::prune::{self, Options};
use imager::verify::{Depth, Mark};
use imager_disk::{MemoryDisk, ReadAt};
use imager_image::manifest::Manifest;
use imager_image::moved::{Moved, MovedFrame};
use imager_image::node::{Content, Entry, Location};
use imager_image::{CaptureId, Compression, names as grammar};
use imager_units::{ErrorKind, SectorSize};
use netshare_store::{MemoryStore, Store};
use pruned::{
    KIB_64, assert_sound, check, fill, last, noise, object, objects, pack_bytes, settle, take, try_capture,
};
use std::sync::Arc;

fn prune(store: &Arc<MemoryStore>, options: &Options) -> prune::Report {
    pruned::prune(Arc::clone(store), options)
}

/// A capture that has begun, and where its manifest will be.
fn begin(store: &MemoryStore, n: u8) -> (CaptureId, String) {
    let id = CaptureId([n; 16]);
    let manifest = grammar::manifest("m", "20260101T000000Z", id);
    let lease = format!("{{\"manifest\":\"{manifest}\",\"machine\":\"m\"}}");
    store.put(&object(&grammar::lease(id)), lease.as_bytes()).unwrap();
    (id, manifest)
}

#[test]
fn what_removed_captures_alone_needed_comes_back_with_the_next_prune() {
    let (store, volume) = (plain(), noise(1, 40));
    take(Arc::clone(&store), "m", &volume);
    fill(&volume, 2, 2..42);
    let second = take(Arc::clone(&store), "m", &volume);
    let before = pack_bytes(&*store);
    let report = prune(&store, &last(1));
    assert_eq!((report.removed.len(), report.deleted_packs), (1, 0), "{report:?}");
    assert!(report.waiting_bytes >= 40 * KIB_64);
    assert!(pack_bytes(&*store) >= before, "a reader of what was removed still finds it");
    let report = prune(&store, &last(1));
    assert!(report.deleted_bytes >= 40 * KIB_64, "{report:?}");
    settle(&store);
    assert_sound(&store, "after");
    let fresh = plain();
    take(Arc::clone(&fresh), "m", &volume);
    let (left, least) = (pack_bytes(&*store), pack_bytes(&*fresh));
    // A frame moves whole, whatever of it is needed.
    assert!(left <= least + 256 * 1024, "{left} bytes, a fresh repository has {least}");
    for folder in ["trash", "prunes", "leases", "damaged"] {
        assert_eq!(names(&*store, folder), Vec::<String>::new());
    }
    let target = MemoryDisk::new(volume.disk.geometry().size, SectorSize::B512);
    assert!(restore(&open(Arc::clone(&store)).unwrap(), &second, &target).unwrap().is_complete);
    assert_eq!(difference(&volume.mask(), &volume.disk.to_vec(), &target.to_vec()), None);
}

#[test]
fn captures_under_way_hold_back_what_they_may_rely_on() {
    let (store, volume) = (plain(), noise(3, 20));
    take(Arc::clone(&store), "m", &volume);
    fill(&volume, 4, 2..22);
    take(Arc::clone(&store), "m", &volume);
    let (id, _) = begin(&store, 7);
    for _ in 0..3 {
        assert_eq!(prune(&store, &last(1)).deleted_packs, 0);
    }
    // One that began after the tombstones holds nothing back.
    let (later, _) = begin(&store, 8);
    let repository = open(Arc::clone(&store)).unwrap();
    let plan = prune::plan(&repository, &last(1), &imager::monitor::Silent::default()).unwrap().report();
    let held = |id| plan.leases.iter().find(|lease| lease.capture == id).unwrap().holds_back_bytes;
    assert!(held(id) >= 20 * KIB_64 && held(later) == 0, "{plan:?}");
    let broken = Options { break_leases: vec![id], ..last(1) };
    let report = prune(&store, &broken);
    assert_eq!(report.broken, [id]);
    assert!(report.deleted_bytes >= 20 * KIB_64, "{report:?}");
    assert_sound(&store, "after");
}

#[test]
fn a_revoked_capture_never_appears_and_one_that_was_in_time_stays() {
    let (store, volume) = (plain(), noise(5, 10));
    let manifest = take(Arc::clone(&store), "m", &volume);
    let (id, name) = begin(&store, 9);
    prune::break_lease(&open(Arc::clone(&store)).unwrap(), id).unwrap();
    let late = store.put(&object(&name), b"a manifest that comes late").unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Exists);
    // Breaking the lease of one that has published changes nothing.
    prune::break_lease(&open(Arc::clone(&store)).unwrap(), manifest.header.id).unwrap();
    settle(&store);
    assert_eq!(common::listed(&open(Arc::clone(&store)).unwrap()).len(), 1);
    assert!(store.len(&object(&name)).unwrap().is_some(), "the revocation stays");
    assert_sound(&store, "after");
}

#[test]
fn what_a_killed_capture_left_comes_back_when_its_lease_is_broken() {
    let (store, volume) = (plain(), noise(6, 30));
    take(Arc::clone(&store), "m", &volume);
    let clean = objects(&*store);
    fill(&volume, 7, 2..32);
    let orphaned = Arc::new((*store).clone());
    let manifest = take(Arc::clone(&orphaned), "m", &volume);
    orphaned.delete(&object(&captures::name_of(&manifest.header))).unwrap();
    // Its index under a random name, as checkpoints are.
    let index = orphaned.get(&object(&grammar::index(manifest.header.id)));
    if let Ok(index) = index {
        orphaned.put(&object(&grammar::index(CaptureId([5; 16]))), &index).unwrap();
    }
    for _ in 0..3 {
        prune(&orphaned, &Options::default());
    }
    assert!(pack_bytes(&*orphaned) >= 60 * KIB_64, "it may still be writing");
    prune(&orphaned, &Options { break_leases: vec![manifest.header.id], ..Options::default() });
    settle(&orphaned);
    let left: Vec<_> = objects(&*orphaned).into_keys().filter(|name| !clean.contains_key(name)).collect();
    assert_eq!(left, [captures::name_of(&manifest.header)], "only the revocation");
}

#[test]
fn what_is_needed_of_packs_that_are_mostly_garbage_moves_and_is_not_sent_again() {
    let (store, volume) = (plain(), noise(8, 60));
    take(Arc::clone(&store), "m", &volume);
    fill(&volume, 9, 2..52);
    let kept = take(Arc::clone(&store), "m", &volume);
    let before = volume.disk.to_vec();
    let report = prune(&store, &last(1));
    assert!(report.moved_packs > 0, "{report:?}");
    assert!(!names(&*store, "moved").is_empty());
    assert_sound(&store, "moved and still there");
    let again = take(Arc::clone(&store), "m", &volume);
    assert_eq!(again.volumes[0].cost.new_bytes, 0, "what moved is found where it is");
    settle(&store);
    assert_sound(&store, "moved and gone");
    let left = pack_bytes(&*store);
    assert!(left <= 70 * KIB_64, "{} blocks", left / KIB_64);
    let target = MemoryDisk::new(volume.disk.geometry().size, SectorSize::B512);
    assert!(restore(&open(Arc::clone(&store)).unwrap(), &kept, &target).unwrap().is_complete);
    assert_eq!(difference(&volume.mask(), &before, &target.to_vec()), None);
    let third = take(Arc::clone(&store), "m", &volume);
    assert_eq!(third.volumes[0].cost.new_bytes, 0);
    // Nobody refers to the old place any more, and what said where it went goes.
    settle(&store);
    prune(&store, &last(1));
    settle(&store);
    assert_eq!(names(&*store, "moved"), Vec::<String>::new());
    assert_sound(&store, "the last alone");
}

#[test]
fn damage_is_healed_by_the_next_capture_and_a_prune() {
    for whole in [false, true] {
        let (store, volume) = (plain(), noise(10, 50));
        take(Arc::clone(&store), "m", &volume);
        fill(&volume, 11, 2..6);
        take(Arc::clone(&store), "m", &volume);
        // The packs of blocks: the nodes of maps are small, and no other capture has just the same.
        let is_data = |pack: &String| store.len(&object(pack)).unwrap().unwrap().get() > 2 * KIB_64;
        let packs: Vec<_> = names(&*store, "packs").into_iter().filter(is_data).collect();
        for pack in &packs {
            let name = object(pack);
            if whole {
                store.delete(&name).unwrap();
            } else {
                let flip =
                    |bytes: &mut Vec<u8>| (100..bytes.len()).step_by(300_000).for_each(|at| bytes[at] ^= 1);
                store.damage(&name, flip).unwrap();
            }
        }
        assert!(check(Arc::clone(&store), Depth::ReadData, Mark::Damaged).has_damage());
        // The old content is there again: a capture of each state sends everything anew.
        take(Arc::clone(&store), "m", &volume);
        fill(&volume, 10, 2..52);
        take(Arc::clone(&store), "m", &volume);
        let report = prune(&store, &Options::default());
        println!("{report:#?}");
        assert!(report.healed_frames > 0);
        settle(&store);
        assert_sound(&store, if whole { "missing packs" } else { "flipped bits" });
        assert_eq!(common::verify(&open(Arc::clone(&store)).unwrap()).len(), 4);
    }
}

#[test]
fn what_is_nowhere_else_stays_lost_and_the_rest_is_healed() {
    let (store, volume) = (plain(), noise(12, 50));
    take(Arc::clone(&store), "m", &volume);
    let packs = names(&*store, "packs");
    for pack in packs.iter().filter(|pack| store.len(&object(pack)).unwrap().unwrap().get() > 10 * KIB_64) {
        store
            .damage(&object(pack), |bytes| (100..bytes.len()).step_by(200_000).for_each(|at| bytes[at] ^= 1))
            .unwrap();
    }
    let before = check(Arc::clone(&store), Depth::ReadData, Mark::Damaged);
    let lost = |report: &imager::verify::VerifyReport| -> u64 {
        report.damaged.iter().flat_map(|damaged| &damaged.affects).map(|affected| affected.bytes).sum()
    };
    // Some of it changed meanwhile, so a part of each damaged frame is nowhere.
    (0..50).step_by(8).for_each(|n| fill(&volume, 100 + n, 2 + n..3 + n));
    let plan = prune(&store, &Options::default());
    assert_eq!(plan.healed_frames, 0, "before the next capture nothing is given up");
    assert!(plan.warnings.iter().any(|warning| warning.contains("capture again")), "{:?}", plan.warnings);
    take(Arc::clone(&store), "m", &volume);
    let report = prune(&store, &Options::default());
    assert!(report.healed_frames > 0, "{report:?}");
    settle(&store);
    let after = check(Arc::clone(&store), Depth::ReadData, Mark::Leave);
    assert!(lost(&after) > 0 && lost(&after) * 2 < lost(&before), "{} of {}", lost(&after), lost(&before));
    // When nobody needs it any more it goes, marks and all.
    prune(&store, &last(1));
    settle(&store);
    assert_sound(&store, "after");
    assert_eq!(names(&*store, "damaged"), Vec::<String>::new());
}

/// A repository with one capture most of whose first pack was given up, so that the rest of it moved; and the packs that
/// hold what moved.
fn moved(volume: &FatVolume, is_gone: bool) -> (Arc<MemoryStore>, Vec<String>) {
    let store = plain();
    take(Arc::clone(&store), "m", volume);
    fill(volume, 21, 2..52);
    take(Arc::clone(&store), "m", volume);
    let before = names(&*store, "packs");
    assert!(prune(&store, &last(1)).moved_packs > 0);
    let new = names(&*store, "packs").into_iter().filter(|pack| !before.contains(pack)).collect();
    if is_gone {
        settle(&store);
        assert_eq!(names(&*store, "trash"), Vec::<String>::new());
    }
    (store, new)
}

#[test]
fn damage_where_something_moved_to_is_healed_too() {
    for (is_gone, is_missing) in [(true, false), (true, true), (false, false), (false, true)] {
        let volume = noise(20, 60);
        let (store, new) = moved(&volume, is_gone);
        for pack in new.iter().map(|pack| object(pack)) {
            if is_missing {
                store.delete(&pack).unwrap();
            } else {
                store
                    .damage(&pack, |bytes| (100..bytes.len()).step_by(200).for_each(|at| bytes[at] ^= 1))
                    .unwrap();
            }
        }
        let what = format!("gone: {is_gone}, missing: {is_missing}");
        let report = check(Arc::clone(&store), Depth::ReadData, Mark::Damaged);
        assert_eq!(report.has_damage(), is_gone, "{what}: {:#?}", report.damaged);
        // A full capture of the same sends again what cannot be had.
        try_capture(Arc::clone(&store), "m", &volume, Some(imager_image::manifest::Kind::Full)).unwrap();
        let report = prune(&store, &Options::default());
        assert!(!is_gone || report.healed_frames > 0, "{what}: {report:#?}");
        settle(&store);
        assert_sound(&store, &what);
        assert_eq!(names(&*store, "trash"), Vec::<String>::new(), "{what}");
    }
}

/// Where the blocks of a capture lie.
fn places(store: &Arc<MemoryStore>, manifest: &Manifest) -> Vec<Location> {
    let repository = open(Arc::clone(store)).unwrap();
    let entries = entries(&repository, manifest.volumes[0].map.as_ref().unwrap()).unwrap();
    let place = |entry: Entry| match entry.content {
        Content::Data(_, location) => Some(location),
        _ => None,
    };
    let mut places: Vec<Location> = entries.into_iter().filter_map(|(_, entry)| place(entry)).collect();
    places.dedup_by_key(|place| place.frame);
    places
}

#[test]
fn a_document_that_says_the_wrong_place_takes_nothing_away() {
    let (store, volumes) = (plain(), [noise(30, 12), noise(31, 12)]);
    let manifests =
        [("m", &volumes[0]), ("n", &volumes[1])].map(|(name, it)| take(Arc::clone(&store), name, it));
    let [ours, others] = manifests.each_ref().map(|manifest| places(&store, manifest));
    let pack = ours[0].pack;
    let frames = ours.iter().zip(others.iter().cycle()).filter(|(ours, _)| ours.pack == pack);
    let frames = frames.map(|(from, to)| MovedFrame { from: from.frame, pack: to.pack, to: to.frame });
    let wrong = Moved { pack, frames: frames.collect() };
    let repository = open(Arc::clone(&store)).unwrap();
    let bytes = wrong.encode(&mut repository.codec(Compression::Fast).unwrap()).unwrap();
    store.put(&object(&grammar::moved(pack.id, 0)), &bytes).unwrap();
    // So that what the document says is looked at, although nothing is wrong with the pack.
    store.put(&object(&grammar::marker(grammar::DAMAGED, pack.id)), b"damaged").unwrap();
    settle(&store);
    assert!(!names(&*store, "packs").contains(&grammar::pack(pack.id)), "it was emptied");
    // What the document hides from readers is there.
    store.damage(&object(&grammar::moved(pack.id, 0)), |bytes| bytes.fill(0)).unwrap();
    assert_sound(&store, "after");
}

#[test]
fn while_something_cannot_be_read_nothing_goes_that_it_may_need() {
    let (store, volume) = (plain(), noise(13, 20));
    let first = take(Arc::clone(&store), "m", &volume);
    fill(&volume, 14, 2..22);
    take(Arc::clone(&store), "m", &volume);
    fill(&volume, 15, 2..22);
    take(Arc::clone(&store), "m", &volume);
    let name = captures::name_of(&first.header);
    store.damage(&object(&name), |bytes| bytes[50] ^= 1).unwrap();
    let before = pack_bytes(&*store);
    for _ in 0..3 {
        prune(&store, &last(1));
    }
    assert_eq!(pack_bytes(&*store), before);
    let repository = open(Arc::clone(&store)).unwrap();
    let plan = prune::plan(&repository, &Options::default(), &imager::monitor::Silent::default()).unwrap();
    assert!(plan.report().advice.unwrap().contains("--remove"));
    let give_up = Options { remove: vec![first.header.id], force: true, ..Options::default() };
    prune(&store, &give_up);
    settle(&store);
    assert!(pack_bytes(&*store) < before / 2);
    assert_sound(&store, "after");
}

#[test]
fn what_is_held_stays_until_it_is_released() {
    let (store, volume) = (plain(), noise(16, 10));
    let first = take(Arc::clone(&store), "m", &volume);
    fill(&volume, 17, 2..12);
    take(Arc::clone(&store), "m", &volume);
    let repository = open(Arc::clone(&store)).unwrap();
    prune::hold(&repository, &first).unwrap();
    prune::hold(&repository, &first).unwrap();
    assert_eq!(prune(&store, &last(1)).removed, []);
    prune::release(&repository, first.header.id).unwrap();
    assert_eq!(prune(&store, &last(1)).removed, [first.header.id]);
    assert_eq!(prune::hold(&repository, &first).unwrap_err().kind(), ErrorKind::NotFound);
}
