//! Small volumes made here and hostile ones made of them. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::Exfat;
use crate::damaged::never_makes_smaller;
use crate::{Certainty, State, UsedBlocks};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
use proptest::prelude::{any, proptest};

const SECTOR: usize = 512;
const FAT: usize = 24;
const HEAP: usize = 88;
/// Clusters of two sectors, so that the bitmap takes one.
const CLUSTER: usize = 2 * SECTOR;
const CLUSTERS: usize = 5000;
const TAIL: usize = 700;
const END: u32 = u32::MAX;

/// A volume whose bitmap is cluster 2, whose up-case table is cluster 3 and whose root directory is cluster 4. In it:
/// a file of two clusters without a chain (10, 11), one with a chain (20, 30), a directory (40) with a file (4999).
fn volume() -> Vec<u8> {
    let mut bytes = vec![0; HEAP * SECTOR + CLUSTERS * CLUSTER + TAIL];
    put(&mut bytes, 0, &[0xEB, 0x76, 0x90]);
    put(&mut bytes, 3, b"EXFAT   ");
    put(&mut bytes, 72, &((HEAP + CLUSTERS * 2) as u64).to_le_bytes());
    for (at, value) in [(80, FAT), (84, 64), (88, HEAP), (92, CLUSTERS), (96, 4), (100, 0x1234_ABCD)] {
        put(&mut bytes, at, &(value as u32).to_le_bytes());
    }
    put(&mut bytes, 104, &[0, 1, 0, 0, 9, 1, 1, 0x80, 0xFF]);
    put(&mut bytes, 510, &[0x55, 0xAA]);
    for (cluster, next) in [(2, END), (3, END), (4, END), (20, 30), (30, END)] {
        link(&mut bytes, cluster, next);
    }
    for cluster in [2, 3, 4, 10, 11, 20, 30, 40, 4999] {
        set(&mut bytes, cluster, true);
    }
    let bitmap = [&[0x81][..], &[0; 19], &2_u32.to_le_bytes(), &625_u64.to_le_bytes()].concat();
    let upcase = [&[0x82][..], &[0; 19], &3_u32.to_le_bytes(), &60_u64.to_le_bytes()].concat();
    let label = [&[0x83, 2, b'A', 0, 0xA9, 0x03][..], &[0; 26]].concat();
    let entries = [
        bitmap,
        upcase,
        label,
        file(0x20, 3, 10, 2 * 1024),
        file(0x20, 1, 20, 1025),
        file(0x10, 3, 40, 1024),
    ];
    put(&mut bytes, place(4), &entries.concat());
    put(&mut bytes, place(40), &file(0x20, 3, 4999, 1));
    seal(&mut bytes);
    bytes
}

