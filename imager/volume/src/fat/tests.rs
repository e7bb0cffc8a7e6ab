//! Small volumes made here and hostile ones made of them. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::Fat;
use crate::{Certainty, State, UsedBlocks};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
use proptest::prelude::{any, proptest};

/// A volume of 512-byte sectors with two FATs and the given clusters (of one sector) in use, and a tail of one sector.
struct Recipe {
    bits: u32,
    clusters: u32,
    used: &'static [u32],
}

const FAT12: Recipe = Recipe { bits: 12, clusters: 500, used: &[2, 3, 340, 341, 342, 501] };
const FAT16: Recipe = Recipe { bits: 16, clusters: 5000, used: &[2, 300, 5001] };
const FAT32: Recipe = Recipe { bits: 32, clusters: 70_000, used: &[2, 300, 70_001] };

impl Recipe {
    fn fat_sectors(&self) -> u32 {
        ((self.clusters + 2) * self.bits).div_ceil(8 * 512)
    }

    fn data_sector(&self) -> u32 {
        let (reserved, root) = if self.bits == 32 { (32, 0) } else { (1, 2) };
        reserved + 2 * self.fat_sectors() + root
    }

    fn make(&self) -> Vec<u8> {
        let sectors = self.data_sector() + self.clusters;
        let mut bytes = vec![0; (sectors as usize + 1) * 512];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &[0xEB, 0x3C, 0x90]);
        put(11, &512_u16.to_le_bytes());
        put(13, &[1]);
        put(16, &[2]);
        put(21, &[0xF8]);
        put(32, &sectors.to_le_bytes());
        put(510, &[0x55, 0xAA]);
        if self.bits == 32 {
            put(14, &[32]);
            put(36, &self.fat_sectors().to_le_bytes());
            put(44, &[2]);
            put(50, &[6]);
            put(66, &[0x29, 0xCD, 0xAB, 0x34, 0x12]);
            put(71, b"NO NAME    FAT32   ");
        } else {
            put(14, &[1]);
            put(17, &32_u16.to_le_bytes());
            put(22, &(self.fat_sectors() as u16).to_le_bytes());
            put(38, &[0x29, 0xCD, 0xAB, 0x34, 0x12]);
            put(43, b"LABEL      FAT     ");
        }
        for copy in 0..2 {
            let start = if self.bits == 32 { 32 } else { 1 } + copy * self.fat_sectors();
            let fat = &mut bytes[start as usize * 512..];
            set(fat, self.bits, 0, 0x0FFF_FFF8);
            set(fat, self.bits, 1, 0x0FFF_FFFF);
            self.used.iter().for_each(|&cluster| set(fat, self.bits, cluster, 0x0FFF_FFFF));
        }
        bytes
    }

    fn cluster(&self, number: u32) -> Extent {
        let start = u64::from(self.data_sector() + number - 2) * 512;
        Extent::between(ByteOffset::new(start), ByteOffset::new(start + 512))
    }
}

/// Sets an entry, half a byte at a time.
fn set(fat: &mut [u8], bits: u32, cluster: u32, value: u32) {
    for nibble in 0..bits / 4 {
        let at = cluster * bits / 4 + nibble;
        let digit = (value >> (4 * nibble) & 0xF) as u8;
        let byte = &mut fat[at as usize / 2];
        *byte = if at.is_multiple_of(2) { *byte & 0xF0 | digit } else { *byte & 0x0F | digit << 4 };
    }
}

fn disk(bytes: &[u8]) -> MemoryDisk {
    MemoryDisk::from_bytes(bytes, SectorSize::B512)
}

#[test]
fn clusters_with_an_entry_and_everything_around_them_are_in() {
    for recipe in [FAT12, FAT16, FAT32] {
        let disk = disk(&recipe.make());
        let found = Fat.probe(&disk).unwrap().unwrap();
        assert_eq!(found.kind, format!("fat{}", recipe.bits));
        assert_eq!((found.uuid.as_deref(), found.state), (Some("1234-ABCD"), State::Clean));
        assert_eq!(found.label.as_deref(), if recipe.bits == 32 { None } else { Some("LABEL") });
        let map = Fat.used(&disk).unwrap();
        let expected = u64::from(recipe.data_sector()) + recipe.used.len() as u64 + 1;
        assert_eq!(map.extents.total().get(), expected * 512);
        assert!(recipe.used.iter().all(|&cluster| map.extents.contains(recipe.cluster(cluster))));
        assert!(map.extents.contains(Extent::first(ByteLen::new(u64::from(recipe.data_sector()) * 512))));
        assert_eq!(map.extents.end().get(), disk.geometry().size.get(), "the tail");
    }
}

#[test]
fn the_number_of_clusters_decides_between_12_and_16_bits() {
    for (bits, clusters) in [(12, 4084), (16, 4085)] {
        let bytes = Recipe { bits, clusters, used: &[4000] }.make();
        assert_eq!(Fat.probe(&disk(&bytes)).unwrap().unwrap().kind, format!("fat{bits}"));
    }
}

