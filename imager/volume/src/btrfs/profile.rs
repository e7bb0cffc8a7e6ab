//! How a chunk is spread over devices (fs/btrfs/volumes.c, `btrfs_raid_array`, `btrfs_map_block`).
//!
//! Places are relative to the chunk on one side and to each of its stripes on the other. A *strip* is 64 KiB on one
//! device; with parity, a *row* is one strip of every device, rotated by one device a row.

use std::num::NonZeroU64;

/// `BTRFS_STRIPE_LEN`: no kernel ever made another.
pub(super) const STRIP_BYTES: u64 = 64 << 10;

/// What becomes of the bytes of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Every stripe holds all of them: SINGLE, DUP, RAID1, RAID1C3, RAID1C4.
    Copies,
    /// Strips go round `columns`, each of `mirrors` stripes side by side: RAID0, RAID10.
    Striped { columns: NonZeroU64, mirrors: NonZeroU64 },
    /// Rows of `data` strips and parity: RAID5, RAID6.
    Parity { data: NonZeroU64, stripes: NonZeroU64 },
}

/// A run of bytes in a stripe.
pub(super) type Run = (u64, u64);

/// Where a byte of a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which stripe.
    pub(super) stripe: u64,
    /// Where in it.
    pub(super) at: u64,
    /// How many bytes lie there in one piece.
    pub(super) run: u64,
}

const TYPE_MASK: u64 = 0x07;
const RAID0: u64 = 1 << 3;
const RAID1: u64 = 1 << 4;
const DUP: u64 = 1 << 5;
const RAID10: u64 = 1 << 6;
const RAID5: u64 = 1 << 7;
const RAID6: u64 = 1 << 8;
const RAID1C3: u64 = 1 << 9;
const RAID1C4: u64 = 1 << 10;

impl Profile {
    /// From the type, the number of stripes and `sub_stripes` of a chunk; `None` where they do not fit together.
    pub(super) fn new(kind: u64, stripes: u64, sub_stripes: u64) -> Option<Self> {
        let (number, content) = (NonZeroU64::new(stripes)?, kind & TYPE_MASK);
        let copies = |wanted: u64| (stripes == wanted).then_some(Self::Copies);
        let parity = |parity: u64| {
            let data = NonZeroU64::new(stripes.checked_sub(parity)?)?;
            Some(Self::Parity { data, stripes: number })
        };
        match kind ^ content {
            _ if content == 0 => None,
            0 => copies(1),
            DUP | RAID1 => copies(2),
            RAID1C3 => copies(3),
            RAID1C4 => copies(4),
            RAID0 => Some(Self::Striped { columns: number, mirrors: NonZeroU64::MIN }),
            RAID10 if sub_stripes == 2 && stripes.is_multiple_of(2) => {
                let (columns, mirrors) = (NonZeroU64::new(stripes / 2)?, NonZeroU64::new(2)?);
                Some(Self::Striped { columns, mirrors })
            }
            RAID5 => parity(1),
            RAID6 => parity(2),
            _ => None,
        }
    }

    /// How long each stripe of a chunk of `len` bytes is; `None` where it does not divide into whole strips.
    pub(super) fn stripe_bytes(self, len: u64) -> Option<u64> {
        let over = match self {
            Self::Copies => return Some(len),
            Self::Striped { columns, .. } => columns,
            Self::Parity { data, .. } => data,
        };
        let row = STRIP_BYTES.checked_mul(over.get())?;
        (len.checked_rem(row) == Some(0)).then(|| len / over)
    }

    /// In how many places each byte can be read. Parity is not computed with.
    pub(super) fn copies(self, stripes: u64) -> u64 {
        match self {
            Self::Copies => stripes,
            Self::Striped { mirrors, .. } => mirrors.get(),
            Self::Parity { .. } => 1,
        }
    }