/// A file entry, its stream extension and a name that nobody reads.
fn file(attributes: u8, flags: u8, first: u32, len: u64) -> Vec<u8> {
    let mut entries = vec![0; 96];
    (entries[0], entries[1], entries[4]) = (0x85, 2, attributes);
    (entries[32], entries[33], entries[64]) = (0xC0, flags, 0xC1);
    put(&mut entries, 52, &first.to_le_bytes());
    put(&mut entries, 56, &len.to_le_bytes());
    entries
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn place(cluster: usize) -> usize {
    HEAP * SECTOR + (cluster - 2) * CLUSTER
}

fn link(bytes: &mut [u8], cluster: usize, next: u32) {
    put(bytes, FAT * SECTOR + cluster * 4, &next.to_le_bytes());
}

fn set(bytes: &mut [u8], cluster: usize, is_used: bool) {
    let bit = 1 << ((cluster - 2) % 8);
    let byte = &mut bytes[place(2) + (cluster - 2) / 8];
    *byte = if is_used { *byte | bit } else { *byte & !bit };
}

/// Puts the boot region's checksum right.
fn seal(bytes: &mut [u8]) {
    let mut sum = 0_u32;
    for at in (0..11 * SECTOR).filter(|at| ![106, 107, 112].contains(at)) {
        sum = sum.rotate_right(1).wrapping_add(u32::from(bytes[at]));
    }
    bytes[11 * SECTOR..12 * SECTOR]
        .chunks_exact_mut(4)
        .for_each(|word| word.copy_from_slice(&sum.to_le_bytes()));
}

fn disk(bytes: &[u8]) -> MemoryDisk {
    MemoryDisk::from_bytes(bytes, SectorSize::B512)
}

fn cluster(number: usize) -> Extent {
    let at = |number| ByteOffset::new(place(number) as u64);
    Extent::between(at(number), at(number + 1))
}

fn refused(bytes: &[u8], kind: ErrorKind, what: &str) {
    let disk = disk(bytes);
    let error = Exfat.used(&disk).expect_err(what);
    assert_eq!(error.kind(), kind, "{what}: {error}");
    assert!(matches!(Exfat.probe(&disk).unwrap().unwrap().state, State::Dirty(_)), "{what}");
}

#[test]
fn clusters_with_a_bit_and_everything_around_them_are_in() {
    let disk = disk(&volume());
    let found = Exfat.probe(&disk).unwrap().unwrap();
    assert_eq!((found.uuid.as_deref(), found.label.as_deref()), (Some("1234-ABCD"), Some("AΩ")));
    assert_eq!((found.state, found.block.get()), (State::Clean, CLUSTER as u64));
    assert_eq!(found.head.total().get(), 2 * SECTOR as u64);
    let map = Exfat.used(&disk).unwrap();
    assert_eq!((map.certainty, map.unit.get()), (Certainty::Exact, 1024));
    let around = (HEAP * SECTOR + TAIL) as u64;
    assert_eq!(map.extents.total().get(), around + 9 * CLUSTER as u64);
    for number in [2, 3, 4, 10, 11, 20, 30, 40, 4999] {
        assert!(map.extents.contains(cluster(number)), "{number}");
    }
    assert!(map.extents.contains(Extent::first(ByteLen::new((HEAP * SECTOR) as u64))));
    assert_eq!(map.extents.end().get(), disk.geometry().size.get(), "the tail");
}

#[test]
fn a_bitmap_in_pieces_is_read_along_its_chain() {
    let mut bytes = volume();
    // Two sectors a cluster become one: the bitmap's 625 bytes need two clusters, and the second is far away.
    bytes[109] = 0;
    put(&mut bytes, 72, &((HEAP + CLUSTERS) as u64).to_le_bytes());
    let old = bytes.split_off(HEAP * SECTOR);
    bytes.resize((HEAP + CLUSTERS) * SECTOR, 0);
    let at = |cluster: usize| (HEAP + cluster - 2) * SECTOR;
    put(&mut bytes, at(2), &old[..SECTOR]);
    put(&mut bytes, at(4500), &old[SECTOR..625]);
    put(&mut bytes, at(4), &old[2 * CLUSTER..2 * CLUSTER + 96]);
    link(&mut bytes, 2, 4500);
    link(&mut bytes, 4500, END);
    seal(&mut bytes);
    refused_map(&bytes, "the bitmap has no bit for its own second piece");
    bytes[at(4500) + (4498 / 8 - SECTOR)] |= 1 << (4498 % 8);
    let map = Exfat.used(&disk(&bytes)).unwrap();
    let start = ByteOffset::new(at(4999) as u64);
    assert!(map.extents.contains(Extent::between(start, start.saturating_add(ByteLen::new(SECTOR as u64)))));
}

#[test]
fn a_volume_that_is_not_in_order_is_not_believed() {
    for (what, at, value, kind) in [
        ("in use", 106, 2, ErrorKind::Corrupt),
        ("media failure", 106, 4, ErrorKind::Corrupt),
        ("the second FAT is active", 106, 1, ErrorKind::Unsupported),
        ("two FATs", 110, 2, ErrorKind::Unsupported),
        ("revision 1.01", 104, 1, ErrorKind::Unsupported),
        ("revision 2.00", 105, 2, ErrorKind::Unsupported),
    ] {
        let mut bytes = volume();
        bytes[at] = value;
        seal(&mut bytes);
        refused(&bytes, kind, what);
    }
}

#[test]
fn every_byte_of_the_boot_region_is_covered_by_its_checksum() {
    // Not those by which a volume is recognised at all, nor its flags.
    for at in (120..12 * SECTOR).step_by(41).chain([0, 64, 72, 80, 96, 100, 111, 12 * SECTOR - 1]) {
        let mut bytes = volume();
        bytes[at] ^= 0x10;
        refused(&bytes, ErrorKind::Corrupt, &format!("byte {at}"));
    }
    let mut bytes = volume();
    bytes[112] = 77;
    assert!(Exfat.used(&disk(&bytes)).is_ok(), "the percentage in use changes without it");
}

/// Fields of the boot sector that contradict others.
const CONTRADICTIONS: [(&str, usize, u32); 9] = [
    ("longer than the volume", 72, 20_000),
    ("a FAT in the boot regions", 80, 23),
    ("a FAT behind the heap", 80, 80),
    ("a FAT that is too short", 84, 39),
    ("a heap behind the end", 88, 20_000),
    ("no clusters", 92, 0),
    ("one cluster too many", 92, CLUSTERS as u32 + 1),
    ("a root directory before the first cluster", 96, 1),
    ("a root directory behind the last cluster", 96, CLUSTERS as u32 + 2),
];

#[test]
fn contradictions_are_refused() {
    for (what, at, value) in CONTRADICTIONS {
        let mut bytes = volume();
        put(&mut bytes, at, &value.to_le_bytes());
        seal(&mut bytes);
        refused(&bytes, ErrorKind::Corrupt, what);
    }
    for (at, value) in [(3, b'X'), (108, 8), (108, 13), (109, 17)] {
        let mut bytes = volume();
        bytes[at] = value;
        assert_eq!(Exfat.probe(&disk(&bytes)).unwrap(), None, "byte {at} is {value}");
    }
}

#[test]
fn what_directories_name_must_have_its_bit() {
    for number in [2, 3, 4, 10, 11, 20, 30, 40, 4999] {
        let mut bytes = volume();
        set(&mut bytes, number, false);
        refused_map(&bytes, &format!("cluster {number}"));
    }
}

fn refused_map(bytes: &[u8], what: &str) {
    let error = Exfat.used(&disk(bytes)).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
}

#[test]
fn broken_chains_are_refused() {
    let cases: [(&str, usize, u32); 7] = [
        ("the root directory's leads to a free cluster", 4, 0),
        ("the root directory's leads to a bad cluster", 4, 0xFFFF_FFF7),
        ("the root directory's leads out of the volume", 4, CLUSTERS as u32 + 2),
        ("the root directory's never ends", 4, 4),
        ("a file's ends too soon", 20, END),
        ("a file's leads to a free cluster", 20, 0),
        ("a file's leads to clusters of nobody", 20, 31),
    ];
    for (what, at, next) in cases {
        let mut bytes = volume();
        link(&mut bytes, at, next);
        refused_map(&bytes, what);
    }
}

#[test]
fn a_root_directory_must_say_where_the_bitmap_is() {
    let entry = |number: usize| place(4) + number * 32;
    let second = volume()[entry(0)..entry(1)].to_vec();
    let cases: [(&str, usize, &[u8]); 8] = [
        ("no bitmap", entry(0), &[1]),
        ("no up-case table", entry(1), &[2]),
        ("two bitmaps", entry(2), &second),
        ("a bitmap that is too short", entry(0) + 24, &624_u64.to_le_bytes()),
        ("a bitmap longer than the volume", entry(0) + 24, &u64::MAX.to_le_bytes()),
        ("a bitmap nowhere", entry(0) + 20, &1_u32.to_le_bytes()),
        ("an empty bitmap", entry(0) + 20, &[0; 12]),
        ("nothing", entry(0), &[0]),
    ];
    for (what, at, value) in cases {
        let mut bytes = volume();
        put(&mut bytes, at, value);
        refused(&bytes, ErrorKind::Corrupt, what);
    }
    for (what, at, value) in [("a second bitmap", entry(0) + 1, 1), ("an entry of type 0x84", entry(2), 0x84)]
    {
        let mut bytes = volume();
        bytes[at] = value;
        refused(&bytes, ErrorKind::Unsupported, what);
    }
}

#[test]
fn directories_in_a_circle_come_to_an_end() {
    let mut bytes = volume();
    put(&mut bytes, place(40), &[file(0x10, 3, 40, 1024), file(0x10, 3, 40, 1024)].concat());
    assert_eq!(Exfat.used(&disk(&bytes)).unwrap().certainty, Certainty::Exact);
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let right = Exfat.used(&disk(&volume())).unwrap();
    for nth in 1..60 {
        let disk = FaultyDisk::new(disk(&volume()), [Fault::Once { nth }]);
        match crate::used(&disk) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            Ok(map) => assert!(right.extents.difference(&map.extents).is_empty()),
        }
    }
}

