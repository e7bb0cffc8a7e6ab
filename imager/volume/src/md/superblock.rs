//! The superblock of a member: version 0.90, or 1.0, 1.1 and 1.2, which differ in where they lie.
//!
//! include/uapi/linux/raid/md_p.h: `mdp_super_t` (its words are of the machine that made the array; only little-endian
//! ones are read) and `struct mdp_superblock_1`.

use crate::bytes::Bytes;
use crate::read::read_if_inside;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Extent, Result};

const MAGIC: u32 = 0xA92B_4EFC;
const SECTOR_BYTES: u64 = 512;
/// Superblock 0.90 has a block of its own at a multiple of 64 KiB before the end.
const OLD_RESERVED_BYTES: u64 = 65_536;
const OLD_BYTES: u64 = 4096;
/// `sizeof(struct mdp_superblock_1)` without the roles, of which there is one of two bytes a member.
const NEW_BYTES: u64 = 256;
const MOST_ROLES: u32 = 1920;

/// `MD_FEATURE_*`: an internal bitmap, the layout of a RAID0 and a partial parity log change nothing that is read here.
const HARMLESS: u32 = 1 | 1024 | 2048 | 4096;

/// How an array spreads its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// Each member has all of it.
    Mirror,
    /// Otherwise.
    Other(String),
}

/// What a member says about itself and its array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The array's UUID as `blkid` shows it.
    pub id: String,
    /// The array's name.
    pub name: Option<String>,
    /// How it spreads its content.
    pub level: Level,
    /// How many members it had in order when this one was last written.
    pub members: u32,
    /// Which of them this is; `None` for a spare or one that failed.
    pub role: Option<u32>,
    /// Where the array's content lies.
    pub content: Extent,
    /// Why this member's copy need not be the array's.
    pub trouble: Option<String>,
}

impl Superblock {
    /// The superblock of a volume; `None` when there is none that is sound.
    ///
    /// # Errors
    /// `Io` when the volume cannot be read.
    pub fn read(volume: &dyn ReadAt) -> Result<Option<Self>> {
        let size = volume.geometry().size;
        let new_at_end = ByteOffset::new(size.get()).align_down(ByteLen::new(4096)).get().checked_sub(8192);
        for at in [Some(0), Some(4096), new_at_end].into_iter().flatten() {
            let len = NEW_BYTES.saturating_add(u64::from(MOST_ROLES).saturating_mul(2));
            let bytes = read_if_inside(volume, at, len)?.unwrap_or_default();
            if let Some(found) = new(&bytes, at) {
                return Ok(Some(found));
            }
        }
        let end = ByteOffset::new(size.get()).align_down(ByteLen::new(OLD_RESERVED_BYTES));
        let Some(at) = end.get().checked_sub(OLD_RESERVED_BYTES) else { return Ok(None) };
        Ok(read_if_inside(volume, at, OLD_BYTES)?.and_then(|bytes| old(&bytes)))
    }
}

/// Version 1.
fn new(bytes: &[u8], at: u64) -> Option<Superblock> {
    let b = Bytes(bytes);
    if b.le32(0)? != MAGIC || b.le32(4)? != 1 || b.le64(144)? != at.checked_div(SECTOR_BYTES)? {
        return None;
    }
    let roles = b.le32(220).filter(|&roles| roles <= MOST_ROLES)?;
    let len = usize::try_from(u64::from(roles).saturating_mul(2).saturating_add(NEW_BYTES)).ok()?;
    if b.le32(216)? != checksum(b.slice(0, len)?, 216) {
        return None;
    }
    let level = i32::from_le_bytes(b.array(72)?);
    let (features, wanted) = (b.le32(8)?, b.le32(92)?);
    let number = b.le32(160)?;
    let role_of = |number: u32| {
        let at = u64::from(number).saturating_mul(2).saturating_add(NEW_BYTES);
        b.le16(usize::try_from(at).ok()?).map(u32::from).filter(|&role| number < roles && role < wanted)
    };
    let role = role_of(number);
    let members = u32::try_from((0..roles).filter(|&number| role_of(number).is_some()).count()).ok()?;
    let (start, len) = (b.le64(128)?.checked_mul(SECTOR_BYTES)?, b.le64(80)?.checked_mul(SECTOR_BYTES)?);
    let trouble = if features & !HARMLESS != 0 {
        Some(unusual(features))
    } else if b.le64(208)? != u64::MAX {
        Some("its array was not stopped in order, or is not synchronised".to_owned())
    } else if role.is_none() {
        Some("it is a spare of its array, or failed".to_owned())
    } else {
        None
    };
    Some(Superblock {
        id: b.uuid(16)?,
        name: b.text(32, 32),
        level: named(level),
        members,
        role,
        content: Extent::new(ByteOffset::new(start), ByteLen::new(len))?,
        trouble,
    })
}

