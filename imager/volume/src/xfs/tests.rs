//! Small filesystems made here, hostile ones made of them, and one of sixty-four tebibytes. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::Xfs;
use super::checksum::crc32c;
use super::log::Writer;
use crate::damaged::never_makes_smaller;
use crate::{Certainty, State, UsedBlocks, UsedMap};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, ExtentSet, SectorSize};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use std::collections::BTreeMap;

pub(super) const UUID: [u8; 16] = [7; 16];
const META_UUID: [u8; 16] = [9; 16];
const TAIL_BYTES: u64 = 3 * 512;
const LOG_BLOCKS: u64 = 64;
/// Where the trees begin, behind the headers; their other blocks lie behind the log.
const BY_BLOCK: u32 = 4;
const BY_COUNT: u32 = 5;
const LOG_AT: u64 = 8;
const TREES_AT: u32 = 80;

/// What to make: groups of equal length but for the last, each with the same free space, the log in group 1.
#[derive(Clone, Copy)]
pub(super) struct Recipe {
    pub(super) is_checked: bool,
    block_log: u8,
    groups: u64,
    group_blocks: u64,
    last_blocks: u64,
    /// Free runs of each group.
    free: &'static [(u32, u32)],
}

/// Three groups of 1 KiB blocks, the last one shorter, and a tail of three sectors.
pub(super) const CHECKED: Recipe = Recipe {
    is_checked: true,
    block_log: 10,
    groups: 3,
    group_blocks: 256,
    last_blocks: 200,
    free: &[(90, 10), (120, 3), (150, 50)],
};
pub(super) const OLD: Recipe = Recipe { is_checked: false, ..CHECKED };

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn seal(bytes: &mut [u8], at: usize) {
    put(bytes, at, &[0; 4]);
    let sum = crc32c(&[bytes]);
    put(bytes, at, &sum.to_le_bytes());
}

impl Recipe {
    fn block_bytes(self) -> u64 {
        1 << self.block_log
    }

    fn blocks(self) -> u64 {
        (self.groups - 1) * self.group_blocks + self.last_blocks
    }

    pub(super) fn size(self) -> ByteLen {
        ByteLen::new(self.blocks() * self.block_bytes() + TAIL_BYTES)
    }

    pub(super) fn log_basic_blocks(self) -> usize {
        (LOG_BLOCKS * self.block_bytes() / 512) as usize
    }

    fn blocks_of(self, group: u64) -> u64 {
        if group + 1 == self.groups { self.last_blocks } else { self.group_blocks }
    }

    fn extent(self, group: u64, from: u64, to: u64) -> Extent {
        let at = |block| ByteOffset::new((group * self.group_blocks + block) * self.block_bytes());
        Extent::between(at(from), at(to))
    }

    fn superblock(self, free: u64) -> Vec<u8> {
        let mut sb = vec![0; 512];
        let shift = self.group_blocks.next_power_of_two().trailing_zeros();
        put(&mut sb, 0, b"XFSB");
        for (at, value) in
            [(4, self.block_bytes()), (84, self.group_blocks), (88, self.groups), (96, LOG_BLOCKS)]
        {
            put(&mut sb, at, &(value as u32).to_be_bytes());
        }
        for (at, value) in [(8, self.blocks()), (48, 1 << shift | LOG_AT), (144, free)] {
            put(&mut sb, at, &value.to_be_bytes());
        }
        put(&mut sb, 32, &UUID);
        put(&mut sb, 100, &[0xB4, if self.is_checked { 0xA5 } else { 0xA4 }, 2, 0]);
        put(&mut sb, 108, b"small");
        put(&mut sb, 120, &[self.block_log, 9, 8, 0, shift as u8]);
        put(&mut sb, 200, &0x18A_u32.to_be_bytes());
        if self.is_checked {
            put(&mut sb, 216, &7_u32.to_be_bytes());
            put(&mut sb, 248, &META_UUID);
            seal(&mut sb, 224);
        }
        sb
    }

    /// The filesystem as it was left by an unmount.
    pub(super) fn make(self) -> MemoryDisk {
        let free: Vec<Vec<(u32, u32)>> = vec![self.free.to_vec(); self.groups as usize];
        self.make_with(&free, &[])
    }

