//! Inodes (fs/ext4/ext4.h, `struct ext4_inode`).

use super::super::checksum::crc32c;
use super::super::features::RO_COMPAT_HUGE_FILE;
use super::super::superblock::Superblock;
use crate::bytes::Bytes;
use crate::files::{Attributes, Kind, Time};
use imager_units::{ByteLen, Error, Result};

const GOOD_OLD_INODE_SIZE: usize = 128;
const I_BLOCK: usize = 0x28;
const I_BLOCK_BYTES: usize = 60;
const I_CHECKSUM_LO: usize = 0x7C;
const I_CHECKSUM_HI: usize = 0x82;
const EXT4_ENCRYPT_FL: u32 = 0x800;
const EXT4_HUGE_FILE_FL: u32 = 0x4_0000;
const EXT4_EXTENTS_FL: u32 = 0x8_0000;
const EXT4_INLINE_DATA_FL: u32 = 0x1000_0000;

/// An inode that is in use.
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) flags: u32,
    /// What checksums of everything that is its start from.
    pub(super) csum_seed: u32,
    bytes: Vec<u8>,
    mode: u16,
    size: u64,
}

impl Inode {
    /// Takes the bytes of inode `number`; `None` when it is free.
    pub(super) fn parse(number: u32, bytes: Vec<u8>, sb: &Superblock) -> Result<Option<Self>> {
        let cut = || Error::corrupt(format!("inode {number} is cut off"));
        let b = Bytes(&bytes);
        let (mode, links) = (b.le16(0).ok_or_else(cut)?, b.le16(0x1A).ok_or_else(cut)?);
        if mode == 0 || links == 0 {
            return Ok(None);
        }
        let generation = b.le32(0x64).ok_or_else(cut)?;
        let csum_seed = crc32c(sb.csum_seed, &[&number.to_le_bytes(), &generation.to_le_bytes()]);
        if sb.has_metadata_csum() && !checksum_is_right(&bytes, csum_seed).ok_or_else(cut)? {
            return Err(Error::corrupt(format!("the checksum of inode {number} is wrong")));
        }
        let low = u64::from(b.le32(4).ok_or_else(cut)?);
        let high = u64::from(b.le32(0x6C).ok_or_else(cut)?) << 32;
        let size = match mode & 0o170_000 {
            0o100_000 => high | low,
            0o040_000 if sb.features.incompat(super::super::features::INCOMPAT_LARGEDIR) => high | low,
            _ => low,
        };
        let flags = b.le32(0x20).ok_or_else(cut)?;
        Ok(Some(Self { number, flags, csum_seed, bytes, mode, size }))
    }

