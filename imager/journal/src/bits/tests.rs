use super::{Levels, MARK_BYTES, WORD};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};
use proptest::prelude::{any, proptest};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

fn blocks(first: u64, last: u64) -> Extent {
    let unit = MARK_BYTES.get();
    Extent::between(ByteOffset::new(first * unit), ByteOffset::new((last + 1) * unit))
}

/// What `mark` in journal.bpf.c does.
fn mark(levels: Levels, words: &[AtomicU64], mut first: u64, mut last: u64) {
    for start in levels.starts {
        let (from, to) = (first / WORD, last / WORD);
        let (head, tail) = (u64::MAX << (first % WORD), u64::MAX >> (63 - last % WORD));
        let set = |word: u64, bits| {
            words[start + usize::try_from(word).unwrap()].fetch_or(bits, SeqCst);
        };
        if from == to {
            return set(from, head & tail);
        }
        set(from, head);
        set(to, tail);
        if to - from == 1 {
            return;
        }
        (first, last) = (from + 1, to - 1);
    }
    panic!("no request is so long");
}

fn words(levels: Levels) -> Vec<AtomicU64> {
    (0..levels.words()).map(|_| AtomicU64::new(0)).collect()
}

fn all(levels: Levels, words: &[AtomicU64]) -> ExtentSet {
    let mut found = ExtentSet::new();
    levels.sweep(words, &mut |extent| {
        found.insert(extent);
        true
    });
    found
}

#[test]
fn the_levels_of_a_tebibyte_take_two_mebibytes() {
    let levels = Levels::of(ByteLen::new(1 << 40)).unwrap();
    assert_eq!(levels.upper(), [1 << 18, (1 << 18) + (1 << 12)]);
    assert_eq!(levels.words(), (1 << 18) + (1 << 12) + (1 << 6));
    assert!(Levels::of(ByteLen::ZERO).is_none());
    assert!(Levels::of(ByteLen::new(u64::MAX)).is_none());
}

proptest! {
    #[test]
    fn what_is_marked_is_what_is_taken_once(
        tail in 1..=MARK_BYTES.get(),
        ranges in proptest::collection::vec((0..20_000_u64, 0..20_000_u64), 1..8),
        asked in any::<u64>(),
        most in 0..5_usize,
    ) {
        let levels = Levels::of(ByteLen::new(19_999 * MARK_BYTES.get() + tail)).unwrap();
        let (words, whole) = (words(levels), Extent::first(levels.size));
        let mut model = ExtentSet::new();
        for (a, b) in ranges {
            let (first, last) = (a.min(b), a.max(b));
            mark(levels, &words, first, last);
            model.insert(blocks(first, last).intersection(whole));
        }
        let probe = blocks(asked % 20_000, asked % 20_000);
        assert_eq!(levels.is_marked(&words, probe), model.overlaps(probe));
        assert!(levels.is_marked(&words, whole));
        assert!(levels.marked(&words) >= model.total());
        // Taken in two parts, of which the first gives up somewhere.
        let (mut taken, mut left) = (ExtentSet::new(), most);
        levels.sweep(&words, &mut |extent| {
            assert!(!taken.overlaps(extent), "twice");
            taken.insert(extent);
            left = left.saturating_sub(1);
            left > 0
        });
        let rest = all(levels, &words);
        assert!(taken.intersection(&rest).is_empty());
        assert_eq!(taken.union(&rest), model);
        assert!(all(levels, &words).is_empty());
        assert!(!levels.is_marked(&words, whole));
    }
}
