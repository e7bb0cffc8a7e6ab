//! A small filesystem made here and hostile ones made of it. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

pub(super) mod recipe;

use super::Btrfs;
use super::profile::tests::naive;
use crate::{Certainty, State, UsedBlocks, UsedMap};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, ExtentSet, Result};
use proptest::prelude::{any, proptest};
use recipe::{CHUNK, DEVICE, EXTENTS, LOGICAL, NODE, PHYSICAL, Recipe, TAIL, node_at};

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
}

fn used(disks: &[MemoryDisk], which: usize) -> Result<UsedMap> {
    let others: Vec<_> = disks.iter().enumerate().filter(|(number, _)| *number != which).collect();
    let others: Vec<_> = others.into_iter().map(|(_, disk)| disk as &dyn ReadAt).collect();
    Btrfs.used_with(&disks[which], &others)
}

/// What each device should have, sector by sector.
fn expected(recipe: &Recipe) -> Vec<ExtentSet> {
    let ends = [extent(0, 1 << 20), extent(DEVICE, TAIL)];
    let mut sets = vec![ends.into_iter().collect::<ExtentSet>(); recipe.devices as usize];
    let (kind, stripes, _) = recipe.profile;
    for (at, len) in recipe.allocated() {
        for sector in (at..at + len).step_by(4096) {
            for (stripe, place) in naive(kind, stripes.into(), sector) {
                let (device, turn) = (stripe % recipe.devices, stripe / recipe.devices);
                sets[device as usize].insert(extent(PHYSICAL + turn * CHUNK + place, 4096));
            }
        }
    }
    sets
}

fn check(recipe: &Recipe, what: &str) {
    let disks = recipe.disks();
    for (number, expected) in expected(recipe).into_iter().enumerate() {
        let map = used(&disks, number).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            map,
            UsedMap { extents: expected, unit: ByteLen::new(4096), certainty: Certainty::Exact },
            "{what}"
        );
    }
}

fn set(profile: (u64, u16, u16), devices: u64) -> Recipe {
    Recipe { profile, devices, ..Recipe::default() }
}

/// Why there is no map.
fn reason(recipe: &Recipe) -> String {
    crate::chain(&used(&recipe.disks(), 0).expect_err("no map"))
}

#[test]
fn every_profile_has_all_its_copies_and_parity() {
    let profiles = [
        ("single", (0, 1, 1), 1),
        ("dup", (1 << 5, 2, 1), 1),
        ("raid0", (1 << 3, 3, 1), 3),
        ("raid1", (1 << 4, 2, 1), 2),
        ("raid1c3", (1 << 9, 3, 1), 3),
        ("raid1c4", (1 << 10, 4, 1), 4),
        ("raid10", (1 << 6, 4, 2), 4),
        ("raid5", (1 << 7, 3, 1), 3),
        ("raid6", (1 << 8, 4, 1), 4),
    ];
    for (name, profile, devices) in profiles {
        check(&set(profile, devices), name);
    }
}

#[test]
fn block_groups_may_have_a_tree_of_their_own() {
    check(&Recipe { block_group_tree: true, ..Recipe::default() }, "block group tree");
    let items = Recipe::default().extent_items();
    let without = items.into_iter().filter(|((_, kind, _), _)| *kind != 192).collect();
    let recipe = Recipe { extents: Some(without), ..Recipe::default() };
    assert_eq!(reason(&recipe), "the chunk at 0x1000000 has no block group");
}

#[test]
fn what_only_the_log_knows_is_in() {
    let recipe = Recipe { log: Some(vec![(0x18_0000, 0x5000), (0x28_0000, 4096)]), ..Recipe::default() };
    check(&recipe, "log");
    for extent in [(0x18_0000, 0x5001), (0x18_0001, 4096), (CHUNK - 4096, 8192), (0x18_0000, 0)] {
        let reason = reason(&Recipe { log: Some(vec![extent]), ..Recipe::default() });
        assert!(reason.contains("cannot be") || reason.contains("no chunk has"), "{reason}");
    }
    let found = Btrfs.probe(&recipe.disks()[0]).unwrap().unwrap();
    assert_eq!(found.state, State::Dirty("its log has not been replayed".to_owned()));
}

#[test]
fn identity() {
    let disks = set((1 << 4, 2, 1), 2).disks();
    let found = Btrfs.probe(&disks[1]).unwrap().unwrap();
    assert_eq!((found.kind, found.state, found.label.as_deref()), ("btrfs", State::Clean, Some("by hand")));
    assert_eq!((found.size, found.block), (ByteLen::new(DEVICE), ByteLen::new(4096)));
    let member = Btrfs.member(&disks[1]).unwrap().unwrap();
    assert_eq!((Some(member.set), member.number, member.of), (found.uuid, 2, 2));
    assert_eq!(Btrfs.member(&Recipe::default().disks()[0]).unwrap(), None);
}

#[test]
fn devices_that_are_not_one_filesystem_are_refused() {
    let mut disks = set((1 << 4, 2, 1), 2).disks();
    let alone = Btrfs.used(&disks[0]).unwrap_err();
    assert_eq!(alone.to_string(), "it lies on 2 devices, of which only 1 can be read together");
    let twice = Btrfs.used_with(&disks[0], &[&disks[0]]).unwrap_err();
    assert_eq!(twice.to_string(), "its device 1 is here twice");
    disks[1] = Recipe::default().disks().remove(0);
    let foreign = used(&disks, 0).unwrap_err();
    assert_eq!(foreign.to_string(), "its devices are not of the same moment");
}

