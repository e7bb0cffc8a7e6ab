//! The superblock (fs/btrfs/ctree.h, `struct btrfs_super_block`) and its copies.
//!
//! Parsing recognises; [`Superblock::check`] says whether the map may be read from it.

use super::checksum::Checksum;
use crate::State;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

/// `BTRFS_SUPER_INFO_SIZE`.
pub(super) const SUPER_BYTES: u64 = 4096;
/// `btrfs_sb_offset`: the superblock and its two copies, on devices that are long enough.
pub(super) const SUPER_OFFSETS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// `BTRFS_MAX_LEVEL`: levels are below.
pub(super) const MAX_LEVEL: u8 = 8;

const MAGIC: &[u8] = b"_BHRfS_M";
const SYS_CHUNK_ARRAY_OFFSET: usize = 0x32B;
const SYS_CHUNK_ARRAY_BYTES: usize = 2048;
const DEV_ITEM_OFFSET: usize = 0xC9;

const FLAG_WRITTEN: u64 = 1;
const FLAG_RELOC: u64 = 1 << 1;
const FLAG_ERROR: u64 = 1 << 2;
const FLAG_SEEDING: u64 = 1 << 32;

const INCOMPAT_METADATA_UUID: u64 = 1 << 10;
/// Without a meaning for where things lie: back references, default subvolume, mixed groups, compression, large
/// nodes, references, RAID 5 and 6, skinny metadata, no holes, metadata UUID, RAID 1 of three and four, simple quotas.
const KNOWN_INCOMPAT: u64 = 0x0FFF | 1 << 16;
/// Free space tree and its validity, verity, block group tree.
const KNOWN_COMPAT_RO: u64 = 0x0F;
pub(super) const COMPAT_RO_BLOCK_GROUP_TREE: u64 = 1 << 3;
/// Those that change where things lie, so that a person knows them by name.
const NAMED_INCOMPAT: [(u64, &str); 3] =
    [(1 << 12, "zoned"), (1 << 13, "extent tree v2"), (1 << 14, "raid stripe tree")];

/// Where a tree starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) logical: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
    /// Which tree its nodes say they are of.
    pub(super) owner: u64,
}

/// A superblock with the names of the kernel.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) fsid: [u8; 16],
    pub(super) uuid: Option<String>,
    pub(super) bytenr: u64,
    flags: u64,
    pub(super) generation: u64,
    pub(super) root: u64,
    pub(super) root_level: u8,
    pub(super) chunk_root: u64,
    pub(super) chunk_root_level: u8,
    pub(super) chunk_root_generation: u64,
    pub(super) log_root: u64,
    pub(super) log_root_level: u8,
    pub(super) bytes_used: u64,
    pub(super) num_devices: u64,
    pub(super) sectorsize: u32,
    pub(super) nodesize: u32,
    pub(super) compat_ro: u64,
    incompat: u64,
    csum_type: u16,
    pub(super) label: Option<String>,
    metadata_uuid: [u8; 16],
    /// The device's number, length and UUID (`dev_item`).
    pub(super) devid: u64,
    pub(super) dev_total_bytes: u64,
    pub(super) dev_uuid: [u8; 16],
    dev_fsid: [u8; 16],
    pub(super) sys_chunk_array: Vec<u8>,
    checksum_is_right: bool,
}

