//! The superblock (fs/xfs/libxfs/xfs_format.h, `struct xfs_dsb`).
//!
//! Only what allocation, identity and state need. Parsing recognises; whether the numbers make sense together is
//! [`Layout`](super::layout::Layout)'s question.

use super::checksum;
use super::features::Features;
use crate::bytes::Bytes;
use crate::read::read_if_inside;
use imager_disk::ReadAt;
use imager_units::{Error, Result};

const XFS_SB_MAGIC: &[u8] = b"XFSB";
const SB_CRC_OFFSET: usize = 224;
/// The smallest sector; the structure itself is shorter.
const SMALLEST_SECTOR_BYTES: u64 = 512;
/// `XFS_MAX_SECTORSIZE`.
const LARGEST_SECTOR_BYTES: u64 = 32 << 10;

/// A superblock with the names of the kernel.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) sb_blocksize: u32,
    pub(super) sb_dblocks: u64,
    pub(super) sb_rblocks: u64,
    pub(super) sb_logstart: u64,
    pub(super) sb_agblocks: u32,
    pub(super) sb_agcount: u32,
    pub(super) sb_logblocks: u32,
    pub(super) sb_sectsize: u16,
    pub(super) sb_blocklog: u8,
    pub(super) sb_sectlog: u8,
    pub(super) sb_agblklog: u8,
    pub(super) sb_inprogress: u8,
    pub(super) sb_fdblocks: u64,
    pub(super) sb_uuid: [u8; 16],
    pub(super) uuid: Option<String>,
    pub(super) sb_fname: Option<String>,
    pub(super) features: Features,
    /// The UUID that structures of version 5 hold.
    pub(super) meta_uuid: [u8; 16],
    /// Its first sector as it lies there.
    pub(super) bytes: Vec<u8>,
    checksum_is_right: bool,
}

impl Superblock {
    /// Recognises the superblock of a volume by its magic.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn read(volume: &dyn ReadAt) -> Result<Option<Self>> {
        let Some(bytes) = read_if_inside(volume, 0, SMALLEST_SECTOR_BYTES)? else { return Ok(None) };
        let Some(mut sb) = Self::parse(bytes) else { return Ok(None) };
        if sb.features.has_crc() {
            let len = u64::from(sb.sb_sectsize).clamp(SMALLEST_SECTOR_BYTES, LARGEST_SECTOR_BYTES);
            let sector = read_if_inside(volume, 0, len)?;
            sb.checksum_is_right = sector.is_some_and(|sector| checksum::is_right(&sector, SB_CRC_OFFSET));
        }
        Ok(Some(sb))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let b = Bytes(&bytes);
        if !b.is(0, XFS_SB_MAGIC) {
            return None;
        }
        let features = Features {
            sb_versionnum: b.be16(100)?,
            sb_features2: b.be32(200)?,
            sb_bad_features2: b.be32(204)?,
            sb_features_ro_compat: b.be32(212)?,
            sb_features_incompat: b.be32(216)?,
            sb_features_log_incompat: b.be32(220)?,
        };
        let sb_uuid = b.array(32)?;
        Some(Self {
            sb_blocksize: b.be32(4)?,
            sb_dblocks: b.be64(8)?,
            sb_rblocks: b.be64(16)?,
            sb_logstart: b.be64(48)?,
            sb_agblocks: b.be32(84)?,
            sb_agcount: b.be32(88)?,
            sb_logblocks: b.be32(96)?,
            sb_sectsize: b.be16(102)?,
            sb_blocklog: b.byte(120)?,
            sb_sectlog: b.byte(121)?,
            sb_agblklog: b.byte(124)?,
            sb_inprogress: b.byte(126)?,
            sb_fdblocks: b.be64(144)?,
            sb_uuid,
            uuid: b.uuid(32),
            sb_fname: b.text(108, 12),
            features,
            meta_uuid: if features.has_meta_uuid() { b.array(248)? } else { sb_uuid },
            checksum_is_right: true,
            bytes,
        })
    }

    /// Whether the map can be believed, as far as the superblock tells.
    ///
    /// # Errors
    /// `Unsupported` for unknown features and for volumes that have parts elsewhere, `Corrupt` for a filesystem that
    /// is damaged.
    pub(super) fn check(&self) -> Result<()> {
        if !self.checksum_is_right {
            return Err(Error::corrupt("the superblock's checksum is wrong"));
        }
        if let Some(unknown) = self.features.unknown() {
            return Err(Error::unsupported(unknown));
        }
        if self.features.needs_repair() {
            return Err(Error::corrupt("it is marked as damaged and waits for xfs_repair (needsrepair)"));
        }
        if self.sb_inprogress != 0 {
            return Err(Error::corrupt("making it was begun and never finished"));
        }
        if self.sb_rblocks != 0 {
            return Err(Error::unsupported("files of it lie on a realtime device"));
        }
        if self.sb_logstart == 0 {
            return Err(Error::unsupported("its log is on another device"));
        }
        Ok(())
    }
}