    /// The same with other free space; the trees' blocks behind their roots lie at `spare`, in this order.
    fn make_with(self, free: &[Vec<(u32, u32)>], spare: &[u32]) -> MemoryDisk {
        let disk = MemoryDisk::new(self.size(), SectorSize::B512);
        let mut total = 0;
        for (group, runs) in (0..self.groups).zip(free) {
            let mut spare = spare.iter().copied();
            let mut by_count = runs.clone();
            by_count.sort_unstable_by_key(|&(start, count)| (count, start));
            let levels = [(*b"ABTB", *b"AB3B", BY_BLOCK, runs), (*b"ABTC", *b"AB3C", BY_COUNT, &by_count)]
                .map(|(old, new, root, records)| {
                    let magic = if self.is_checked { new } else { old };
                    let tree = Tree { recipe: self, group, magic, root };
                    let blocks = tree.build(records, &mut spare);
                    for (block, bytes) in &blocks.1 {
                        disk.write_all_at(self.extent(group, u64::from(*block), 0).start(), bytes).unwrap();
                    }
                    (blocks.0, blocks.1.len() as u32)
                });
            let inner = levels[0].1 + levels[1].1 - 2;
            let free: u32 = runs.iter().map(|run| run.1).sum();
            total += u64::from(free) + u64::from(inner) + 4;
            let agf = self.agf(group, runs, free, inner, [levels[0].0, levels[1].0]);
            let start = self.extent(group, 0, 0).start();
            disk.write_all_at(start.saturating_add(ByteLen::new(512)), &agf).unwrap();
        }
        disk.write_all_at(ByteOffset::ZERO, &self.superblock(total)).unwrap();
        let mut log = Writer::new(self.log_basic_blocks(), self.is_checked);
        log.unmount();
        disk.write_all_at(self.extent(1, LOG_AT, 0).start(), &log.ring).unwrap();
        disk
    }

    fn agf(self, group: u64, runs: &[(u32, u32)], free: u32, inner: u32, levels: [u32; 2]) -> Vec<u8> {
        let mut agf = vec![0; 512];
        put(&mut agf, 0, b"XAGF");
        let longest = runs.iter().map(|run| run.1).max().unwrap_or(0);
        for (at, value) in [
            (4, 1),
            (8, group as u32),
            (12, self.blocks_of(group) as u32),
            (16, BY_BLOCK),
            (20, BY_COUNT),
            (28, levels[0]),
            (32, levels[1]),
            (48, 4),
            (52, free),
            (56, longest),
            (60, inner),
        ] {
            put(&mut agf, at, &value.to_be_bytes());
        }
        put(&mut agf, 64, &META_UUID);
        if self.is_checked {
            seal(&mut agf, 216);
        }
        agf
    }
}

/// One tree of a group.
struct Tree {
    recipe: Recipe,
    group: u64,
    magic: [u8; 4],
    root: u32,
}

impl Tree {
    /// Its levels and blocks; every block but the root takes a number of `spare`.
    fn build(
        &self,
        records: &[(u32, u32)],
        spare: &mut dyn Iterator<Item = u32>,
    ) -> (u32, BTreeMap<u32, Vec<u8>>) {
        let room = self.recipe.block_bytes() as usize - self.header_bytes();
        let mut blocks = BTreeMap::new();
        let mut row: Vec<Vec<[u32; 3]>> = pieces(records, room / 8, |&(start, count)| [start, count, 0]);
        for level in 0.. {
            let is_root = row.len() == 1;
            let numbers: Vec<u32> =
                row.iter().map(|_| if is_root { self.root } else { spare.next().unwrap() }).collect();
            for (place, entries) in row.iter().enumerate() {
                let left = place.checked_sub(1).map_or(u32::MAX, |left| numbers[left]);
                let right = numbers.get(place + 1).copied().unwrap_or(u32::MAX);
                let bytes = self.block(level, numbers[place], [left, right], entries);
                blocks.insert(numbers[place], bytes);
            }
            if is_root {
                return (level + 1, blocks);
            }
            let above: Vec<[u32; 3]> = row
                .iter()
                .zip(&numbers)
                .map(|(entries, &number)| [entries[0][0], entries[0][1], number])
                .collect();
            row = pieces(&above, room / 12, |entry| *entry);
        }
        unreachable!()
    }