impl Superblock {
    /// Recognises a superblock in its 4096 bytes: the magic.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let b = Bytes(bytes);
        if !b.is(0x40, MAGIC) {
            return None;
        }
        let csum_type = b.le16(0xC4)?;
        let checksum = Checksum::of_type(csum_type);
        let array_len = usize::try_from(b.le32(0xA0)?).ok()?.min(SYS_CHUNK_ARRAY_BYTES);
        let device = Bytes(b.slice(DEV_ITEM_OFFSET, 98)?);
        Some(Self {
            fsid: b.array(0x20)?,
            uuid: b.uuid(0x20),
            bytenr: b.le64(0x30)?,
            flags: b.le64(0x38)?,
            generation: b.le64(0x48)?,
            root: b.le64(0x50)?,
            root_level: b.byte(0xC6)?,
            chunk_root: b.le64(0x58)?,
            chunk_root_level: b.byte(0xC7)?,
            chunk_root_generation: b.le64(0xA4)?,
            log_root: b.le64(0x60)?,
            log_root_level: b.byte(0xC8)?,
            bytes_used: b.le64(0x78)?,
            num_devices: b.le64(0x88)?,
            sectorsize: b.le32(0x90)?,
            nodesize: b.le32(0x94)?,
            compat_ro: b.le64(0xB4)?,
            incompat: b.le64(0xBC)?,
            csum_type,
            label: b.text(0x12B, 256),
            metadata_uuid: b.array(0x23B)?,
            devid: device.le64(0)?,
            dev_total_bytes: device.le64(8)?,
            dev_uuid: device.array(66)?,
            dev_fsid: device.array(82)?,
            sys_chunk_array: b.slice(SYS_CHUNK_ARRAY_OFFSET, array_len)?.to_vec(),
            checksum_is_right: checksum.is_some_and(|sum| sum.is_right(bytes)),
        })
    }

    /// Whether the map may be read.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub(super) fn check(&self) -> Result<()> {
        self.checksum()?;
        if !self.checksum_is_right {
            return Err(Error::corrupt("the checksum of the superblock is wrong"));
        }
        self.check_features()?;
        let power = |size: u32, least: u32| size.is_power_of_two() && (least..=65_536).contains(&size);
        if !power(self.sectorsize, 4096) || !power(self.nodesize, self.sectorsize) {
            let (sector, node) = (self.sectorsize, self.nodesize);
            return Err(Error::corrupt(format!("sectors of {sector} and nodes of {node} bytes cannot be")));
        }
        if [self.root_level, self.chunk_root_level, self.log_root_level].iter().any(|&l| l >= MAX_LEVEL) {
            return Err(Error::corrupt("a tree is higher than trees can be"));
        }
        if self.num_devices == 0 || self.dev_fsid != self.metadata_fsid() {
            return Err(Error::corrupt("the superblock contradicts itself about its devices"));
        }
        Ok(())
    }

    fn check_features(&self) -> Result<()> {
        for (bit, name) in NAMED_INCOMPAT {
            if self.incompat & bit != 0 {
                return Err(Error::unsupported(format!("its feature '{name}' is not read")));
            }
        }
        let (incompat, compat_ro) = (self.incompat & !KNOWN_INCOMPAT, self.compat_ro & !KNOWN_COMPAT_RO);
        if incompat != 0 || compat_ro != 0 {
            return Err(Error::unsupported(format!(
                "unknown feature bits, incompatible {incompat:#x} and read-only {compat_ro:#x}"
            )));
        }
        if self.flags & FLAG_ERROR != 0 {
            return Err(Error::corrupt("it is marked as having errors"));
        }
        if self.flags & FLAG_SEEDING != 0 {
            return Err(Error::unsupported("it is the seed of other filesystems"));
        }
        match self.flags & !(FLAG_WRITTEN | FLAG_RELOC) {
            0 => Ok(()),
            // A dump of metadata alone, or a change of UUID or checksums that was not finished.
            flags => Err(Error::unsupported(format!("its superblock has the flags {flags:#x}"))),
        }
    }

    /// Its checksums.
    ///
    /// # Errors
    /// `Unsupported` when they are of a kind that is not known.
    pub(super) fn checksum(&self) -> Result<Checksum> {
        Checksum::of_type(self.csum_type)
            .ok_or_else(|| Error::unsupported(format!("unknown checksum type {}", self.csum_type)))
    }

    /// Whether `other` is a copy of this superblock, written with it. The log is not compared: a log that was synced
    /// is announced by the first superblock alone (fs/btrfs/tree-log.c, `btrfs_sync_log`).
    pub(super) fn has_copy(&self, other: &Self) -> bool {
        other.checksum_is_right && other.dev_uuid == self.dev_uuid && self.is_of_one_set_with(other)
    }

    /// Whether `other` is the superblock of a device of the same filesystem, written with this one.
    pub(super) fn is_of_one_set_with(&self, other: &Self) -> bool {
        let fields = |sb: &Self| {
            let trees = (sb.generation, sb.root, sb.chunk_root, sb.bytes_used, sb.num_devices);
            (sb.fsid, sb.metadata_fsid(), sb.csum_type, sb.sectorsize, sb.nodesize, trees)
        };
        fields(self) == fields(other)
    }

    /// What every node says its filesystem is.
    pub(super) fn metadata_fsid(&self) -> [u8; 16] {
        if self.incompat & INCOMPAT_METADATA_UUID != 0 { self.metadata_uuid } else { self.fsid }
    }

    /// Whether it was left in order, as far as the superblock says.
    pub(super) fn state(&self) -> State {
        match self.check() {
            Err(error) => State::Dirty(error.to_string()),
            Ok(()) if self.log_root != 0 => State::Dirty("its log has not been replayed".to_owned()),
            Ok(()) => State::Clean,
        }
    }
}
