//! The superblock (`struct f2fs_super_block`) and its copy.

use crate::bytes::Bytes;
use crate::read::read_if_inside;
use imager_disk::ReadAt;
use imager_units::{ByteOffset, Error, Extent, Result};

pub(super) const BLOCK_BYTES: u64 = 4096;
/// One in each of the first two blocks.
pub(super) const COPIES: u64 = 2;
/// Blocks of a segment, which the size of a bitmap in the segment information table fixes.
pub(super) const SEGMENT_BLOCKS: u64 = 512;
const LOG_SEGMENT_BLOCKS: u32 = 9;
const LOG_BLOCK_BYTES: u32 = 12;
/// `F2FS_SUPER_OFFSET` and the length of the structure.
const OFFSET: u64 = 1024;
const SUPERBLOCK_BYTES: u64 = 3072;
pub(super) const MAGIC: u32 = 0xF2F5_2010;
/// Where the checksum is, when there is one.
const CRC_AT: usize = 3068;
/// What must be the same in both copies: geometry; features; devices.
const SHARED: [(usize, usize); 3] = [(0, 124), (2180, 4), (2201, 544)];

/// The features that change nothing about which blocks count: encryption, extra attributes and what goes with them,
/// project quotas, checksums of inodes, quota inodes, creation times, lost+found, verity, the superblock's checksum,
/// folded case, compression. Not: zones (2), read-only images (0x4000) and what came later.
const UNDERSTOOD: u32 = 0x3FFD;
const BLKZONED: u32 = 2;
const SB_CHKSUM: u32 = 0x800;

/// A superblock.
#[derive(Debug)]
pub(super) struct Superblock {
    bytes: Vec<u8>,
    pub(super) block_count: u64,
    segment_count: u64,
    segment_count_ckpt: u64,
    pub(super) segment_count_sit: u64,
    segment_count_nat: u64,
    segment_count_ssa: u64,
    pub(super) segment_count_main: u64,
    segment0_blkaddr: u64,
    pub(super) cp_blkaddr: u64,
    pub(super) sit_blkaddr: u64,
    nat_blkaddr: u64,
    ssa_blkaddr: u64,
    pub(super) main_blkaddr: u64,
    pub(super) cp_payload: u64,
    feature: u32,
}

/// The bytes of `blocks` blocks from block `first` on.
pub(super) fn extent(first: u64, blocks: u64) -> Extent {
    let at = |block: u64| ByteOffset::new(block.saturating_mul(BLOCK_BYTES));
    Extent::between(at(first), at(first.saturating_add(blocks)))
}

/// The blocks of so many segments.
pub(super) fn segments(count: u64) -> u64 {
    count.saturating_mul(SEGMENT_BLOCKS)
}

/// CRC-32 as F2FS has it (`f2fs_crc32`): seeded with its magic and not inverted.
pub(super) fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

impl Superblock {
    /// Reads the first superblock; `None` when it is none.
    pub(super) fn read(volume: &dyn ReadAt) -> Result<Option<Self>> {
        let bytes = read_if_inside(volume, OFFSET, SUPERBLOCK_BYTES)?;
        Ok(bytes.and_then(Self::parse))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let b = Bytes(&bytes);
        let long = |at: usize| b.le32(at).map(u64::from);
        if b.le32(0)? != MAGIC {
            return None;
        }
        Some(Self {
            block_count: b.le64(36)?,
            segment_count: long(48)?,
            segment_count_ckpt: long(52)?,
            segment_count_sit: long(56)?,
            segment_count_nat: long(60)?,
            segment_count_ssa: long(64)?,
            segment_count_main: long(68)?,
            segment0_blkaddr: long(72)?,
            cp_blkaddr: long(76)?,
            sit_blkaddr: long(80)?,
            nat_blkaddr: long(84)?,
            ssa_blkaddr: long(88)?,
            main_blkaddr: long(92)?,
            cp_payload: long(1664)?,
            feature: b.le32(2180)?,
            bytes,
        })
    }