#[test]
fn what_does_not_add_up_is_not_believed() {
    let base = Recipe::default();
    let with = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = base.clone();
        change(&mut recipe);
        reason(&recipe)
    };
    let items = |change: &dyn Fn(&mut Vec<recipe::Item>)| {
        let mut items = base.extent_items();
        change(&mut items);
        with(&|recipe| recipe.extents = Some(items.clone()))
    };
    let gone = items(&|items| drop(items.pop()));
    assert!(gone.contains("bytes in use and says"), "{gone}");
    assert!(with(&|r| r.wrong.1 = 4096).ends_with("and the superblock says 335872"));
    assert!(with(&|r| r.wrong.0 = 4096).contains("bytes in use and says"));
    assert!(with(&|r| r.replace_state = 4).contains("being replaced"));
    assert!(with(&|r| r.flags = 5).contains("marked as having errors"));
    assert!(with(&|r| r.flags = 1 | 1 << 32).contains("seed"));
    assert!(with(&|r| r.flags = 1 | 1 << 35).contains("flags"));
    assert!(with(&|r| r.incompat |= 1 << 12).contains("zoned"));
    assert!(with(&|r| r.incompat |= 1 << 14).contains("raid stripe tree"));
    assert!(with(&|r| r.incompat |= 1 << 40).contains("unknown feature bits"));
    let last = base.extent_items().len() - 1;
    assert!(items(&|items| items[last].0.2 = CHUNK).contains("no chunk has"));
    assert!(items(&|items| items[last].0.2 = u64::MAX - 4095).contains("no chunk has"));
    assert!(items(&|items| items[last].0.2 += 1).contains("cannot be"));
    assert!(items(&|items| items[last - 1].0.2 = 0xF_0000).contains("lies over another"));
    assert!(items(&|items| items.swap(last, last - 1)).contains("out of order"));
    assert!(items(&|items| items[1].0.2 -= 4096).contains("not that of a chunk"));
    // The first node's place is freed and the same number of bytes taken elsewhere.
    let moved = items(&|items| {
        items.remove(0);
        items.push(((LOGICAL + 0x2A_0000, 169, 0), vec![0; 33]));
    });
    assert!(moved.contains("is not allocated"), "{moved}");
}

#[test]
fn trees_that_turn_in_circles_end() {
    for child in [EXTENTS, 4, 1, 190, 1 << 40] {
        let recipe = Recipe { second_leaf: child, ..Recipe::default() };
        let error = used(&recipe.disks(), 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{child}: {error}");
    }
}

#[test]
fn a_copy_that_is_damaged_is_read_elsewhere() {
    let recipe = set((1 << 5, 2, 1), 1);
    let right = used(&recipe.disks(), 0).unwrap();
    for number in 0..6 {
        for copy in 0..2 {
            let disks = recipe.disks();
            let at = PHYSICAL + copy * CHUNK + (node_at(number) - LOGICAL);
            disks[0].write_all_at(ByteOffset::new(at + 200), &[0x5A; 64]).unwrap();
            assert_eq!(used(&disks, 0).unwrap(), right, "node {number}, copy {copy}");
            let other = PHYSICAL + (1 - copy) * CHUNK + (node_at(number) - LOGICAL);
            disks[0].write_all_at(ByteOffset::new(other + 200), &[0x5A; 64]).unwrap();
            assert_eq!(used(&disks, 0).unwrap_err().kind(), ErrorKind::Corrupt, "node {number}, both");
        }
    }
}

proptest! {
    #[test]
    fn no_flipped_byte_makes_another_map(at in 0..7 * NODE + 4096, bit in 0..8_u32, whole in any::<bool>()) {
        let recipe = Recipe { log: whole.then(|| vec![(0x18_0000, 0x5000)]), ..Recipe::default() };
        let disks = recipe.disks();
        let right = used(&disks, 0).unwrap();
        // The superblock, then the nodes.
        let at = if at < 4096 { 65_536 + at } else { PHYSICAL + at - 4096 };
        let mut byte = [0];
        disks[0].read_exact_at(ByteOffset::new(at), &mut byte).unwrap();
        disks[0].write_all_at(ByteOffset::new(at), &[byte[0] ^ 1 << bit]).unwrap();
        match used(&disks, 0) {
            Ok(map) => assert_eq!(map, right),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)),
        }
    }
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let recipe = set((1 << 5, 2, 1), 1);
    let right = used(&recipe.disks(), 0).unwrap();
    let mut failed = 0;
    for nth in 1.. {
        let disk = FaultyDisk::new(recipe.disks().remove(0), [Fault::Once { nth }]);
        match Btrfs.used(&disk) {
            Ok(map) => assert_eq!(map, right),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io);
                failed += 1;
            }
        }
        if disk.operations() < nth {
            break;
        }
    }
    assert_eq!(failed, 2, "only the superblock, read as such and among its copies, is nowhere else");
}