#[test]
fn damage_never_makes_a_map_smaller() {
    let clusters = [2, 3, 4, 40].into_iter().flat_map(|cluster| [place(cluster), place(cluster) + SECTOR]);
    let sectors: Vec<u64> = (0..HEAP * SECTOR)
        .step_by(SECTOR)
        .take(FAT + 40)
        .chain(clusters)
        .map(|at| (at / SECTOR) as u64)
        .collect();
    assert!(never_makes_smaller(&disk(&volume()), &sectors, 4000, 1) > 500);
}

#[test]
fn the_largest_volume_is_looked_at_in_bounded_time() {
    // 2^32 - 11 clusters of 4 KiB: 16 TiB, with a bitmap of 512 MiB, all of it zero but for its first cluster.
    let (clusters, cluster) = (u64::from(u32::MAX) - 10, 4096_u64);
    let (fat_sectors, bitmap) = (1_u64 << 25, (1_u64 << 29).div_ceil(cluster));
    let heap = 32 + fat_sectors;
    let sectors = heap + clusters * 8;
    let mut boot = volume()[..12 * SECTOR].to_vec();
    put(&mut boot, 72, &sectors.to_le_bytes());
    for (at, value) in [(80, 32), (84, fat_sectors), (88, heap), (92, clusters), (96, 4 + bitmap)] {
        put(&mut boot, at, &(value as u32).to_le_bytes());
    }
    boot[109] = 3;
    seal(&mut boot);
    let disk = MemoryDisk::new(ByteLen::new(sectors * 512), SectorSize::B512);
    let write = |at: u64, bytes: &[u8]| {
        imager_disk::WriteAt::write_all_at(&disk, ByteOffset::new(at), bytes).unwrap()
    };
    write(0, &boot);
    let chain: Vec<u8> =
        (3..2 + bitmap as u32).chain([END, END, END, END]).flat_map(u32::to_le_bytes).collect();
    write(32 * 512 + 8, &chain);
    let entry = |kind: u8, first: u64, len: u64| {
        [&[kind][..], &[0; 19], &(first as u32).to_le_bytes(), &len.to_le_bytes()].concat()
    };
    let at = |number: u64| heap * 512 + (number - 2) * cluster;
    let root = [entry(0x81, 2, clusters.div_ceil(8)), entry(0x82, 2 + bitmap, 60)].concat();
    write(at(4 + bitmap), &root);
    write(at(2), &vec![0xFF; bitmap as usize / 8 + 1]);
    let map = Exfat.used(&disk).unwrap();
    assert!(map.extents.total().get() < at(2) + (bitmap + 64) * cluster);
}

