//! Bitmaps of what is in use, bit 0 of byte 0 first.

/// Calls `visit` with every run `from..to` of set bits among the first `bits` of `bitmap`, in order, and returns how
/// many bits are set. Bits past the end of the bitmap count as clear.
pub(crate) fn runs(bitmap: &[u8], bits: u64, mut visit: impl FnMut(u64, u64)) -> u64 {
    let mut set = 0_u64;
    let mut open = None;
    let mut at = 0_u64;
    for bytes in bitmap.chunks(8) {
        if at >= bits {
            break;
        }
        let word = word(bytes, bits.saturating_sub(at));
        set = set.saturating_add(u64::from(word.count_ones()));
        // A bit of `edges` is set where a bit differs from the one before it: a run starts or ends there.
        let mut edges = word ^ (word << 1 | u64::from(open.is_some()));
        while edges != 0 {
            let edge = at.saturating_add(u64::from(edges.trailing_zeros()));
            match open.take() {
                Some(from) => visit(from, edge),
                None => open = Some(edge),
            }
            edges &= edges.wrapping_sub(1);
        }
        at = at.saturating_add(64);
    }
    if let Some(from) = open {
        visit(from, at.min(bits));
    }
    set
}

/// Up to eight bytes as a word, bit 0 first, with only the first `bits` bits kept.
fn word(bytes: &[u8], bits: u64) -> u64 {
    let mut whole = [0; 8];
    whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let keep =
        u32::try_from(bits).ok().and_then(|bits| 1_u64.checked_shl(bits)).map(|bit| bit.wrapping_sub(1));
    u64::from_le_bytes(whole) & keep.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::runs;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn runs_agree_with_one_look_a_bit(
            bytes in proptest::collection::vec(proptest::prop_oneof![any::<u8>(), 0..1_u8, 255..=255_u8], 0..40),
            bits in 0..330_u64,
        ) {
            let mut seen = vec![false; 400];
            let mut last = None;
            let set = runs(&bytes, bits, |from, to| {
                assert!(from < to && last.is_none_or(|last| last < from));
                last = Some(to);
                seen[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(true);
            });
            let is_set = |bit: usize| {
                (bit as u64) < bits && bytes.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
            };
            let naive: Vec<bool> = (0..400).map(is_set).collect();
            assert_eq!(seen, naive);
            assert_eq!(set, naive.iter().filter(|&&bit| bit).count() as u64);
        }
    }
}
