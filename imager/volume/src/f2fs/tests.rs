//! Small volumes made here and hostile ones made of them. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::F2fs;
use super::superblock::{MAGIC, crc32};
use crate::damaged::never_makes_smaller;
use crate::{Certainty, State, UsedBlocks};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
use proptest::prelude::{any, proptest};

const BLOCK: u64 = 4096;
const CP: u64 = 512;
const SIT: u64 = CP + 2 * 512;
const MAIN: u64 = SIT + 4 * 512;
const SEGMENTS: u64 = 60;
const BLOCKS: u64 = MAIN + SEGMENTS * 512;
const TAIL: u64 = 700;

/// A volume with some valid blocks: the table's first block counts in its second copy, its second block in the first.
/// Segment 7 is only in the journal.
struct Volume {
    disk: MemoryDisk,
}

/// What lies where, by the first block of the main area that a segment has.
const VALID: [(u64, &[u64]); 3] = [(0, &[0, 1, 9]), (7, &[511]), (57, &[100])];

impl Volume {
    fn new(is_compact: bool) -> Self {
        let volume = Self { disk: MemoryDisk::new(ByteLen::new(BLOCKS * BLOCK + TAIL), SectorSize::B512) };
        let mut sb = vec![0; 3072];
        for (at, value) in
            [(0, MAGIC), (16, 12), (20, 9), (48, 2 + 4 + SEGMENTS as u32), (52, 2), (56, 2), (60, 1)]
                .into_iter()
                .chain([(64, 1), (68, SEGMENTS as u32), (72, CP as u32), (76, CP as u32), (80, SIT as u32)])
                .chain([(84, SIT as u32 + 1024), (88, SIT as u32 + 1536), (92, MAIN as u32), (108, 7)])
        {
            put(&mut sb, at, &u32::to_le_bytes(value));
        }
        put(&mut sb, 36, &BLOCKS.to_le_bytes());
        put(&mut sb, 124, &[b'A', 0, 0xA9, 3]);
        volume.write(1024, &sb);
        volume.write(1024 + BLOCK, &sb);
        volume.pack(0, 1, 0x1);
        volume.pack(1, 4, if is_compact { 0x5 } else { 0x1 });
        let wrong = entry(&[3]);
        volume.write(SIT * BLOCK, &wrong);
        volume.write((SIT + 512) * BLOCK, &entry(VALID[0].1));
        // As many valid ones would make a journal that was lost look right: nothing of it has a checksum.
        volume.write((SIT + 512) * BLOCK + 7 * 74, &entry(&[3, 4]));
        volume.write((SIT + 1) * BLOCK + 2 * 74, &entry(VALID[2].1));
        let journal = [&[1, 0, 7, 0, 0, 0][..], &entry(VALID[1].1)].concat();
        let start = (CP + 512) * BLOCK;
        volume.write(if is_compact { start + BLOCK + 507 } else { start + 3 * BLOCK + 3584 }, &journal);
        volume
    }