    fn b(&self) -> Bytes<'_> {
        Bytes(&self.bytes)
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & EXT4_ENCRYPT_FL != 0
    }

    pub(super) fn is_inline(&self) -> bool {
        self.flags & EXT4_INLINE_DATA_FL != 0
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXT4_EXTENTS_FL != 0
    }

    /// Whether a link's target stands where its block numbers would.
    pub(super) fn is_fast_link(&self) -> bool {
        !self.is_inline() && !self.has_extents() && self.size < 60
    }

    /// The 60 bytes of block numbers, extents or content.
    pub(super) fn blocks_area(&self) -> &[u8] {
        self.b().slice(I_BLOCK, I_BLOCK_BYTES).unwrap_or_default()
    }

    /// What is behind the fields that it says to have: extended attributes.
    pub(super) fn behind(&self) -> &[u8] {
        let start = GOOD_OLD_INODE_SIZE.saturating_add(usize::from(self.extra()));
        self.bytes.get(start..).filter(|_| self.bytes.len() > GOOD_OLD_INODE_SIZE).unwrap_or_default()
    }

    /// The block with further extended attributes; 0 for none.
    pub(super) fn xattr_block(&self) -> u64 {
        let low = u64::from(self.b().le32(0x68).unwrap_or_default());
        u64::from(self.b().le16(0x76).unwrap_or_default()) << 32 | low
    }

    fn extra(&self) -> u16 {
        self.b().le16(0x80).filter(|_| self.bytes.len() > GOOD_OLD_INODE_SIZE).unwrap_or_default()
    }

    /// A field behind the first 128 bytes, where there is one.
    fn further(&self, at: usize) -> u32 {
        let end = GOOD_OLD_INODE_SIZE.saturating_add(usize::from(self.extra()));
        self.b().le32(at).filter(|_| at.saturating_add(4) <= end).unwrap_or_default()
    }

    fn time(&self, at: usize, extra: usize) -> Time {
        let [a, b, c, d] = self.b().array(at).unwrap_or_default();
        let (low, extra) = (i32::from_le_bytes([a, b, c, d]), self.further(extra));
        let seconds = i64::from(low).saturating_add(i64::from(extra & 3) << 32);
        Time { seconds, nanoseconds: (extra >> 2).min(999_999_999) }
    }

    /// What it is; `None` for what no kernel makes.
    pub(super) fn kind(&self) -> Option<Kind> {
        Some(match self.mode & 0o170_000 {
            0o010_000 => Kind::Fifo,
            0o020_000 => self.device(Kind::Character),
            0o040_000 => Kind::Folder,
            0o060_000 => self.device(Kind::Block),
            0o100_000 => Kind::File,
            0o120_000 => Kind::Link,
            0o140_000 => Kind::Socket,
            _ => return None,
        })
    }

    /// fs/ext4/inode.c and include/linux/kdev_t.h: the old form of 16 bits, or else the new one of 32.
    fn device(&self, kind: impl Fn(u32, u32) -> Kind) -> Kind {
        let area = Bytes(self.blocks_area());
        match area.le32(0).unwrap_or_default() {
            0 => {
                let new = area.le32(4).unwrap_or_default();
                kind((new & 0xF_FF00) >> 8, new & 0xFF | (new >> 12) & 0xF_FF00)
            }
            old => kind((old >> 8) & 0xFF, old & 0xFF),
        }
    }

    /// What `stat` says of it.
    pub(super) fn attributes(&self, sb: &Superblock, block_bytes: u64) -> Result<Attributes> {
        let wrong = || Error::corrupt(format!("inode {} is nothing that can be", self.number));
        let b = self.b();
        let pair = |lo: usize, hi: usize| {
            u32::from(b.le16(hi).unwrap_or_default()) << 16 | u32::from(b.le16(lo).unwrap_or_default())
        };
        let huge = sb.features.ro_compat(RO_COMPAT_HUGE_FILE);
        let high = if huge { u64::from(b.le16(0x74).unwrap_or_default()) << 32 } else { 0 };
        let count = high | u64::from(b.le32(0x1C).unwrap_or_default());
        let unit = if huge && self.flags & EXT4_HUGE_FILE_FL != 0 { block_bytes } else { 512 };
        let is_file = self.kind() == Some(Kind::File);
        let inline = if is_file && self.is_inline() {
            self.size.checked_next_multiple_of(512).unwrap_or(0)
        } else {
            0
        };
        Ok(Attributes {
            kind: self.kind().ok_or_else(wrong)?,
            mode: Some(self.mode & 0o7777),
            owner: Some((pair(0x02, 0x78), pair(0x18, 0x7A))),
            links: u32::from(b.le16(0x1A).unwrap_or_default()),
            size: ByteLen::new(self.size),
            // As the kernel has it (`ext4_file_getattr`): what lies in the inode counts, too.
            stored: ByteLen::new(count.saturating_mul(unit).saturating_add(inline)),
            accessed: self.time(0x08, 0x8C),
            modified: self.time(0x10, 0x88),
            changed: self.time(0x0C, 0x84),
        })
    }
}

/// fs/ext4/inode.c, `ext4_inode_csum`: everything, its own fields as zeros.
fn checksum_is_right(bytes: &[u8], seed: u32) -> Option<bool> {
    let b = Bytes(bytes);
    let low = u32::from(b.le16(I_CHECKSUM_LO)?);
    let zero = [0_u8; 2];
    let first =
        [b.slice(0, I_CHECKSUM_LO)?, &zero, bytes.get(I_CHECKSUM_LO.saturating_add(2)..GOOD_OLD_INODE_SIZE)?];
    let mut sum = crc32c(seed, &first);
    if bytes.len() <= GOOD_OLD_INODE_SIZE {
        return Some(sum & 0xFFFF == low);
    }
    // The upper half is there when the inode says to be long enough for it.
    if b.le16(0x80)? < 4 {
        sum = crc32c(sum, &[bytes.get(GOOD_OLD_INODE_SIZE..)?]);
        return Some(sum & 0xFFFF == low);
    }
    let high = u32::from(b.le16(I_CHECKSUM_HI)?) << 16;
    let rest = [
        bytes.get(GOOD_OLD_INODE_SIZE..I_CHECKSUM_HI)?,
        &zero,
        bytes.get(I_CHECKSUM_HI.saturating_add(2)..)?,
    ];
    Some(crc32c(sum, &rest) == high | low)
}