    fn header_bytes(&self) -> usize {
        if self.recipe.is_checked { 56 } else { 16 }
    }

    fn block(&self, level: u32, number: u32, neighbours: [u32; 2], entries: &[[u32; 3]]) -> Vec<u8> {
        let mut bytes = vec![0; self.recipe.block_bytes() as usize];
        put(&mut bytes, 0, &self.magic);
        put(&mut bytes, 4, &(level as u16).to_be_bytes());
        put(&mut bytes, 6, &(entries.len() as u16).to_be_bytes());
        put(&mut bytes, 8, &neighbours[0].to_be_bytes());
        put(&mut bytes, 12, &neighbours[1].to_be_bytes());
        let (header, room) = (self.header_bytes(), bytes.len() - self.header_bytes());
        for (place, [start, count, block]) in entries.iter().enumerate() {
            put(&mut bytes, header + place * 8, &start.to_be_bytes());
            put(&mut bytes, header + place * 8 + 4, &count.to_be_bytes());
            if level > 0 {
                put(&mut bytes, header + room / 12 * 8 + place * 4, &block.to_be_bytes());
            }
        }
        if self.recipe.is_checked {
            let at = self.recipe.extent(self.group, u64::from(number), 0).start().get() / 512;
            put(&mut bytes, 16, &at.to_be_bytes());
            put(&mut bytes, 32, &META_UUID);
            put(&mut bytes, 48, &(self.group as u32).to_be_bytes());
            seal(&mut bytes, 52);
        }
        bytes
    }
}

/// Cuts a row into blocks of at most `most` entries; there is always one.
fn pieces<T>(row: &[T], most: usize, entry: impl Fn(&T) -> [u32; 3]) -> Vec<Vec<[u32; 3]>> {
    let mut blocks: Vec<Vec<[u32; 3]>> =
        row.chunks(most).map(|piece| piece.iter().map(&entry).collect()).collect();
    if blocks.is_empty() {
        blocks.push(Vec::new());
    }
    blocks
}

#[test]
fn free_blocks_are_out_and_everything_else_is_in() {
    for recipe in [CHECKED, OLD] {
        let disk = recipe.make();
        let found = Xfs.probe(&disk).unwrap().unwrap();
        assert_eq!((found.kind, found.label.as_deref()), ("xfs", Some("small")));
        assert_eq!((found.state, found.block.get()), (State::Clean, 1024));
        let map = Xfs.used(&disk).unwrap();
        assert_eq!((map.certainty, map.unit.get()), (Certainty::Exact, 1024));
        let runs = |group| recipe.free.iter().map(move |&(start, count)| (group, start, count));
        let free: ExtentSet = (0..3)
            .flat_map(runs)
            .map(|(group, start, count)| recipe.extent(group, start.into(), (start + count).into()))
            .collect();
        assert_eq!(map.extents, free.complement(Extent::first(recipe.size())));
        let heads: Vec<Extent> = (0..3).map(|group| recipe.extent(group, 0, 1)).collect();
        assert_eq!(found.head.iter().collect::<Vec<_>>(), heads);
    }
}

#[test]
fn sixty_four_tebibytes_are_mapped_without_32_bit_arithmetic() {
    let recipe = Recipe {
        block_log: 12,
        groups: 64,
        group_blocks: 1 << 28,
        last_blocks: 1 << 28,
        free: &[(100, (1 << 28) - 101)],
        ..CHECKED
    };
    let disk = recipe.make();
    let map = Xfs.used(&disk).unwrap();
    assert_eq!(map.extents.total().get(), 64 * 101 * 4096 + TAIL_BYTES);
    assert!(map.extents.contains(recipe.extent(63, (1 << 28) - 1, 1 << 28)));
    assert!(!map.extents.overlaps(recipe.extent(63, 100, (1 << 28) - 1)));
}

type Fields = &'static [(usize, &'static [u8])];

