//! A ring written as the kernel writes it, and what is read from it.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::super::checksum::crc32c;
use super::super::layout::Layout;
use super::super::superblock::Superblock;
use super::super::tests::{CHECKED, OLD, Recipe, UUID, put};
use super::{Log, read};
use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteOffset, SectorSize};
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

const BLOCK: usize = 512;

/// Writes records one after the other, round and round.
pub(in super::super) struct Writer {
    pub(in super::super) ring: Vec<u8>,
    at: usize,
    cycle: u32,
    is_checked: bool,
}

impl Writer {
    pub(in super::super) fn new(blocks: usize, is_checked: bool) -> Self {
        Self { ring: vec![0; blocks * BLOCK], at: 0, cycle: 1, is_checked }
    }

    fn blocks(&self) -> usize {
        self.ring.len() / BLOCK
    }

    pub(in super::super) fn lsn(&self) -> u64 {
        u64::from(self.cycle) << 32 | self.at as u64
    }

    /// Writes a record of operations; `tail` is itself where there is none.
    pub(in super::super) fn record(&mut self, operations: &[Vec<u8>], tail: Option<u64>) {
        let mut bytes = vec![0; BLOCK];
        put(&mut bytes, 0, &0xFEED_BABE_u32.to_be_bytes());
        put(&mut bytes, 4, &self.cycle.to_be_bytes());
        put(&mut bytes, 8, &2_u32.to_be_bytes());
        let body = operations.concat();
        put(&mut bytes, 12, &(body.len().next_multiple_of(BLOCK) as u32).to_be_bytes());
        put(&mut bytes, 16, &self.lsn().to_be_bytes());
        put(&mut bytes, 24, &tail.unwrap_or(self.lsn()).to_be_bytes());
        put(&mut bytes, 40, &(operations.len() as u32).to_be_bytes());
        put(&mut bytes, 300, &1_u32.to_be_bytes());
        put(&mut bytes, 304, &UUID);
        put(&mut bytes, 320, &32_768_u32.to_be_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        for block in 1..bytes.len() / BLOCK {
            let word: [u8; 4] = bytes[block * BLOCK..][..4].try_into().unwrap();
            put(&mut bytes, 40 + block * 4, &word);
            let turn = self.cycle + u32::from(self.at + block >= self.blocks());
            put(&mut bytes, block * BLOCK, &turn.to_be_bytes());
        }
        if self.is_checked {
            let sum = crc32c(&[&bytes[..328], &bytes[BLOCK..]]);
            put(&mut bytes, 32, &sum.to_le_bytes());
        }
        for block in bytes.chunks(BLOCK) {
            put(&mut self.ring, self.at * BLOCK, block);
            self.at += 1;
            if self.at == self.blocks() {
                (self.at, self.cycle) = (0, self.cycle + 1);
            }
        }
    }

    pub(in super::super) fn unmount(&mut self) {
        self.record(&[operation(0xAA, 0x20, b"nU\0\0\0\0\0\0")], None);
    }
}

fn operation(client: u8, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let mut operation = 7_u32.to_be_bytes().to_vec();
    operation.extend((bytes.len() as u32).to_be_bytes());
    operation.extend([client, flags, 0, 0]);
    operation.extend(bytes);
    operation
}

/// A transaction that logs `bytes` of the buffer at sector `place`.
fn transaction(place: u64, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut format = vec![0x3C, 0x12, 2, 0, 0, 0x90, 1, 0];
    format.extend(place.to_le_bytes());
    format.extend(1_u32.to_le_bytes());
    format.extend((((1_u64 << bytes.len().div_ceil(128).min(32)) - 1) as u32).to_le_bytes());
    let header = [&0x5452_414E_u32.to_le_bytes()[..], &[0; 12]].concat();
    let pieces: [(u8, &[u8]); 5] = [(1, b""), (0, &header), (0, &format), (0, bytes), (2, b"")];
    pieces.iter().map(|(flags, bytes)| operation(0x69, *flags, bytes)).collect()
}

/// What the log of a filesystem says when it holds `ring`.
fn verdict(recipe: Recipe, ring: &[u8]) -> Option<Log> {
    let disk = recipe.make();
    let sb = Superblock::read(&disk).unwrap().unwrap();
    let layout = Layout::new(&sb, recipe.size()).unwrap();
    assert_eq!(layout.log.len().to_usize(), Some(ring.len()));
    disk.write_all_at(layout.log.start(), ring).unwrap();
    read(&disk, &sb, &layout).ok()
}

fn superblock(recipe: Recipe) -> Vec<u8> {
    Superblock::read(&recipe.make()).unwrap().unwrap().bytes
}

fn writer(recipe: Recipe) -> Writer {
    let mut writer = Writer::new(recipe.log_basic_blocks(), recipe.is_checked);
    writer.unmount();
    writer
}

#[test]
fn what_would_be_replayed_must_be_the_superblock_as_it_is() {
    let sb = superblock(CHECKED);
    let changed = |at: usize, value: u8| {
        let mut sb = sb.clone();
        sb[at] ^= value;
        sb
    };
    let cut = |from: usize| sb[from..384].to_vec();
    let cases = [
        ("as it is", 0, cut(0), Some(Log::Covered)),
        ("free blocks", 0, changed(151, 9)[..384].to_vec(), Some(Log::Covered)),
        ("longer", 0, changed(15, 1)[..384].to_vec(), None),
        ("another group length", 0, changed(86, 1)[..384].to_vec(), None),
        ("another UUID", 0, changed(40, 1)[..384].to_vec(), None),
        ("a group's header", 1, cut(0), None),
    ];
    for (what, place, bytes, expected) in cases {
        let mut writer = writer(CHECKED);
        writer.record(&transaction(place, &bytes), None);
        assert_eq!(verdict(CHECKED, &writer.ring), expected, "{what}");
    }
}

#[test]
fn a_transaction_without_its_end_is_a_change() {
    let whole = transaction(0, &superblock(CHECKED)[..384]);
    for left in 1..whole.len() {
        let mut writer = writer(CHECKED);
        writer.record(&whole[..left], None);
        assert_eq!(verdict(CHECKED, &writer.ring), None, "{left} operations");
    }
}

#[test]
fn a_log_that_was_never_written_is_not_believed() {
    assert_eq!(verdict(OLD, &vec![0; OLD.log_basic_blocks() * BLOCK]), None);
}

/// xfsprogs clear a log by a record at its start with zeros behind it, and records of the turn before.
#[test]
fn a_cleared_log_adds_nothing_until_something_is_written() {
    let mut writer = writer(CHECKED);
    let blocks = writer.blocks();
    (writer.at, writer.cycle) = (0, 4);
    writer.unmount();
    for at in 20..blocks {
        put(&mut writer.ring, at * BLOCK, &3_u32.to_be_bytes());
    }
    assert_eq!(verdict(CHECKED, &writer.ring), Some(Log::Unmounted));
    writer.record(&transaction(8, &[1; 128]), None);
    assert_eq!(verdict(CHECKED, &writer.ring), None);
}

/// What is written to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Unmount,
    Superblock,
    Other(usize),
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        2 => Just(Entry::Unmount),
        3 => Just(Entry::Superblock),
        2 => (1..9_usize).prop_map(Entry::Other),
    ]
}

