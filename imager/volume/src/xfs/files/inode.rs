//! Inodes (fs/xfs/libxfs/xfs_format.h, `struct xfs_dinode`).

use super::Files;
use crate::bytes::Bytes;
use crate::path::Kind;
use crate::read::read;
use crate::xfs::checksum;
use imager_units::{ByteLen, Error, Extent, Result};

const XFS_DINODE_MAGIC: &[u8] = b"IN";
const CRC_OFFSET: usize = 100;
/// `xfs_dinode_size`: of versions 1 and 2, and of version 3.
const CORE_BYTES: usize = 100;
const CORE_3_BYTES: usize = 176;
/// `XFS_DINODE_MIN_LOG`, `XFS_DINODE_MAX_LOG`.
const INODE_LOGS: std::ops::RangeInclusive<u8> = 8..=11;

/// How the data fork holds its data (`enum xfs_dinode_fmt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Local,
    Extents,
    Tree,
}

/// An inode, with the bytes of its data fork.
pub(crate) struct Inode {
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) format: Format,
    pub(super) fork: Vec<u8>,
}

impl Inode {
    /// Reads inode `number`.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when there is none, or not this one.
    pub(super) fn read(files: &Files<'_>, number: u64) -> Result<Self> {
        let wrong = || Error::corrupt(format!("inode {number} is damaged or not where it should be"));
        let bytes = read(files.volume, place(files, number).ok_or_else(wrong)?)?;
        let b = Bytes(&bytes);
        let is_checked = files.sb.features.has_crc();
        let version = b.byte(4).unwrap_or(0);
        let sound = b.is(0, XFS_DINODE_MAGIC)
            && if is_checked {
                version == 3
                    && checksum::is_right(&bytes, CRC_OFFSET)
                    && b.be64(152) == Some(number)
                    && b.array(160) == Some(files.sb.meta_uuid)
            } else {
                matches!(version, 1 | 2)
            };
        if !sound {
            return Err(wrong());
        }
        Self::parse(number, &bytes, if is_checked { CORE_3_BYTES } else { CORE_BYTES }).ok_or_else(wrong)
    }

    fn parse(number: u64, bytes: &[u8], core: usize) -> Option<Self> {
        let b = Bytes(bytes);
        let literal = bytes.get(core..)?;
        let fork = match usize::from(b.byte(82)?).saturating_mul(8) {
            0 => literal,
            len => literal.get(..len)?,
        };
        let kind = Kind::of_mode(b.be16(2)?.into());
        let format = match b.byte(5)? {
            1 => Format::Local,
            2 => Format::Extents,
            3 => Format::Tree,
            // A device or a socket, of which nothing is read.
            _ if kind == Kind::Other => Format::Local,
            _ => return None,
        };
        let fork = match format {
            // As many records as it says there are; one more would be what an attribute left.
            Format::Extents => fork.get(..usize::try_from(records(b)?).ok()?.checked_mul(16)?)?,
            _ => fork,
        };
        Some(Self { number, kind, size: b.be64(56)?, format, fork: fork.to_vec() })
    }

    /// The content, where it lies in the inode itself.
    pub(super) fn local(&self) -> Option<&[u8]> {
        (self.format == Format::Local).then_some(&self.fork)
    }

    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::corrupt(format!("inode {} {what}", self.number))
    }
}

/// How many extents the data fork has: large counters (`XFS_DIFLAG2_NREXT64`) lie elsewhere.
fn records(b: Bytes<'_>) -> Option<u64> {
    let is_large = b.byte(4) == Some(3) && b.be64(120)? & 0x10 != 0;
    if is_large { b.be64(24) } else { b.be32(76).map(u64::from) }
}

/// Where an inode lies: its number is that of its group, of its block there, and of its place in the block.
fn place(files: &Files<'_>, number: u64) -> Option<Extent> {
    let b = Bytes(&files.sb.bytes);
    let (inode_log, per_block_log) = (b.byte(122)?, b.byte(123)?);
    let block_log = inode_log.checked_add(per_block_log)?;
    if !INODE_LOGS.contains(&inode_log) || block_log != files.sb.sb_blocklog {
        return None;
    }
    let block = number.checked_shr(per_block_log.into())?;
    let group = block.checked_shr(files.sb.sb_agblklog.into())?;
    let at = block.checked_sub(group.checked_shl(files.sb.sb_agblklog.into())?)?;
    if group >= files.layout.groups || at >= files.layout.blocks_of(group) {
        return None;
    }
    let inside = number.checked_sub(block.checked_shl(per_block_log.into())?)?;
    let start = files.layout.extent(group, at, at.checked_add(1)?).start();
    let start = start.checked_add(ByteLen::new(inside.checked_shl(inode_log.into())?))?;
    Extent::new(start, ByteLen::new(1_u64.checked_shl(inode_log.into())?))
}
