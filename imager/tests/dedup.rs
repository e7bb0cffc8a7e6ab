//! Blocks are sent once; and are sent again when what holds them is on its way out, damaged, or not what it should be.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::cast_possible_truncation, reason = "volumes made here fit into memory")]

mod common;

use common::fat::{FatVolume, Layout};
use common::random::Random;
use common::{difference, look, names, open, options, plain, restore, verify, verify_map};
use imager::capture;
use imager::monitor::Silent;
use imager_disk::{MemoryDisk, ReadAt};
use imager_image::manifest::{Kind, Manifest};
use imager_units::SectorSize;
use netshare_store::{MemoryStore, ObjectName, Store};
use std::sync::Arc;

const KIB_64: u64 = 64 << 10;

/// A volume of clusters of one block each, `count` of which hold noise.
fn noise(seed: u64, count: u64) -> FatVolume {
    let volume = FatVolume::new(Layout { cluster: KIB_64, clusters: count + 40, ..Layout::SMALL });
    let mut random = Random::new(seed);
    (2..count + 2).for_each(|cluster| volume.put(cluster, &random.bytes(KIB_64 as usize)));
    volume
}

fn capture_as(store: &Arc<MemoryStore>, machine: &str, volume: &FatVolume, kind: Option<Kind>) -> Manifest {
    let survey = look(volume.snapshot()).unwrap();
    let repository = open(Arc::clone(store)).unwrap();
    capture::run(&repository, &survey, &options(machine, kind), &Silent::default()).unwrap()
}

fn new_bytes(manifest: &Manifest) -> u64 {
    manifest.volumes[0].cost.new_bytes
}

fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn packs(store: &MemoryStore) -> Vec<String> {
    names(store, "packs")
}

/// Puts a marker on every pack there is.
fn mark_all(store: &MemoryStore, folder: &str) {
    for pack in packs(store) {
        let id = pack.rsplit('/').next().unwrap();
        store.put(&object(&format!("{folder}/{id}")), b"").unwrap();
    }
}

/// The capture restores this exactly, and every block of it is the one it is called.
fn assert_sound(store: &Arc<MemoryStore>, manifest: &Manifest, volume: &FatVolume) {
    let repository = open(Arc::clone(store)).unwrap();
    for map in [manifest.volumes[0].map.as_ref().unwrap(), &manifest.disks[0].remainder] {
        verify_map(&repository, map).unwrap();
    }
    let target = MemoryDisk::new(volume.disk.geometry().size, SectorSize::B512);
    assert!(restore(&repository, manifest, &target).unwrap().is_complete);
    assert_eq!(difference(&volume.mask(), &volume.disk.to_vec(), &target.to_vec()), None);
}

#[test]
fn what_comes_twice_in_a_capture_is_stored_once() {
    let volume = noise(1, 4);
    let mut block = vec![0; KIB_64 as usize];
    volume.disk.read_exact_at(volume.cluster(3).start(), &mut block).unwrap();
    (10..40).for_each(|cluster| volume.put(cluster, &block));
    let store = plain();
    let manifest = capture_as(&store, "m", &volume, None);
    // The four blocks, the one that comes again in each unit that was under way at once, and what is not clusters.
    assert!(new_bytes(&manifest) <= (4 + 3 + 3) * KIB_64, "{}", new_bytes(&manifest));
    assert_sound(&store, &manifest, &volume);
}

#[test]
fn another_machine_with_the_same_blocks_sends_few_of_them() {
    let (store, volume) = (plain(), noise(2, 600));
    let first = capture_as(&store, "m", &volume, None);
    let second = capture_as(&store, "n", &volume, None);
    assert!(
        new_bytes(&second) < new_bytes(&first),
        "one block of 64 is looked up, and brings the others of its pack"
    );
    assert_sound(&store, &second, &volume);
    // A full capture looks at no parent and finds them all the same.
    let third = capture_as(&store, "m", &volume, Some(Kind::Full));
    assert!(new_bytes(&third) < new_bytes(&first));
    assert_sound(&store, &third, &volume);
}

/// What a failing disk does to an object.
type Damage<'a> = (&'static str, &'a dyn Fn(&mut Vec<u8>));

#[test]
fn a_damaged_frame_of_another_machine_is_not_relied_on() {
    let volume = noise(3, 400);
    // Every kind of damage that leaves the length as it is, in every frame of blocks or in the table.
    let flip = |bytes: &mut Vec<u8>| (100..bytes.len()).step_by(200_000).for_each(|at| bytes[at] ^= 0x40);
    let some = |bytes: &mut Vec<u8>| bytes[300_000..2_000_000].fill(0);
    let header = |bytes: &mut Vec<u8>| bytes[16..60].fill(0xFF);
    let table = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 2000] ^= 1;
    };
    let trailer = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 20] ^= 1;
    };
    let damages: [Damage<'_>; 5] =
        [("flips", &flip), ("zeros", &some), ("header", &header), ("table", &table), ("trailer", &trailer)];
    for (name, damage) in damages {
        let store = plain();
        capture_as(&store, "m", &volume, None);
        for pack in packs(&store) {
            let long = store.len(&object(&pack)).unwrap().unwrap().get() > 2_000_000;
            if long {
                store.damage(&object(&pack), damage).unwrap();
            }
        }
        let manifest = capture_as(&store, "n", &volume, None);
        println!("{name}: {} of {} bytes sent again", new_bytes(&manifest), volume.size());
        assert_sound(&store, &manifest, &volume);
    }
}