fn written(recipe: Recipe, entries: &[Entry], back: usize) -> (Writer, Vec<u64>) {
    let (mut writer, mut lsns) = (writer(recipe), Vec::new());
    let sb = superblock(recipe);
    for entry in entries {
        lsns.push(writer.lsn());
        let tail = Some(lsns[lsns.len().saturating_sub(1 + back)]);
        match entry {
            Entry::Unmount => writer.unmount(),
            Entry::Superblock => writer.record(&transaction(0, &sb[..384]), tail),
            Entry::Other(blocks) => writer.record(&transaction(8, &vec![0xA5; blocks * 400]), tail),
        }
    }
    (writer, lsns)
}

proptest! {
    #[test]
    fn logs_of_any_history_are_read_as_they_were_written(
        entries in proptest::collection::vec(entry(), 1..60),
        back in 0..4_usize,
        is_checked in any::<bool>(),
    ) {
        let recipe = if is_checked { CHECKED } else { OLD };
        let (writer, _) = written(recipe, &entries, back);
        let pending = &entries[entries.len().saturating_sub(1 + back)..];
        let expected = match entries.last() {
            Some(Entry::Unmount) => Some(Log::Unmounted),
            _ => pending.iter().all(|entry| *entry == Entry::Superblock).then_some(Log::Covered),
        };
        prop_assert_eq!(verdict(recipe, &writer.ring), expected);
    }

    /// A block of the last record that did not reach the disk: what was there before is from the turn before.
    #[test]
    fn a_torn_record_is_not_the_end_of_a_log(entries in proptest::collection::vec(entry(), 1..60), block in 0..16_usize) {
        let (before, _) = written(CHECKED, &entries, 0);
        let mut torn = written(CHECKED, &entries, 0).0;
        torn.record(&transaction(8, &[0x5A; 3000]), None);
        let len = 7;
        let at = (before.at + block % len) % before.blocks() * BLOCK;
        torn.ring[at..at + BLOCK].copy_from_slice(&before.ring[at..at + BLOCK]);
        torn.unmount();
        prop_assert_eq!(verdict(CHECKED, &torn.ring), None);
    }

    #[test]
    fn random_rings_are_survived(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8), entries in proptest::collection::vec(entry(), 1..30)) {
        let mut writer = written(OLD, &entries, 1).0;
        for (at, value) in changes {
            let at = at % writer.ring.len();
            writer.ring[at] = value;
        }
        let _ = verdict(OLD, &writer.ring);
    }
}

#[test]
fn a_ring_shorter_than_a_block_is_refused() {
    let disk = MemoryDisk::new(CHECKED.size(), SectorSize::B512);
    disk.write_all_at(ByteOffset::new(0), &superblock(CHECKED)).unwrap();
    let sb = Superblock::read(&disk).unwrap().unwrap();
    let mut layout = Layout::new(&sb, CHECKED.size()).unwrap();
    layout.log = imager_units::Extent::default();
    assert!(read(&disk, &sb, &layout).is_err());
}
