//! Under test: what a map says once something small of its filesystem is damaged.

use crate::{Certainty, UsedMap, used};
use imager_disk::{MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteOffset, ErrorKind};

const SECTOR: u64 = 512;

/// What happens to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// One bit is another.
    Bit,
    /// A sector is zero.
    Zero,
    /// A sector is all ones, as erased flash is.
    Ones,
    /// A sector is anything.
    Junk,
    /// A sector is one of the others.
    Misplaced,
}

const KINDS: [Damage; 5] = [Damage::Bit, Damage::Zero, Damage::Ones, Damage::Junk, Damage::Misplaced];

/// Numbers that look like chance and are the same in each run (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// Damages one of the `sectors` after another, `rounds` times, each alone. The map is never smaller than that of the
/// undamaged volume: it has all of it, or is the whole volume, or is refused with a reason. How often it was a map still.
pub(crate) fn never_makes_smaller(disk: &MemoryDisk, sectors: &[u64], rounds: u64, seed: u64) -> u64 {
    let right = used(disk).expect("a map");
    assert_eq!(right.certainty, Certainty::Exact);
    let mut chance = Chance(seed);
    let mut maps = 0;
    for round in 0..rounds {
        let pick =
            |chance: &mut Chance| sectors[usize::try_from(chance.below(sectors.len() as u64)).unwrap()];
        let (sector, other) = (pick(&mut chance), pick(&mut chance));
        let kind = KINDS[usize::try_from(round % 5).unwrap()];
        let before = read(disk, sector);
        write(disk, sector, &damaged(kind, &before, &read(disk, other), &mut chance));
        match used(disk) {
            Ok(map) => {
                maps += u64::from(is_map(&map, &right, &format!("{kind:?}, sector {sector} ({other})")))
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}")
            }
        }
        write(disk, sector, &before);
    }
    maps
}

fn is_map(map: &UsedMap, right: &UsedMap, what: &str) -> bool {
    let lost = right.extents.difference(&map.extents);
    assert!(lost.is_empty(), "{what}: lost {lost:?}");
    map.certainty == Certainty::Exact
}

fn damaged(kind: Damage, before: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = before.to_vec();
    match kind {
        Damage::Bit => {
            let at = usize::try_from(chance.below(SECTOR)).unwrap();
            bytes[at] ^= 1 << chance.below(8);
        }
        Damage::Zero => bytes.fill(0),
        Damage::Ones => bytes.fill(0xFF),
        Damage::Junk => bytes.iter_mut().for_each(|byte| *byte = chance.next().to_le_bytes()[0]),
        Damage::Misplaced => bytes.copy_from_slice(other),
    }
    bytes
}

fn read(disk: &MemoryDisk, sector: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    disk.read_exact_at(ByteOffset::new(sector * SECTOR), &mut bytes).unwrap();
    bytes
}

fn write(disk: &MemoryDisk, sector: u64, bytes: &[u8]) {
    disk.write_all_at(ByteOffset::new(sector * SECTOR), bytes).unwrap();
}
