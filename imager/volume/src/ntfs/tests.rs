//! A small volume made here, whose file table lies in two pieces, and hostile ones made of it. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::Ntfs;
use super::boot::{BootSector, Layout};
use super::runs::{Run, decode};
use crate::{Certainty, State, UsedBlocks};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

const CLUSTER: usize = 1024;
const CLUSTERS: usize = 200;
const SIZE: usize = CLUSTERS * CLUSTER + 1024;
/// Where things lie, in clusters: the table in two pieces, its list, its copy, log, bitmap, a directory, files.
const TABLE: usize = 8;
const TABLE_END: usize = 40;
const LIST: usize = 60;
const MIRROR: usize = 100;
const LOG: usize = 70;
const BITMAP: usize = 90;
const DIRECTORY: usize = 92;
const HIBERFIL: usize = 110;
const FILE: usize = 150;
const USED: [(usize, usize); 9] = [
    (0, 8),
    (TABLE, 12),
    (TABLE_END, 4),
    (LIST, 1),
    (LOG, 8),
    (BITMAP, 1),
    (DIRECTORY, 1),
    (MIRROR, 4),
    (HIBERFIL, 4),
];

fn resident(kind: u32, name: &str, value: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = 24 + name.len();
    let mut bytes = vec![0; (at + value.len()).next_multiple_of(8)];
    put(&mut bytes, 0, &kind.to_le_bytes());
    let len = bytes.len() as u32;
    put(&mut bytes, 4, &len.to_le_bytes());
    put(&mut bytes, 9, &[name.len() as u8 / 2, 24]);
    put(&mut bytes, 16, &(value.len() as u32).to_le_bytes());
    put(&mut bytes, 20, &[at as u8]);
    put(&mut bytes, 24, &name);
    put(&mut bytes, at, value);
    bytes
}