fn stays_inside(disk: &dyn ReadAt) {
    let size = ByteOffset::new(disk.geometry().size.get());
    if let Some(found) = Exfat.probe(disk).unwrap() {
        assert!(found.head.end() <= size);
    }
    let map = crate::used(disk).unwrap();
    assert!(map.extents.end() <= size);
    assert_eq!(map.extents.align_out(map.unit, size), map.extents);
    assert!(map.certainty == Certainty::Exact || map.extents.total() == disk.geometry().size);
}

proptest! {
    #[test]
    fn any_boot_sector_is_survived(changes in proptest::collection::vec((64..120_usize, any::<u8>()), 1..6)) {
        let mut bytes = volume();
        changes.into_iter().for_each(|(at, value)| bytes[at] = value);
        seal(&mut bytes);
        stays_inside(&disk(&bytes));
    }

    #[test]
    fn any_root_directory_is_survived(changes in proptest::collection::vec((0..700_usize, any::<u8>()), 1..8)) {
        let mut bytes = volume();
        changes.into_iter().for_each(|(at, value)| bytes[place(4) + at] = value);
        stays_inside(&disk(&bytes));
    }

    #[test]
    fn any_table_is_survived(changes in proptest::collection::vec((0..60_usize, 0..60_u32), 1..8)) {
        let mut bytes = volume();
        changes.into_iter().for_each(|(at, next)| link(&mut bytes, at, next));
        stays_inside(&disk(&bytes));
    }
}