/// What a feature that is not harmless means; the first that applies.
fn unusual(features: u32) -> String {
    const NAMES: [(u32, &str); 6] = [
        (2, "it is being rebuilt"),
        (4, "its array changes its shape"),
        (8, "its array has bad blocks"),
        (16, "it replaces another member"),
        (256, "its array is shared between machines"),
        (512, "its array has a journal"),
    ];
    let known = NAMES.iter().find(|(bit, _)| features & bit != 0);
    known.map_or_else(
        || format!("its array has features that are not known ({features:#x})"),
        |(_, why)| (*why).to_owned(),
    )
}

/// Version 0.90.
fn old(bytes: &[u8]) -> Option<Superblock> {
    let b = Bytes(bytes);
    let word = |number: usize| b.le32(number.checked_mul(4)?);
    if word(0)? != MAGIC || word(1)? != 0 || !matches!(word(2)?, 90 | 91) || word(38)? != checksum(bytes, 152)
    {
        return None;
    }
    let level = i32::from_le_bytes(b.array(28)?);
    // `raid_disks`, `active_disks`.
    let (wanted, members) = (word(10)?, word(34)?);
    // `this_disk`: number, major, minor, raid_disk, state. A member in order is active and in step.
    let (role, state) = (word(995)?, word(996)?);
    let is_in_step = state & 0b111 == 0b110;
    // `SB_CLEAN`; an array that reshapes is of version 0.91.
    let trouble = if word(2)? == 91 {
        Some("its array changes its shape")
    } else if word(33)? & 1 == 0 || word(43)? != 0 && word(43)? != u32::MAX {
        Some("its array was not stopped in order, or is not synchronised")
    } else if !is_in_step {
        Some("it is a spare of its array, or failed")
    } else {
        None
    };
    let mut id = [0; 16];
    for (place, number) in id.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
        place.copy_from_slice(&word(number)?.to_be_bytes());
    }
    let len = u64::from(word(8)?).checked_mul(1024)?;
    Some(Superblock {
        id: Bytes(&id).uuid(0)?,
        name: None,
        level: named(level),
        members,
        role: Some(role).filter(|&role| is_in_step && role < wanted),
        content: Extent::first(ByteLen::new(len)),
        trouble: trouble.map(str::to_owned),
    })
}

fn named(level: i32) -> Level {
    Level::Other(match level {
        1 => return Level::Mirror,
        -1 => "a linear array".to_owned(),
        -4 => "a multipath array".to_owned(),
        level => format!("RAID{level}"),
    })
}

/// The sum of all words, the checksum's own (at `own`) taken as zero; bits that overflow are added below.
fn checksum(bytes: &[u8], own: usize) -> u32 {
    let mut sum = 0_u64;
    for (number, word) in bytes.chunks(4).enumerate() {
        if number.checked_mul(4) == Some(own) {
            continue;
        }
        let mut padded = [0; 4];
        padded.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
        sum = sum.saturating_add(u64::from(u32::from_le_bytes(padded)));
    }
    let folded = (sum & u64::from(u32::MAX)).saturating_add(sum >> 32);
    u32::try_from(folded & u64::from(u32::MAX)).unwrap_or_default()
}