    pub(super) fn uuid(&self) -> Option<String> {
        Bytes(&self.bytes).uuid(108)
    }

    /// `volume_name`, 512 units of UTF-16.
    pub(super) fn label(&self) -> Option<String> {
        let name = Bytes(&self.bytes).slice(124, 1024)?;
        let units = name.chunks_exact(2).filter_map(|unit| Bytes(unit).le16(0)).take_while(|&unit| unit != 0);
        let text: String =
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        let text = text.trim_end();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Whether the superblock is understood, sound, and the same as its copy.
    ///
    /// # Errors
    /// `Io`; `Unsupported` and `Corrupt` with the reason.
    pub(super) fn check(&self, volume: &dyn ReadAt) -> Result<()> {
        let b = Bytes(&self.bytes);
        let is_single = b.slice(2201, 544).is_some_and(|devices| devices.iter().all(|&byte| byte == 0));
        let unsupported = |what: String| Err(Error::unsupported(what));
        if b.le32(16) != Some(LOG_BLOCK_BYTES) || b.le32(20) != Some(LOG_SEGMENT_BLOCKS) {
            return unsupported("its blocks or segments are not of 4 KiB and 2 MiB".to_owned());
        }
        if self.feature & BLKZONED != 0 {
            return unsupported("it is made for zones".to_owned());
        }
        if self.feature & !UNDERSTOOD != 0 {
            return unsupported(format!("features {:#x} are not known", self.feature & !UNDERSTOOD));
        }
        if !is_single {
            return unsupported("it lies on several devices".to_owned());
        }
        self.check_copies(volume)?;
        ensure(self.has_sound_layout(), "its areas contradict each other")?;
        let size = volume.geometry().size;
        ensure(extent(0, self.block_count).len() <= size, "the filesystem is longer than its volume")
    }

    fn check_copies(&self, volume: &dyn ReadAt) -> Result<()> {
        let at = OFFSET.saturating_add(BLOCK_BYTES);
        let copy = read_if_inside(volume, at, SUPERBLOCK_BYTES)?.unwrap_or_default();
        if self.feature & SB_CHKSUM != 0 {
            for bytes in [&self.bytes, &copy] {
                let b = Bytes(bytes);
                let counted = b.slice(0, CRC_AT).map(|counted| crc32(MAGIC, counted));
                ensure(counted.is_some() && counted == b.le32(CRC_AT), "its checksum is wrong")?;
            }
        }
        let (a, b) = (Bytes(&self.bytes), Bytes(&copy));
        let are_same = SHARED.iter().all(|&(at, len)| a.slice(at, len) == b.slice(at, len));
        ensure(are_same, "its copy differs")
    }

    /// The kernel's `sanity_check_area_boundary`: the areas follow each other without gaps.
    fn has_sound_layout(&self) -> bool {
        let follows = |first: u64, count: u64, next: u64| first.saturating_add(segments(count)) == next;
        let main_end = self.main_blkaddr.saturating_add(segments(self.segment_count_main));
        self.segment0_blkaddr == self.cp_blkaddr
            && self.cp_blkaddr >= COPIES
            && self.segment_count_ckpt == 2
            && self.segment_count_sit >= 2
            && self.segment_count_sit.is_multiple_of(2)
            && self.segment_count_main > 0
            && self.cp_payload < SEGMENT_BLOCKS
            && follows(self.cp_blkaddr, self.segment_count_ckpt, self.sit_blkaddr)
            && follows(self.sit_blkaddr, self.segment_count_sit, self.nat_blkaddr)
            && follows(self.nat_blkaddr, self.segment_count_nat, self.ssa_blkaddr)
            && follows(self.ssa_blkaddr, self.segment_count_ssa, self.main_blkaddr)
            && main_end <= self.segment0_blkaddr.saturating_add(segments(self.segment_count))
            && main_end <= self.block_count
    }
}

pub(super) fn ensure(sound: bool, otherwise: &str) -> Result<()> {
    if sound { Ok(()) } else { Err(Error::corrupt(format!("superblock: {otherwise}"))) }
}