/// An attribute, or from `vcn` on a part of one, in runs of clusters.
fn outside(kind: u32, name: &str, vcn: usize, runs: &[(usize, usize)], len: usize) -> Vec<u8> {
    let mut bytes = resident(kind, name, &[]);
    bytes.resize(72, 0);
    put(&mut bytes, 64, &name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    put(&mut bytes, 8, &[1]);
    put(&mut bytes, 10, &[64]);
    put(&mut bytes, 16, &(vcn as u64).to_le_bytes());
    let clusters: usize = runs.iter().map(|run| run.1).sum();
    put(&mut bytes, 24, &((vcn + clusters) as u64).wrapping_sub(1).to_le_bytes());
    put(&mut bytes, 32, &[72]);
    put(&mut bytes, 40, &(CLUSTER as u64 * clusters as u64).to_le_bytes());
    put(&mut bytes, 48, &(len as u64).to_le_bytes());
    put(&mut bytes, 56, &(len as u64).to_le_bytes());
    let mut before = 0;
    for &(lcn, len) in runs {
        bytes.push(0x21);
        bytes.push(len as u8);
        bytes.extend((lcn as i16 - before).to_le_bytes());
        before = lcn as i16;
    }
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let len = bytes.len() as u32;
    put(&mut bytes, 4, &len.to_le_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Replaces the last two bytes of every 512, as is done when a record is written.
fn protect(bytes: &mut [u8], at: usize) {
    put(bytes, 4, &[at as u8, 0, (bytes.len() / 512 + 1) as u8, 0]);
    put(bytes, at, &[7, 0]);
    for n in 1..=bytes.len() / 512 {
        let kept = [bytes[n * 512 - 2], bytes[n * 512 - 1]];
        put(bytes, at + 2 * n, &kept);
        put(bytes, n * 512 - 2, &[7, 0]);
    }
}

fn record(base: u64, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    put(&mut bytes, 0, b"FILE");
    put(&mut bytes, 20, &[56, 0, 1]);
    put(&mut bytes, 32, &base.to_le_bytes());
    let body = [attributes.concat(), vec![0xFF; 4], vec![0; 4]].concat();
    put(&mut bytes, 56, &body);
    put(&mut bytes, 24, &(56 + body.len() as u32).to_le_bytes());
    protect(&mut bytes, 42);
    bytes
}

fn list_entry(kind: u32, vcn: u64, record: u64) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    put(&mut bytes, 0, &kind.to_le_bytes());
    put(&mut bytes, 4, &[32, 0, 0, 26]);
    put(&mut bytes, 8, &vcn.to_le_bytes());
    put(&mut bytes, 16, &(1 << 48 | record).to_le_bytes());
    bytes
}

/// Entries of an index behind a header of 16 bytes: the names with their records, and the end.
fn index(names: &[(&str, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    put(&mut bytes, 0, &[16]);
    for (name, record) in names {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut entry = vec![0; (82 + name.len()).next_multiple_of(8)];
        let len = entry.len() as u16;
        put(&mut entry, 0, &(1 << 48 | record).to_le_bytes());
        put(&mut entry, 8, &len.to_le_bytes());
        put(&mut entry, 80, &[name.len() as u8 / 2]);
        put(&mut entry, 82, &name);
        bytes.extend(entry);
    }
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0]);
    bytes
}

type Log = fn() -> Vec<u8>;

/// What varies.
#[derive(Clone, Copy)]
struct Recipe {
    flags: u16,
    hiberfil: &'static [u8],
    log: Log,
}

const CLEAN: Recipe = Recipe { flags: 0, hiberfil: b"wake", log: || vec![0xFF; 8 * CLUSTER] };

impl Recipe {
    fn make(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        put(&mut bytes, 3, b"NTFS    ");
        put(&mut bytes, 11, &[0, 2, 2]);
        put(&mut bytes, 40, &(CLUSTERS as u64 * 2 + 1).to_le_bytes());
        put(&mut bytes, 48, &(TABLE as u64).to_le_bytes());
        put(&mut bytes, 56, &(MIRROR as u64).to_le_bytes());
        put(&mut bytes, 64, &[0xF6]);
        put(&mut bytes, 72, &0x0123_4567_89AB_CDEF_u64.to_le_bytes());
        for (number, record) in self.records() {
            let at = if number < 12 { TABLE + number } else { TABLE_END + number - 12 };
            put(&mut bytes, at * CLUSTER, &record);
            if number < 4 {
                put(&mut bytes, (MIRROR + number) * CLUSTER, &record);
            }
        }
        let list = [list_entry(0x10, 0, 0), list_entry(0x80, 12, 10), list_entry(0x80, 0, 0)].concat();
        put(&mut bytes, LIST * CLUSTER, &list);
        put(&mut bytes, LOG * CLUSTER, &(self.log)());
        put(&mut bytes, HIBERFIL * CLUSTER, self.hiberfil);
        let mut block = vec![0; 1024];
        put(&mut block, 0, b"INDX");
        put(&mut block, 24, &index(&[("$MFT", 0), ("a", 13), ("HIBERFIL.sys", 11)]));
        put(&mut block, 24, &[40]);
        block.copy_within(40..900, 64);
        protect(&mut block, 40);
        put(&mut bytes, DIRECTORY * CLUSTER, &block);
        for (from, len) in USED.into_iter().chain([(FILE, 3)]) {
            (from..from + len).for_each(|n| bytes[BITMAP * CLUSTER + n / 8] |= 1 << (n % 8));
        }
        bytes
    }

    fn records(&self) -> Vec<(usize, Vec<u8>)> {
        let name: Vec<u8> = "Ω".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut information = vec![0; 12];
        put(&mut information, 8, &[3, 1]);
        put(&mut information, 10, &self.flags.to_le_bytes());
        let root = [&[0x30, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 0, 1, 0, 0, 0][..], &index(&[])].concat();
        let table = outside(0x80, "", 0, &[(TABLE, 12)], 16 * CLUSTER);
        vec![
            (0, record(0, &[outside(0x20, "", 0, &[(LIST, 1)], 96), table])),
            (1, record(0, &[outside(0x80, "", 0, &[(MIRROR, 4)], 4096)])),
            (2, record(0, &[outside(0x80, "", 0, &[(LOG, 8)], 8 * CLUSTER)])),
            (3, record(0, &[resident(0x60, "", &name), resident(0x70, "", &information)])),
            (
                5,
                record(
                    0,
                    &[resident(0x90, "$I30", &root), outside(0xA0, "$I30", 0, &[(DIRECTORY, 1)], CLUSTER)],
                ),
            ),
            (6, record(0, &[outside(0x80, "", 0, &[(BITMAP, 1)], CLUSTERS / 8)])),
            (10, record(1 << 48, &[outside(0x80, "", 12, &[(TABLE_END, 4)], 0)])),
            (11, record(0, &[outside(0x80, "", 0, &[(HIBERFIL, 4)], 4 * CLUSTER)])),
            (14, record(0, &[outside(0x80, "", 0, &[(FILE, 3)], 3000)])),
        ]
    }
}

/// A restart page, and a second that is one newer.
fn restart_pages(version: u8, client: u16, flags: u8) -> Vec<u8> {
    let page = |lsn: u8, client: u16, flags: u8| {
        let mut page = vec![0; 4096];
        put(&mut page, 0, b"RSTR");
        put(&mut page, 17, &[16, 0, 0, 0, 16, 0, 0, 48, 0, 0, 0, version]);
        put(&mut page, 48, &[lsn]);
        put(&mut page, 60, &client.to_le_bytes());
        put(&mut page, 62, &[flags]);
        protect(&mut page, 30);
        page
    };
    [page(1, 0, 0), page(2, client, flags)].concat()
}

fn disk(bytes: &[u8]) -> MemoryDisk {
    MemoryDisk::from_bytes(bytes, SectorSize::B512)
}

fn clusters(from: usize, len: usize) -> Extent {
    let at = |cluster: usize| ByteOffset::new((cluster * CLUSTER) as u64);
    Extent::between(at(from), at(from + len))
}

fn refusal(bytes: &[u8]) -> String {
    let error = Ntfs.used(&disk(bytes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    error.to_string()
}

#[test]
fn what_the_bitmap_has_and_the_tail_are_in() {
    let disk = disk(&CLEAN.make());
    let found = Ntfs.probe(&disk).unwrap().unwrap();
    assert_eq!((found.uuid.as_deref(), found.label.as_deref()), (Some("0123456789ABCDEF"), Some("Ω")));
    assert_eq!((found.state, found.block.get()), (State::Clean, 1024));
    let map = Ntfs.used(&disk).unwrap();
    let tail = Extent::between(clusters(CLUSTERS, 0).start(), ByteOffset::new(SIZE as u64));
    let expected = USED.into_iter().chain([(FILE, 3)]).map(|(from, len)| clusters(from, len)).chain([tail]);
    assert_eq!(map.extents, expected.collect());
    assert!(
        found
            .head
            .contains(Extent::between(ByteOffset::new(SIZE as u64 - 512), ByteOffset::new(SIZE as u64)))
    );
    assert!(found.head.difference(&map.extents).is_empty());
}

#[test]
fn a_cluster_that_the_bitmap_lacks_is_missed_also_in_the_tables_second_piece() {
    for (at, who) in [(FILE + 2, "file record 14"), (LOG, "file record 2"), (TABLE_END, "file record 10")] {
        let mut bytes = CLEAN.make();
        bytes[BITMAP * CLUSTER + at / 8] &= !(1 << (at % 8));
        assert_eq!(refusal(&bytes), format!("{who} has clusters that the bitmap ($Bitmap) calls free"));
    }
}

#[test]
fn whoever_was_not_left_in_order_is_whole() {
    for flags in [1, 0x4000, 0x4003] {
        assert!(refusal(&Recipe { flags, ..CLEAN }.make()).contains("marked dirty"));
    }
    for hiberfil in [b"hibr", b"HIBR", b"RSTR"] {
        assert!(refusal(&Recipe { hiberfil, ..CLEAN }.make()).contains("Windows is hibernated"));
    }
    let logs: [(Log, &str); 6] = [
        (|| restart_pages(1, 0xFFFF, 0), ""),
        (|| restart_pages(1, 0, 2), ""),
        (|| restart_pages(1, 0, 0), "not in place yet"),
        (|| restart_pages(2, 0xFFFF, 2), "log version 2"),
        (|| restart_pages(1, 0xFFFF, 2)[..4096].to_vec(), "damaged"),
        (|| vec![0xFF; 4096], "damaged"),
    ];
    for (log, why) in logs {
        let disk = disk(&Recipe { log, ..CLEAN }.make());
        match (Ntfs.probe(&disk).unwrap().unwrap().state, Ntfs.used(&disk)) {
            (State::Clean, Ok(_)) => assert!(why.is_empty()),
            (State::Dirty(state), Err(error)) => {
                assert!(!why.is_empty() && state.contains(why) && error.to_string().contains(why), "{state}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}

/// What is changed, where, to what, and what is said of it.
const DAMAGE: [(&str, usize, &[u8], &str); 12] = [
    ("sectors of 300 bytes", 11, &[44, 1], "sector size"),
    ("three sectors a cluster", 13, &[3], "cluster size"),
    ("clusters of 16 MiB", 13, &[0xF1], "cluster size"),
    ("records of 8 bytes", 64, &[0xFD], "file record"),
    ("too long", 42, &[1], "longer than its volume"),
    ("the table outside", 50, &[1], "lies outside"),
    ("another beginning of the table", 48, &[9], "does not begin"),
    ("a copy elsewhere", 56, &[101], "differ"),
    ("a torn record", TABLE * CLUSTER + 510, &[0], "written in part"),
    ("the copy of another record", MIRROR * CLUSTER + 70, &[1], "differ"),
    ("a record found damaged", (TABLE + 9) * CLUSTER, b"BAAD", "found damaged"),
    ("a list that names others' parts", LIST * CLUSTER + 48, &[11], "not its own"),
];

#[test]
fn damage_is_refused() {
    for (what, at, value, why) in DAMAGE {
        let mut bytes = CLEAN.make();
        put(&mut bytes, at, value);
        let said = refusal(&bytes);
        assert!(said.contains(why), "{what}: {said}");
        let map = crate::used(&disk(&bytes)).unwrap();
        assert!(matches!(map.certainty, Certainty::Whole(_)), "{what}");
    }
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let right = Ntfs.used(&disk(&CLEAN.make())).unwrap();
    for nth in 1..60 {
        let disk = FaultyDisk::new(disk(&CLEAN.make()), [Fault::Once { nth }]);
        match crate::used(&disk) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            Ok(map) => assert!(right.extents.difference(&map.extents).is_empty()),
        }
    }
}

fn stays_inside(disk: &dyn ReadAt) {
    let size = ByteOffset::new(disk.geometry().size.get());
    if let Some(found) = Ntfs.probe(disk).unwrap() {
        assert!(found.head.end() <= size);
    }
    let map = crate::used(disk).unwrap();
    assert!(map.extents.end() <= size);
    assert_eq!(map.extents.align_out(map.unit, size), map.extents);
    assert!(map.certainty == Certainty::Exact || map.extents.total() == disk.geometry().size);
}

/// Runs of clusters, the first number `None` in a hole.
fn any_runs() -> impl Strategy<Value = Vec<(Option<u64>, u64)>> {
    let lcn = prop_oneof![Just(None), (0..1_u64 << 40).prop_map(Some), (0..300_u64).prop_map(Some)];
    proptest::collection::vec((lcn, prop_oneof![1..200_u64, 1..1_u64 << 30]), 0..20)
}

/// The shortest bytes of a number with a sign.
fn shortest(number: i64) -> Vec<u8> {
    let fits = |len: &usize| number >> (len * 8 - 1) == 0 || number >> (len * 8 - 1) == -1;
    let len = (1..8).find(fits).unwrap_or(8);
    number.to_le_bytes()[..len].to_vec()
}

proptest! {
    #[test]
    fn runs_come_back_as_they_were_written(runs in any_runs(), first in 0..1000_u64) {
        let (mut pairs, mut expected, mut before, mut vcn) = (Vec::new(), Vec::new(), 0, first);
        for (lcn, len) in runs {
            let length = shortest(i64::try_from(len).unwrap());
            let step = lcn.map_or(Vec::new(), |lcn| shortest(i64::try_from(lcn).unwrap() - before));
            pairs.push((step.len() << 4 | length.len()) as u8);
            pairs.extend([length, step].concat());
            before = lcn.map_or(before, |lcn| i64::try_from(lcn).unwrap());
            expected.push(Run { vcn, lcn, len });
            vcn += len;
        }
        pairs.push(0);
        let boot = BootSector::parse(&CLEAN.make()).unwrap();
        let mut layout = Layout::new(&boot, ByteLen::new(SIZE as u64)).unwrap();
        layout.clusters = 1 << 41;
        let mut found = Vec::new();
        let end = decode(&pairs, first, &layout, |run| { found.push(run); Ok(()) }).unwrap();
        assert_eq!((found, end), (expected, vcn));
        let cut = &pairs[..pairs.len() - 1];
        assert!(decode(cut, first, &layout, |_| Ok(())).is_err(), "without its end");
    }

    #[test]
    fn any_change_is_survived(changes in proptest::collection::vec((0..SIZE, any::<u8>()), 1..8), near in 0..6_usize) {
        let mut bytes = CLEAN.make();
        let around = [0, TABLE * CLUSTER, LIST * CLUSTER, DIRECTORY * CLUSTER, (TABLE + 5) * CLUSTER, LOG * CLUSTER][near];
        changes.into_iter().for_each(|(at, value)| bytes[around + at % 512] = value);
        stays_inside(&disk(&bytes));
    }
}