#[test]
fn copies_that_differ_make_the_volume_whole_unless_it_is_in_use() {
    let mut bytes = FAT16.make();
    let second = (1 + FAT16.fat_sectors()) as usize * 512;
    set(&mut bytes[second..], 16, 77, 0xFFFF);
    assert_eq!(Fat.used(&disk(&bytes)).unwrap_err().kind(), ErrorKind::Corrupt);
    bytes[37] = 1;
    assert!(Fat.used(&disk(&bytes)).unwrap().extents.contains(FAT16.cluster(77)));
    assert!(matches!(Fat.probe(&disk(&bytes)).unwrap().unwrap().state, State::Dirty(_)));
}

#[test]
fn without_mirroring_only_the_active_copy_counts() {
    let mut bytes = FAT32.make();
    let second = (32 + FAT32.fat_sectors()) as usize * 512;
    set(&mut bytes[second..], 32, 77, 0x0FFF_FFFF);
    bytes[40] = 0x81;
    assert!(Fat.used(&disk(&bytes)).unwrap().extents.contains(FAT32.cluster(77)));
    bytes[40] = 0x80;
    assert!(!Fat.used(&disk(&bytes)).unwrap().extents.overlaps(FAT32.cluster(77)));
    bytes[40] = 0x87;
    assert_eq!(Fat.used(&disk(&bytes)).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A field of the boot sector that makes it none.
const NOT_FAT: [(&str, usize, &[u8]); 8] = [
    ("no bytes per sector", 11, &[0, 0]),
    ("300 bytes per sector", 11, &[44, 1]),
    ("8192 bytes per sector", 11, &[0, 32]),
    ("no sectors per cluster", 13, &[0]),
    ("3 sectors per cluster", 13, &[3]),
    ("no reserved sectors", 14, &[0, 0]),
    ("no FATs", 16, &[0]),
    ("media byte 0", 21, &[0]),
];

/// A field that contradicts others.
const CONTRADICTIONS: [(&str, usize, &[u8]); 5] = [
    ("longer than the volume", 32, &[0, 0, 0, 0xFF]),
    ("no room for data", 32, &[7, 0, 0, 0]),
    ("FATs that fill the volume", 22, &[0xFF, 0xFF]),
    ("sixteen FATs", 16, &[16]),
    ("a root directory over everything", 17, &[0xFF, 0xFF]),
];

#[test]
fn contradictions_are_refused() {
    for (what, at, value) in NOT_FAT {
        let mut bytes = FAT12.make();
        bytes[at..at + value.len()].copy_from_slice(value);
        assert_eq!(Fat.probe(&disk(&bytes)).unwrap(), None, "{what}");
    }
    for (what, at, value) in CONTRADICTIONS {
        let mut bytes = FAT12.make();
        bytes[at..at + value.len()].copy_from_slice(value);
        let found = Fat.used(&disk(&bytes));
        assert!(found.is_err_and(|error| error.kind() == ErrorKind::Corrupt), "{what}");
    }
    let mut bytes = FAT12.make();
    bytes[512..512 + 3 * 512].fill(0);
    assert_eq!(Fat.used(&disk(&bytes)).unwrap_err().kind(), ErrorKind::Corrupt, "an empty FAT");
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let right = Fat.used(&disk(&FAT32.make())).unwrap();
    for nth in 1..60 {
        let disk = FaultyDisk::new(disk(&FAT32.make()), [Fault::Once { nth }]);
        match crate::used(&disk) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            Ok(map) => assert!(right.extents.difference(&map.extents).is_empty()),
        }
    }
}

fn stays_inside(disk: &dyn ReadAt) {
    let size = ByteOffset::new(disk.geometry().size.get());
    if let Some(found) = Fat.probe(disk).unwrap() {
        assert!(found.head.end() <= size);
    }
    let map = crate::used(disk).unwrap();
    assert!(map.extents.end() <= size);
    assert_eq!(map.extents.align_out(map.unit, size), map.extents);
    assert!(map.certainty == Certainty::Exact || map.extents.total() == disk.geometry().size);
}

proptest! {
    #[test]
    fn any_boot_sector_is_survived(changes in proptest::collection::vec((0..96_usize, any::<u8>()), 1..6), which in 0..2) {
        let mut bytes = if which == 0 { FAT12.make() } else { FAT16.make() };
        changes.into_iter().for_each(|(at, value)| bytes[at] = value);
        stays_inside(&disk(&bytes));
    }

    #[test]
    fn any_table_is_survived(table in proptest::collection::vec(any::<u8>(), 1000..1200)) {
        let mut bytes = FAT12.make();
        bytes[515..515 + table.len()].copy_from_slice(&table);
        stays_inside(&disk(&bytes));
    }
}
