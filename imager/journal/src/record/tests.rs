use super::{MAGIC, Origin, Record, changes};
use crate::log::Marks;
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};

fn set(runs: &[(u64, u64)]) -> ExtentSet {
    runs.iter().map(|&(at, len)| Extent::new(ByteOffset::new(at), ByteLen::new(len)).unwrap()).collect()
}

fn record(first: u64, last: u64) -> Record {
    let origin = Origin::for_tests(1);
    let marks = Marks { written: set(&[(first << 16, 1 << 16)]), discarded: set(&[(last << 20, 1 << 16)]) };
    Record { origin, first, last, marks }
}

#[test]
fn the_magic_is_the_digest_of_its_sentence() {
    assert_eq!(MAGIC, blake3::hash(b"Halfhour journal record 1").as_bytes()[..8]);
}

#[test]
fn a_record_is_read_whole_or_not_at_all() {
    let bytes = record(3, 5).to_bytes();
    assert_eq!(Record::parse(&bytes), Some(record(3, 5)));
    for len in 0..bytes.len() {
        assert_eq!(Record::parse(&bytes[..len]), None, "cut at {len}");
    }
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 0x10;
        assert_eq!(Record::parse(&other), None, "flipped at {at}");
    }
    assert_eq!(Record::parse(&[&bytes[..], &[0]].concat()), None);
}

#[test]
fn what_its_digest_covers_may_still_make_no_sense() {
    let mut backwards = record(5, 5);
    backwards.first = 6;
    assert_eq!(Record::parse(&backwards.to_bytes()), None);
    let mut bytes = record(1, 1).to_bytes();
    bytes.truncate(bytes.len() - 32);
    // More runs than there are.
    bytes[24 + 6 * 8] = 200;
    let digest = blake3::hash(&bytes);
    bytes.extend(digest.as_bytes());
    assert_eq!(Record::parse(&bytes), None);
}

#[test]
fn changes_are_known_only_where_no_epoch_is_missing() {
    let all: Vec<_> = (1..=5).map(|epoch| record(epoch, epoch)).collect();
    let marks = changes(&all, 2, 5).unwrap();
    assert_eq!(marks.written, set(&[(3 << 16, 3 << 16)]));
    assert_eq!(marks.discarded, set(&[(3 << 20, 1 << 16), (4 << 20, 1 << 16), (5 << 20, 1 << 16)]));
    assert_eq!(changes(&all, 5, 5), Ok(Marks::default()));
    assert_eq!(changes(&all, 5, 6), Err(6));
    let gap: Vec<_> = all.iter().filter(|record| record.first != 4).cloned().collect();
    assert_eq!(changes(&gap, 2, 5), Err(4));
    assert_eq!(changes(&gap, 4, 5).unwrap().written, set(&[(5 << 16, 1 << 16)]));
    assert_eq!(changes(&[], 0, 1), Err(1));
    // Joined, with its parts still there; a cursor inside gets more than it asks for.
    let joined = [record(1, 4), record(2, 2), record(5, 5)];
    assert!(changes(&joined, 2, 5).unwrap().written.contains(set(&[(1 << 16, 1)]).iter().next().unwrap()));
}