/// What makes every pack of a capture as good as absent.
type Absence = (&'static str, fn(&MemoryStore));

fn ways_to_be_absent() -> Vec<Absence> {
    vec![
        ("tombstoned", |store| mark_all(store, "trash")),
        ("marked as damaged", |store| mark_all(store, "damaged")),
        ("cut short", |store| {
            for pack in packs(store) {
                store.damage(&object(&pack), |bytes| bytes.truncate(bytes.len() - 1)).unwrap();
            }
        }),
        ("too long", |store| {
            for pack in packs(store) {
                store.damage(&object(&pack), |bytes| bytes.push(0)).unwrap();
            }
        }),
        ("gone", |store| {
            packs(store).iter().for_each(|pack| store.delete(&object(pack)).unwrap());
        }),
        ("empty", |store| {
            packs(store).iter().for_each(|pack| store.damage(&object(pack), Vec::clear).unwrap());
        }),
    ]
}

#[test]
fn blocks_of_packs_that_are_as_good_as_absent_are_sent_again() {
    let volume = noise(4, 150);
    for (name, remove) in ways_to_be_absent() {
        for (machine, kind) in
            [("m", None), ("m", Some(Kind::Full)), ("m", Some(Kind::Differential)), ("n", None)]
        {
            let what = format!("{name}, {machine}, {kind:?}");
            let store = plain();
            let first = capture_as(&store, "m", &volume, None);
            let old = packs(&store);
            remove(&store);
            let second = capture_as(&store, machine, &volume, kind);
            assert_eq!(new_bytes(&second), new_bytes(&first), "{what}: everything is sent again");
            let new: Vec<_> = packs(&store).into_iter().filter(|pack| !old.contains(pack)).collect();
            assert!(!new.is_empty(), "{what}: under names that were never used");
            // Then the old packs go. Nothing of the new capture is in them.
            old.iter().for_each(|pack| store.delete(&object(pack)).unwrap());
            assert_sound(&store, &second, &volume);
        }
    }
}

#[test]
fn only_what_is_in_a_bad_pack_is_sent_again() {
    let (store, volume) = (plain(), noise(5, 100));
    capture_as(&store, "m", &volume, None);
    let old = packs(&store);
    let mut random = Random::new(6);
    (110..130).for_each(|cluster| volume.put(cluster, &random.bytes(KIB_64 as usize)));
    let second = capture_as(&store, "m", &volume, None);
    let few = new_bytes(&second);
    // The first capture's packs are marked, those of the second are not.
    for pack in &old {
        let id = pack.rsplit('/').next().unwrap();
        store.put(&object(&format!("damaged/{id}")), b"").unwrap();
    }
    let third = capture_as(&store, "m", &volume, None);
    assert!(new_bytes(&third) >= 100 * KIB_64 && new_bytes(&third) < 110 * KIB_64 + few);
    old.iter().for_each(|pack| store.delete(&object(pack)).unwrap());
    assert_sound(&store, &third, &volume);
}

#[test]
fn a_damaged_history_costs_space_and_never_the_next_capture() {
    let volume = noise(7, 60);
    let folders = ["packs", "index", "captures", "leases"];
    for folder in folders {
        for damage in 0..3 {
            let store = plain();
            capture_as(&store, "m", &volume, None);
            for name in names(&*store, folder) {
                let hurt = |bytes: &mut Vec<u8>| match damage {
                    0 => bytes.iter_mut().for_each(|byte| *byte = !*byte),
                    1 => bytes.truncate(bytes.len() / 2),
                    _ => {
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 1;
                    }
                };
                store.damage(&object(&name), hurt).unwrap();
            }
            // What is damaged and not known to be is compared with at its place, so it is marked, as verify does it.
            if folder == "packs" {
                mark_all(&store, "damaged");
            }
            let second = capture_as(&store, "m", &volume, None);
            assert_sound(&store, &second, &volume);
            let third = capture_as(&store, "m", &volume, None);
            assert_eq!(new_bytes(&third), 0, "{folder} {damage}");
            assert!(third.header.sequence > second.header.sequence);
        }
    }
}

#[test]
fn captures_at_the_same_time_share_a_repository() {
    let (store, volumes) = (plain(), [noise(8, 80), noise(8, 80), noise(9, 80)]);
    std::thread::scope(|scope| {
        for (number, volume) in volumes.iter().enumerate() {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..4 {
                    let manifest = capture_as(store, &format!("m{number}"), volume, Some(Kind::Full));
                    assert_sound(store, &manifest, volume);
                }
            });
        }
    });
    assert_eq!(verify(&open(store).unwrap()).len(), 12);
}