/// Fields of the superblock (and, from 512 on, of the first group's header and trees), and what they must lead to.
const HOSTILE: [(&str, Fields, ErrorKind); 26] = [
    ("no blocks", &[(8, &[0; 8])], ErrorKind::Corrupt),
    ("more blocks than the volume", &[(14, &[9])], ErrorKind::Corrupt),
    ("blocks that make bytes overflow", &[(8, &[0xFF; 8])], ErrorKind::Corrupt),
    ("block size and its logarithm", &[(4, &[0, 0, 8, 0])], ErrorKind::Corrupt),
    ("block size of 2^200", &[(120, &[200])], ErrorKind::Corrupt),
    ("sectors larger than blocks", &[(102, &[8, 0]), (121, &[11])], ErrorKind::Corrupt),
    ("groups without blocks", &[(84, &[0; 4])], ErrorKind::Corrupt),
    ("no groups", &[(88, &[0; 4])], ErrorKind::Corrupt),
    ("one group too many", &[(91, &[4])], ErrorKind::Corrupt),
    ("one group too few", &[(91, &[2])], ErrorKind::Corrupt),
    ("logarithm of the group", &[(124, &[9])], ErrorKind::Corrupt),
    ("a log outside of its group", &[(54, &[0x01, 0xF0])], ErrorKind::Corrupt),
    ("a log in no group", &[(54, &[0x7F])], ErrorKind::Corrupt),
    ("a log on the headers", &[(55, &[0])], ErrorKind::Corrupt),
    ("a log elsewhere", &[(48, &[0; 8])], ErrorKind::Unsupported),
    ("a realtime part", &[(23, &[1])], ErrorKind::Unsupported),
    ("being made", &[(126, &[1])], ErrorKind::Corrupt),
    ("version 3", &[(101, &[0xA3])], ErrorKind::Unsupported),
    ("unknown version bits", &[(200, &[0x40])], ErrorKind::Unsupported),
    ("another count of free blocks", &[(151, &[1])], ErrorKind::Corrupt),
    ("another group's header", &[(512 + 11, &[1])], ErrorKind::Corrupt),
    ("another group's length", &[(512 + 15, &[1])], ErrorKind::Corrupt),
    ("a tree without levels", &[(512 + 31, &[0])], ErrorKind::Corrupt),
    ("a tree of 2^24 levels", &[(512 + 28, &[1])], ErrorKind::Corrupt),
    ("a root behind the group", &[(512 + 18, &[9])], ErrorKind::Corrupt),
    ("a longer run", &[(4096 + 16 + 7, &[11])], ErrorKind::Corrupt),
];

#[test]
fn contradictions_are_refused_with_a_reason() {
    for (what, fields, kind) in HOSTILE {
        let disk = OLD.make();
        for &(at, bytes) in fields {
            disk.write_all_at(ByteOffset::new(at as u64), bytes).unwrap();
        }
        match Xfs.used(&disk) {
            Ok(map) => panic!("{what}: {map:?}"),
            Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
        }
        assert!(Xfs.probe(&disk).unwrap().is_some(), "{what}");
        assert!(matches!(crate::used(&disk).unwrap().certainty, Certainty::Whole(_)), "{what}");
    }
}

/// Bits of version 5 that are not known, or known to change what the map is made of.
#[test]
fn feature_bits_of_version_5_decide() {
    let with = |at: usize, bits: u32| {
        let disk = CHECKED.make();
        let mut sb = vec![0; 512];
        disk.read_exact_at(ByteOffset::ZERO, &mut sb).unwrap();
        put(&mut sb, at, &bits.to_be_bytes());
        seal(&mut sb, 224);
        disk.write_all_at(ByteOffset::ZERO, &sb).unwrap();
        Xfs.used(&disk).map_err(|error| error.kind())
    };
    for bits in [4, 0x7, 0x2F, 0xEF] {
        assert!(with(216, bits).is_ok(), "{bits:#x}");
    }
    for (at, bits) in [(216, 0x104), (216, 0x204), (216, 0x8000_0004), (212, 0x10), (220, 2)] {
        assert_eq!(with(at, bits), Err(ErrorKind::Unsupported), "{bits:#x} at {at}");
    }
    assert_eq!(with(216, 0x14), Err(ErrorKind::Corrupt), "needsrepair");
    assert_eq!(with(216, 0), Err(ErrorKind::Corrupt), "structures hold the other UUID");
    assert!(with(208, 0xFFFF).is_ok(), "compatible bits");
}

