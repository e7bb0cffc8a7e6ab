//! The superblock (fs/ext4/ext4.h, `struct ext4_super_block`).
//!
//! Only what allocation, identity and state need. Parsing recognises; whether the numbers make sense together is
//! [`Layout`](super::layout::Layout)'s question.

use super::checksum::crc32c;
use super::features::{
    Features, INCOMPAT_64BIT, INCOMPAT_CSUM_SEED, INCOMPAT_RECOVER, RO_COMPAT_METADATA_CSUM,
};
use crate::State;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

/// Where the primary superblock starts, whatever the block size.
pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
/// How long every superblock is.
pub(super) const SUPERBLOCK_BYTES: u64 = 1024;

const EXT4_SUPER_MAGIC: u16 = 0xEF53;
const EXT4_VALID_FS: u16 = 1;
const EXT4_ERROR_FS: u16 = 2;
const EXT4_GOOD_OLD_REV: u32 = 0;
const EXT4_GOOD_OLD_INODE_SIZE: u16 = 128;
const EXT4_CRC32C_CHKSUM: u8 = 1;
/// 64 KiB blocks: the largest there are.
const MOST_LOG_BLOCK_SIZE: u32 = 6;
const S_CHECKSUM_OFFSET: usize = 0x3FC;

/// A superblock with the names of the kernel.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) s_inodes_count: u32,
    pub(super) s_blocks_count: u64,
    pub(super) s_free_blocks_count: u64,
    pub(super) s_first_data_block: u32,
    pub(super) s_log_block_size: u32,
    pub(super) s_log_cluster_size: u32,
    pub(super) s_blocks_per_group: u32,
    pub(super) s_clusters_per_group: u32,
    pub(super) s_inodes_per_group: u32,
    pub(super) s_state: u16,
    pub(super) s_rev_level: u32,
    pub(super) s_inode_size: u16,
    pub(super) features: Features,
    pub(super) s_uuid: [u8; 16],
    pub(super) uuid: Option<String>,
    pub(super) s_volume_name: Option<String>,
    pub(super) s_reserved_gdt_blocks: u16,
    pub(super) s_desc_size: u16,
    pub(super) s_first_meta_bg: u32,
    pub(super) s_mmp_block: u64,
    pub(super) s_backup_bgs: [u32; 2],
    /// What every metadata checksum starts from.
    pub(super) csum_seed: u32,
    checksum_is_right: bool,
}

impl Superblock {
    /// Recognises a superblock in its 1024 bytes: the magic, and a block size that exists.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let b = Bytes(bytes);
        if b.le16(0x38)? != EXT4_SUPER_MAGIC || b.le32(0x18)? > MOST_LOG_BLOCK_SIZE {
            return None;
        }
        let features = Features {
            s_feature_compat: b.le32(0x5C)?,
            s_feature_incompat: b.le32(0x60)?,
            s_feature_ro_compat: b.le32(0x64)?,
        };
        // As libext2fs: the upper halves mean nothing without the feature.
        let upper = |at| if features.incompat(INCOMPAT_64BIT) { b.le32(at) } else { Some(0) };
        let s_rev_level = b.le32(0x4C)?;
        let old = s_rev_level == EXT4_GOOD_OLD_REV;
        let s_uuid = b.array(0x68)?;
        Some(Self {
            s_inodes_count: b.le32(0x00)?,
            s_blocks_count: wide(b.le32(0x04)?, upper(0x150)?),
            s_free_blocks_count: wide(b.le32(0x0C)?, upper(0x158)?),
            s_first_data_block: b.le32(0x14)?,
            s_log_block_size: b.le32(0x18)?,
            s_log_cluster_size: b.le32(0x1C)?,
            s_blocks_per_group: b.le32(0x20)?,
            s_clusters_per_group: b.le32(0x24)?,
            s_inodes_per_group: b.le32(0x28)?,
            s_state: b.le16(0x3A)?,
            s_rev_level,
            s_inode_size: if old { EXT4_GOOD_OLD_INODE_SIZE } else { b.le16(0x58)? },
            features,
            s_uuid,
            uuid: b.uuid(0x68),
            s_volume_name: b.text(0x78, 16),
            s_reserved_gdt_blocks: b.le16(0xCE)?,
            s_desc_size: b.le16(0xFE)?,
            s_first_meta_bg: b.le32(0x104)?,
            s_mmp_block: b.le64(0x168)?,
            s_backup_bgs: [b.le32(0x24C)?, b.le32(0x250)?],
            csum_seed: match features.incompat(INCOMPAT_CSUM_SEED) {
                true => b.le32(0x270)?,
                false => crc32c(!0, &[&s_uuid]),
            },
            checksum_is_right: checksum_is_right(b, features)?,
        })
    }

    /// Whether checksums are CRC-32C over metadata (and not CRC-16 over group descriptors, or none).
    pub(super) fn has_metadata_csum(&self) -> bool {
        self.features.ro_compat(RO_COMPAT_METADATA_CSUM)
    }

    /// Whether the filesystem was left in order, as far as the superblock tells.
    pub(super) fn state(&self) -> State {
        let dirty = |why: &str| State::Dirty(why.to_owned());
        if !self.checksum_is_right {
            dirty("the superblock's checksum is wrong")
        } else if self.features.incompat(INCOMPAT_RECOVER) {
            dirty("the journal holds changes that are not in place yet (needs_recovery)")
        } else if self.s_state & EXT4_ERROR_FS != 0 {
            dirty("the kernel found errors in it")
        } else if self.s_state & EXT4_VALID_FS == 0 {
            dirty("it was not unmounted")
        } else {
            State::Clean
        }
    }

    /// Whether the map can be believed, as far as the superblock tells.
    ///
    /// # Errors
    /// `Unsupported` for unknown features, `Corrupt` for a filesystem that was not left in order: its bitmaps may be
    /// older than its files.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(unknown) = self.features.unknown() {
            return Err(Error::unsupported(unknown));
        }
        match self.state() {
            State::Dirty(why) => Err(Error::corrupt(why)),
            _ => Ok(()),
        }
    }
}

fn wide(lo: u32, hi: u32) -> u64 {
    u64::from(hi) << 32 | u64::from(lo)
}

fn checksum_is_right(b: Bytes<'_>, features: Features) -> Option<bool> {
    if !features.ro_compat(RO_COMPAT_METADATA_CSUM) {
        return Some(true);
    }
    let sum = crc32c(!0, &[b.slice(0, S_CHECKSUM_OFFSET)?]);
    Some(b.byte(0x175)? == EXT4_CRC32C_CHKSUM && b.le32(S_CHECKSUM_OFFSET)? == sum)
}