    /// Where the byte at `at` is, in its copy number `copy`.
    pub(super) fn locate(self, at: u64, copy: u64) -> Place {
        let (strip, within) = (at / STRIP_BYTES, at % STRIP_BYTES);
        let run = STRIP_BYTES.saturating_sub(within);
        let in_row = |row: u64| row.saturating_mul(STRIP_BYTES).saturating_add(within);
        match self {
            Self::Copies => Place { stripe: copy, at, run: u64::MAX },
            Self::Striped { columns, mirrors } => {
                let stripe = (strip % columns).saturating_mul(mirrors.get()).saturating_add(copy);
                Place { stripe, at: in_row(strip / columns), run }
            }
            Self::Parity { data, stripes } => {
                let (row, column) = (strip / data, strip % data);
                Place { stripe: column.saturating_add(row) % stripes, at: in_row(row), run }
            }
        }
    }

    /// The runs that stripe number `stripe` needs for the bytes `from..to` of the chunk, for every copy of them and
    /// the parity over them: at most three, which may touch. `from` is before `to`.
    ///
    /// Parity is over whatever the other strips of the row hold at the same place, used or not, so that place is
    /// needed of all of them: from other bytes there it could not restore a strip that is lost.
    pub(super) fn runs(self, stripe: u64, from: u64, to: u64) -> [Option<Run>; 3] {
        let last = to.saturating_sub(1);
        match self {
            Self::Copies => [Some((from, to)), None, None],
            Self::Striped { columns, mirrors } => {
                [column_run(stripe / mirrors, columns, from, last), None, None]
            }
            Self::Parity { data, .. } => row_runs(data, from, last),
        }
    }
}

/// What one column has of the bytes `from..=last`: its strips lie one behind the other.
fn column_run(column: u64, columns: NonZeroU64, from: u64, last: u64) -> Option<Run> {
    let (first_strip, last_strip) = (from / STRIP_BYTES, last / STRIP_BYTES);
    let forward = column.saturating_add(columns.get()).saturating_sub(first_strip % columns) % columns;
    let back = (last_strip % columns).saturating_add(columns.get()).saturating_sub(column) % columns;
    let first = first_strip.checked_add(forward).filter(|&first| first <= last_strip)?;
    let end = last_strip.checked_sub(back)?;
    let starts_inside = if first == first_strip { from % STRIP_BYTES } else { 0 };
    let length = if end == last_strip { (last % STRIP_BYTES).saturating_add(1) } else { STRIP_BYTES };
    let start = (first / columns).saturating_mul(STRIP_BYTES).saturating_add(starts_inside);
    Some((start, (end / columns).saturating_mul(STRIP_BYTES).saturating_add(length)))
}