#[test]
fn a_log_that_is_called_free_is_noticed() {
    let free = vec![vec![(60, 40)]; 3];
    let error = OLD.make_with(&free, &[]);
    assert!(Xfs.used(&error).unwrap_err().to_string().contains("log"));
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let right = Xfs.used(&CHECKED.make()).unwrap();
    for nth in 1..60 {
        let disk = FaultyDisk::new(CHECKED.make(), [Fault::Once { nth }]);
        match crate::used(&disk) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            Ok(map) => assert!(right.extents.difference(&map.extents).is_empty()),
        }
    }
}

/// Without checksums the two trees and the counts have to agree.
#[test]
fn damage_never_makes_a_map_smaller() {
    for recipe in [CHECKED, OLD] {
        let heads = (0..3).flat_map(|group| {
            let start = recipe.extent(group, 0, 0).start().get() / 512;
            start..start + 6 * 2
        });
        let log = recipe.extent(1, LOG_AT, 0).start().get() / 512;
        let sectors: Vec<u64> = heads.chain(log..log + 8).collect();
        assert!(never_makes_smaller(&recipe.make(), &sectors, 3000, 1) > 200);
    }
}

fn stays_inside(disk: &dyn ReadAt) -> UsedMap {
    let size = ByteOffset::new(disk.geometry().size.get());
    if let Some(found) = Xfs.probe(disk).unwrap() {
        assert!(found.head.end() <= size);
    }
    let map = crate::used(disk).unwrap();
    assert!(map.extents.end() <= size);
    assert_eq!(map.extents.align_out(map.unit, size), map.extents);
    map
}

/// Groups of 40960 blocks, so that trees have up to three levels.
const WIDE: Recipe = Recipe { groups: 2, group_blocks: 40_960, last_blocks: 40_960, ..CHECKED };

proptest! {
    /// Trees of any shape, their blocks anywhere, against the runs that went into them.
    #[test]
    fn trees_of_any_shape_give_what_was_put_in(
        gaps in proptest::collection::vec((1..4_u32, 1..4_u32), 0..9000),
        seed in any::<u32>(),
        is_checked in any::<bool>(),
    ) {
        let recipe = Recipe { is_checked, ..WIDE };
        let mut at = 1000;
        let runs: Vec<(u32, u32)> = gaps
            .iter()
            .map_while(|&(gap, len)| {
                let run = (at + gap, len);
                at += gap + len;
                (at < 40_960).then_some(run)
            })
            .collect();
        let mut spare: Vec<u32> = (TREES_AT..1000).collect();
        spare.sort_by_key(|block| (block ^ seed).wrapping_mul(2_654_435_761));
        let disk = recipe.make_with(&[runs.clone(), runs.clone()], &spare);
        let free: ExtentSet = (0..2)
            .flat_map(|group| runs.iter().map(move |&(start, count)| (group, u64::from(start), u64::from(count))))
            .map(|(group, start, count)| recipe.extent(group, start, start + count))
            .collect();
        prop_assert_eq!(Xfs.used(&disk).unwrap().extents, free.complement(Extent::first(recipe.size())));
    }

    /// Everything that decides is under a checksum: a flipped bit is noticed or did not matter.
    #[test]
    fn a_flipped_bit_never_makes_a_checked_map_smaller(at in 0..6144_u64, group in 0..3_u64, bit in 0..8_u8) {
        let disk = CHECKED.make();
        let right = Xfs.used(&disk).unwrap();
        let at = CHECKED.extent(group, 0, 0).start().saturating_add(ByteLen::new(at));
        let mut byte = [0];
        disk.read_exact_at(at, &mut byte).unwrap();
        disk.write_all_at(at, &[byte[0] ^ 1 << bit]).unwrap();
        let map = stays_inside(&disk);
        prop_assert!(right.extents.difference(&map.extents).is_empty());
    }

    #[test]
    fn bytes_without_a_checksum_may_say_anything(changes in proptest::collection::vec((0..6144_u64, any::<u8>()), 1..6)) {
        let disk = OLD.make();
        for (at, value) in changes {
            disk.write_all_at(ByteOffset::new(at), &[value]).unwrap();
        }
        stays_inside(&disk);
    }
}
