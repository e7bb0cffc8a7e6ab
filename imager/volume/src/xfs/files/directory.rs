//! Directories (fs/xfs/libxfs/xfs_da_format.h): in the inode, in one block, or in many. The indexes of hashes that larger
//! ones have as well are not needed: every entry is in a data block.

use super::fork;
use super::inode::Inode;
use super::{BASIC_BLOCK_BYTES, Files};
use crate::bytes::Bytes;
use crate::xfs::checksum;
use imager_units::Result;

/// `XFS_DIR2_LEAF_OFFSET`: from here on there are indexes.
const XFS_DIR2_LEAF_OFFSET: u64 = 32 << 30;
const XFS_DIR2_DATA_FREE_TAG: u16 = 0xFFFF;
const SB_DIRBLKLOG_OFFSET: usize = 192;
/// `XFS_MAX_BLOCKSIZE_LOG`.
const LARGEST_BLOCK_LOG: u8 = 16;
/// `struct xfs_dir2_data_hdr`, `struct xfs_dir3_data_hdr`.
const HEADER_BYTES: usize = 16;
const CRC_HEADER_BYTES: usize = 64;
/// The directories on the way to a system's own settings are small.
const MOST_BYTES: u64 = 16 << 20;

/// The inode of `name`.
///
/// # Errors
/// `Io`; `Corrupt` when the directory is damaged, or too large to be one we look into.
pub(super) fn look_up(files: &Files<'_>, folder: &Inode, name: &[u8]) -> Result<Option<u64>> {
    let has_type = files.sb.features.has_ftype();
    if let Some(local) = folder.local() {
        return short(local, name, has_type).ok_or_else(|| folder.wrong("is a damaged directory"));
    }
    let wrong = || folder.wrong("is a directory with a damaged block");
    let log = Bytes(&files.sb.bytes).byte(SB_DIRBLKLOG_OFFSET).unwrap_or(u8::MAX);
    let each = 1_u64.checked_shl(log.into()).unwrap_or(u64::MAX);
    let is_possible = files.sb.sb_blocklog.saturating_add(log) <= LARGEST_BLOCK_LOG;
    let block_bytes = each.saturating_mul(files.layout.block_bytes);
    let len = usize::try_from(block_bytes).ok().filter(|_| is_possible).ok_or_else(wrong)?;
    let data_blocks = XFS_DIR2_LEAF_OFFSET.checked_div(files.layout.block_bytes).unwrap_or(0);
    let runs = fork::runs(files, folder)?;
    let (mut next, mut left) = (0, MOST_BYTES);
    for run in runs.iter().take_while(|run| run.offset < data_blocks) {
        // A block of the directory may lie in several runs: it is read once, at the first.
        while next < run.offset.saturating_add(run.count) {
            let from = next.max(run.offset.checked_div(each).unwrap_or(0).saturating_mul(each));
            left = left.checked_sub(block_bytes).ok_or_else(|| folder.wrong("is a very large directory"))?;
            let bytes = fork::read(files, &runs, from, len)?;
            if !is_sound(files, folder, &bytes, fork::place(files, &runs, from)) {
                return Err(wrong());
            }
            if let Some(number) = in_block(&bytes, name, has_type).ok_or_else(wrong)? {
                return Ok(Some(number));
            }
            next = from.saturating_add(each);
        }
    }
    Ok(None)
}

/// Whether these are the bytes of a block of this directory that begins at `place` on the volume.
fn is_sound(files: &Files<'_>, folder: &Inode, bytes: &[u8], place: Option<u64>) -> bool {
    let b = Bytes(bytes);
    if !files.sb.features.has_crc() {
        return b.is(0, b"XD2B") || b.is(0, b"XD2D");
    }
    (b.is(0, b"XDB3") || b.is(0, b"XDD3"))
        && checksum::is_right(bytes, 4)
        && b.be64(8) == place.and_then(|place| place.checked_div(BASIC_BLOCK_BYTES))
        && b.array(24) == Some(files.sb.meta_uuid)
        && b.be64(40) == Some(folder.number)
}

/// Looks `name` up among the entries of a block; `None` when it is damaged.
fn in_block(bytes: &[u8], name: &[u8], has_type: bool) -> Option<Option<u64>> {
    let b = Bytes(bytes);
    let is_checked = b.is(0, b"XDB3") || b.is(0, b"XDD3");
    let mut at = if is_checked { CRC_HEADER_BYTES } else { HEADER_BYTES };
    let mut end = bytes.len();
    if b.is(0, b"XDB3") || b.is(0, b"XD2B") {
        // Behind the entries an index, and how many records it has (`struct xfs_dir2_block_tail`).
        let tail = bytes.len().checked_sub(8)?;
        let index = usize::try_from(b.be32(tail)?).ok()?.checked_mul(8)?;
        end = tail.checked_sub(index)?;
    }
    while at < end {
        let len = if b.be16(at)? == XFS_DIR2_DATA_FREE_TAG {
            usize::from(b.be16(at.checked_add(2)?)?)
        } else {
            let name_len = usize::from(b.byte(at.checked_add(8)?)?);
            if b.slice(at.checked_add(9)?, name_len)? == name {
                return Some(Some(b.be64(at)?));
            }
            // Number, length, name, type, and the tag of two bytes: to a multiple of eight.
            name_len.checked_add(11)?.checked_add(usize::from(has_type))?.checked_next_multiple_of(8)?
        };
        if len == 0 {
            return None;
        }
        at = at.checked_add(len)?;
    }
    (at == end).then_some(None)
}

/// Looks `name` up in a directory in its inode (`struct xfs_dir2_sf_hdr`); `None` when it is damaged.
fn short(fork: &[u8], name: &[u8], has_type: bool) -> Option<Option<u64>> {
    let b = Bytes(fork);
    let (count, is_wide) = (b.byte(0)?, b.byte(1)? != 0);
    let number_bytes: usize = if is_wide { 8 } else { 4 };
    let mut at = number_bytes.checked_add(2)?;
    for _ in 0..count {
        let name_at = at.checked_add(3)?;
        let len = usize::from(b.byte(at)?);
        let number_at = name_at.checked_add(len)?.checked_add(usize::from(has_type))?;
        if b.slice(name_at, len)? == name {
            return Some(Some(if is_wide { b.be64(number_at)? } else { b.be32(number_at)?.into() }));
        }
        at = number_at.checked_add(number_bytes)?;
    }
    Some(None)
}