    /// A checkpoint of eight blocks.
    fn pack(&self, number: u64, version: u64, flags: u32) {
        let mut block = vec![0; 4096];
        put(&mut block, 0, &version.to_le_bytes());
        put(&mut block, 16, &5_u64.to_le_bytes());
        for (at, value) in [(132, flags), (136, 8), (140, 1), (156, 64), (160, 64), (164, 4092)] {
            put(&mut block, at, &u32::to_le_bytes(value));
        }
        block[192] = 0x80;
        let sum = crc32(MAGIC, &block[..4092]);
        put(&mut block, 4092, &sum.to_le_bytes());
        for place in [CP + number * 512, CP + number * 512 + 7] {
            self.write(place * BLOCK, &block);
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.disk.write_all_at(ByteOffset::new(at), bytes).unwrap();
    }

    fn refused(&self, kind: ErrorKind, what: &str) {
        let error = F2fs.used(&self.disk).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An entry of the table in which these blocks are valid.
fn entry(valid: &[u64]) -> Vec<u8> {
    let mut entry = vec![0; 74];
    put(&mut entry, 0, &(valid.len() as u16 | 3 << 10).to_le_bytes());
    valid.iter().for_each(|&block| entry[2 + block as usize / 8] |= 0x80 >> (block % 8));
    entry
}

#[test]
fn valid_blocks_and_everything_outside_the_main_area_are_in() {
    for is_compact in [false, true] {
        let disk = Volume::new(is_compact).disk;
        let found = F2fs.probe(&disk).unwrap().unwrap();
        assert_eq!((found.label.as_deref(), found.state), (Some("AΩ"), State::Clean));
        assert_eq!((found.head.total().get(), found.size.get()), (2 * BLOCK, BLOCKS * BLOCK));
        let map = F2fs.used(&disk).unwrap();
        assert_eq!((map.certainty, map.unit.get()), (Certainty::Exact, BLOCK));
        assert_eq!(map.extents.total().get(), (MAIN + 5) * BLOCK + TAIL);
        assert!(map.extents.contains(Extent::first(ByteLen::new(MAIN * BLOCK))));
        for (segment, valid) in VALID {
            for block in valid {
                let start = ByteOffset::new((MAIN + segment * 512 + block) * BLOCK);
                let block = Extent::between(start, start.saturating_add(ByteLen::new(BLOCK)));
                assert!(map.extents.contains(block), "{segment}");
            }
        }
        assert_eq!(map.extents.end(), disk.geometry().extent().end(), "the tail");
    }
}

#[test]
fn only_what_an_unmount_wrote_last_is_believed() {
    for (flags, kind) in [
        (0, ErrorKind::Corrupt),
        (0x09, ErrorKind::Corrupt),
        (0x11, ErrorKind::Corrupt),
        (0x801, ErrorKind::Corrupt),
        (0x1001, ErrorKind::Corrupt),
        (0x4001, ErrorKind::Corrupt),
        (0x8001, ErrorKind::Unsupported),
    ] {
        let volume = Volume::new(false);
        volume.pack(1, 4, flags);
        volume.refused(kind, &format!("flags {flags:#x}"));
        let state = F2fs.probe(&volume.disk).unwrap().unwrap().state;
        assert!(matches!(state, State::Dirty(_)), "flags {flags:#x}");
    }
    // The next free block of the log that fsync writes to: the first of segment 0, at the version of the checkpoint.
    let volume = Volume::new(false);
    volume.write(MAIN * BLOCK + 4084, &4_u64.to_le_bytes());
    volume.refused(ErrorKind::Corrupt, "synced after the checkpoint");
    volume.write(MAIN * BLOCK + 4084, &3_u64.to_le_bytes());
    assert!(F2fs.used(&volume.disk).is_ok(), "of an older checkpoint");
}

#[test]
fn the_newest_checkpoint_counts_where_both_are_whole() {
    let volume = Volume::new(false);
    volume.pack(0, 5, 0);
    volume.refused(ErrorKind::Corrupt, "the first pack is newer and not of an unmount");
    volume.write((CP + 7) * BLOCK, &4_u64.to_le_bytes());
    volume.refused(ErrorKind::Corrupt, "its end is missing: it may have been finished, and damaged since");
    volume.pack(0, u64::MAX, 0);
    assert!(F2fs.used(&volume.disk).is_ok(), "versions wrap around");
    volume.write((CP + 512) * BLOCK + 100, &[1]);
    volume.refused(ErrorKind::Corrupt, "the only sound one is not of an unmount");
    volume.write(CP * BLOCK + 100, &[1]);
    volume.refused(ErrorKind::Corrupt, "none is whole");
}

#[test]
fn a_table_that_contradicts_itself_is_refused() {
    let journal = (CP + 512 + 3) * BLOCK + 3584;
    let cases: [(&str, u64, &[u8]); 5] = [
        ("a bit more than its count", (SIT + 512) * BLOCK + 5, &[1]),
        ("one block more than the checkpoint counts", (SIT + 512) * BLOCK + 74, &entry(&[5])),
        ("a journal that is too long", journal, &[7]),
        ("a journal of a segment that is not", journal + 2, &[60]),
        ("a journal that says so twice", journal, &[2, 0, 0, 0, 0, 0]),
    ];
    for (what, at, value) in cases {
        let volume = Volume::new(false);
        volume.write(at, value);
        if what.contains("twice") {
            volume.write(journal + 2 + 78, &[0; 78]);
        }
        volume.refused(ErrorKind::Corrupt, what);
    }
}

#[test]
fn superblocks_that_are_not_understood_are_refused() {
    for (what, at, value, kind) in [
        ("blocks of 16 KiB", 16, 14, ErrorKind::Unsupported),
        ("segments of 1 MiB", 20, 8, ErrorKind::Unsupported),
        ("zones", 2180, 2, ErrorKind::Unsupported),
        ("a read-only image", 2180, 0x4000, ErrorKind::Unsupported),
        ("a feature of the future", 2180, 0x8000, ErrorKind::Unsupported),
        ("a second device", 2201, 0x6465, ErrorKind::Unsupported),
        ("a checksum that is wrong", 2180, 0x800, ErrorKind::Corrupt),
        ("longer than the volume", 36, BLOCKS as u32 + 1, ErrorKind::Corrupt),
        ("shorter than its main area", 36, BLOCKS as u32 - 1, ErrorKind::Corrupt),
        ("three segments of checkpoints", 52, 3, ErrorKind::Corrupt),
        ("a table of one copy", 56, 1, ErrorKind::Corrupt),
        ("a gap before the main area", 92, MAIN as u32 + 1, ErrorKind::Corrupt),
        ("more segments than there are", 68, SEGMENTS as u32 + 1, ErrorKind::Corrupt),
        ("a payload of more than a segment", 1664, 512, ErrorKind::Corrupt),
    ] {
        let volume = Volume::new(false);
        for copy in [0, 1] {
            volume.write(1024 + copy * BLOCK + at, &u32::to_le_bytes(value));
        }
        volume.refused(kind, what);
    }
    let volume = Volume::new(false);
    volume.write(1024 + BLOCK + 68, &[0]);
    volume.refused(ErrorKind::Corrupt, "copies that differ");
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let right = F2fs.used(&Volume::new(false).disk).unwrap();
    for nth in 1..60 {
        let disk = FaultyDisk::new(Volume::new(false).disk, [Fault::Once { nth }]);
        match crate::used(&disk) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            Ok(map) => assert!(right.extents.difference(&map.extents).is_empty()),
        }
    }
}

#[test]
fn damage_never_makes_a_map_smaller() {
    for is_compact in [false, true] {
        // The superblocks, both checkpoints, both copies of the table.
        let blocks = (0..2)
            .chain(CP..CP + 8)
            .chain(CP + 512..CP + 520)
            .chain(SIT..SIT + 2)
            .chain(SIT + 512..SIT + 514);
        let sectors: Vec<u64> = blocks.flat_map(|block| block * 8..block * 8 + 8).collect();
        assert!(never_makes_smaller(&Volume::new(is_compact).disk, &sectors, 3000, 1) > 500);
    }
}

proptest! {
    #[test]
    fn anything_is_survived(changes in proptest::collection::vec((0..6_usize, 0..400_u64, any::<u8>()), 1..6)) {
        let volume = Volume::new(false);
        for (place, at, value) in changes {
            let start = [1024, 1024 + BLOCK, CP * BLOCK, (CP + 512) * BLOCK, (SIT + 512) * BLOCK, (CP + 515) * BLOCK + 3584];
            volume.write(start[place] + at, &[value]);
        }
        let size = volume.disk.geometry().extent().end();
        let map = crate::used(&volume.disk).unwrap();
        assert!(map.extents.end() <= size);
        assert!(map.certainty == Certainty::Exact || map.extents.total() == volume.disk.geometry().size);
    }
}