/// What every device has of the rows that the bytes `from..=last` touch.
fn row_runs(data: NonZeroU64, from: u64, last: u64) -> [Option<Run>; 3] {
    let (first_strip, last_strip) = (from / STRIP_BYTES, last / STRIP_BYTES);
    let row = |strip: u64| (strip / data).saturating_mul(STRIP_BYTES);
    let (starts, ends) = (from % STRIP_BYTES, (last % STRIP_BYTES).saturating_add(1));
    if first_strip == last_strip {
        let row = row(first_strip);
        return [Some((row.saturating_add(starts), row.saturating_add(ends))), None, None];
    }
    let whole_from = first_strip.saturating_add(1);
    let whole = (whole_from < last_strip)
        .then(|| (row(whole_from), row(last_strip.saturating_sub(1)).saturating_add(STRIP_BYTES)));
    let head = (row(first_strip).saturating_add(starts), row(first_strip).saturating_add(STRIP_BYTES));
    [Some(head), whole, Some((row(last_strip), row(last_strip).saturating_add(ends)))]
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Profile, Run, STRIP_BYTES};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    const SECTOR: u64 = 4096;
    /// Type, the fewest and the most stripes, `sub_stripes`.
    const PROFILES: [(u64, u64, u64, u64); 9] = [
        (0, 1, 1, 1),
        (1 << 3, 1, 5, 1),
        (1 << 4, 2, 2, 1),
        (1 << 5, 2, 2, 1),
        (1 << 6, 2, 8, 2),
        (1 << 7, 2, 6, 1),
        (1 << 8, 3, 6, 1),
        (1 << 9, 3, 3, 1),
        (1 << 10, 4, 4, 1),
    ];

    /// Where the sector at `at` and the parity over it are, as btrfs_map_block has it, one sector at a time.
    pub(in crate::btrfs) fn naive(kind: u64, stripes: u64, at: u64) -> BTreeSet<(u64, u64)> {
        let (strip, within) = (at / STRIP_BYTES, at % STRIP_BYTES);
        let place = |row: u64| row * STRIP_BYTES + within;
        match kind {
            0 | 0x10 | 0x20 | 0x200 | 0x400 => (0..stripes).map(|stripe| (stripe, at)).collect(),
            0x08 => [(strip % stripes, place(strip / stripes))].into(),
            0x40 => {
                let pairs = stripes / 2;
                let first = strip % pairs * 2;
                [(first, place(strip / pairs)), (first + 1, place(strip / pairs))].into()
            }
            _ => {
                let data = stripes - if kind == 0x80 { 1 } else { 2 };
                (0..stripes).map(|stripe| (stripe, place(strip / data))).collect()
            }
        }
    }

    proptest! {
        #[test]
        fn runs_are_what_single_sectors_add_up_to(
            which in 0..PROFILES.len(),
            more in any::<u64>(),
            from in 0..300_u64,
            len in 1..400_u64,
        ) {
            let (kind, least, most, sub) = PROFILES[which];
            let mut stripes = least + more % (most - least + 1);
            if kind == 1 << 6 {
                stripes = stripes / 2 * 2;
            }
            let profile = Profile::new(kind | 1, stripes, sub).unwrap();
            let expected: BTreeSet<_> =
                (from..from + len).flat_map(|sector| naive(kind, stripes, sector * SECTOR)).collect();
            let mut got = BTreeSet::new();
            for stripe in 0..stripes {
                let runs = profile.runs(stripe, from * SECTOR, (from + len) * SECTOR);
                for (start, end) in runs.into_iter().flatten() {
                    prop_assert!(start < end);
                    got.extend((start / SECTOR..end / SECTOR).map(|sector| (stripe, sector * SECTOR)));
                }
            }
            prop_assert_eq!(&got, &expected);
            for copy in 0..profile.copies(stripes) {
                let place = profile.locate(from * SECTOR, copy);
                prop_assert!(expected.contains(&(place.stripe, place.at)));
            }
        }
    }

    #[test]
    fn what_does_not_fit_together_is_no_profile() {
        let cases =
            [(1, 2, 1), (0, 1, 1), (0x11, 3, 1), (0x18, 2, 1), (0x41, 3, 2), (0x41, 4, 1), (0x81, 1, 1)];
        for (kind, stripes, sub) in cases {
            assert_eq!(Profile::new(kind, stripes, sub), None, "{kind:#x} with {stripes} stripes");
        }
        assert_eq!(Profile::new(0x1001, 1, 1), None, "an unknown profile");
    }

    #[test]
    fn raid5_rotates_by_one_device_a_row() {
        let profile = Profile::new(0x81, 3, 1).unwrap();
        let stripes: Vec<_> = (0..8).map(|strip| profile.locate(strip * STRIP_BYTES, 0).stripe).collect();
        assert_eq!(stripes, [0, 1, 1, 2, 2, 0, 0, 1]);
        let (a, b): (Run, Run) = ((4096, STRIP_BYTES), (0, 4096));
        assert_eq!(profile.runs(2, 4096, STRIP_BYTES + 4096), [Some(a), None, Some(b)]);
    }
}
