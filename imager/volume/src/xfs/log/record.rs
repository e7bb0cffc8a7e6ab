//! A record of the log: what one buffer held (fs/xfs/libxfs/xfs_log_format.h, `struct xlog_rec_header`).
//!
//! The first word of each block of its body lies in the headers, where the cycle took its place.

use super::super::checksum::crc32c;
use super::super::superblock::Superblock;
use super::ring::{BASIC_BLOCK_BYTES, HEADER_MAGIC};
use crate::bytes::Bytes;

const XLOG_VERSION_2: u32 = 2;
const KNOWN_VERSIONS: [u32; 2] = [1, XLOG_VERSION_2];
/// `XLOG_FMT_LINUX_LE`.
const FORMAT_LITTLE_ENDIAN: u32 = 1;
/// `XLOG_HEADER_CYCLE_SIZE`: how much body a header has words for.
const BODY_PER_HEADER_BYTES: usize = 32 << 10;
const WORD_BYTES: usize = 4;
/// `h_cycle_data`, and the same in the headers behind the first.
const CYCLE_DATA_OFFSET: usize = 44;
const EXTENDED_CYCLE_DATA_OFFSET: usize = 4;
const CRC_OFFSET: usize = 32;
/// The header as 64-bit and as 32-bit kernels pad it; either is right.
const HEADER_BYTES: [usize; 2] = [328, 324];
const EXTENDED_HEADER_BYTES: usize = 260;
const UNMOUNT_FLAG: u8 = 0x20;
const OPERATION_FLAGS_OFFSET: usize = 9;

/// A whole record.
pub(super) struct Record {
    pub(super) h_tail_lsn: u64,
    pub(super) h_num_logops: u32,
    /// Headers and body, in blocks.
    pub(super) blocks: usize,
    /// The body as it was written.
    pub(super) body: Vec<u8>,
}

impl Record {
    /// Whether a record begins here.
    pub(super) fn is_at(bytes: &[u8]) -> bool {
        Bytes(bytes).be32(0) == Some(HEADER_MAGIC)
    }

    /// Reads the record that begins here; `None` when it is not one of this log with that sequence number, or is not
    /// all there.
    pub(super) fn parse(bytes: &[u8], lsn: u64, sb: &Superblock) -> Option<Self> {
        let b = Bytes(bytes);
        let version = b.be32(8)?;
        let is_ours = Self::is_at(bytes)
            && KNOWN_VERSIONS.contains(&version)
            && b.be64(16)? == lsn
            && b.be32(300)? == FORMAT_LITTLE_ENDIAN
            && b.array(304)? == sb.sb_uuid;
        if !is_ours {
            return None;
        }
        let headers = match version {
            XLOG_VERSION_2 => usize::try_from(b.be32(320)?).ok()?.div_ceil(BODY_PER_HEADER_BYTES).max(1),
            _ => 1,
        };
        let len = usize::try_from(b.be32(12)?).ok()?;
        let headers_bytes = headers.checked_mul(BASIC_BLOCK_BYTES)?;
        let blocks = headers.checked_add(len.div_ceil(BASIC_BLOCK_BYTES))?;
        let (headers, body) =
            bytes.get(..blocks.checked_mul(BASIC_BLOCK_BYTES)?)?.split_at_checked(headers_bytes)?;
        if sb.features.has_crc() && !checksum_is_right(headers, body.get(..len)?) {
            return None;
        }
        let mut body = body.to_vec();
        for (block, word) in body.chunks_mut(BASIC_BLOCK_BYTES).zip(words(headers)) {
            block.get_mut(..WORD_BYTES)?.copy_from_slice(word);
        }
        body.truncate(len);
        Some(Self { h_tail_lsn: b.be64(24)?, h_num_logops: b.be32(40)?, blocks, body })
    }

    /// Whether it says that the filesystem was unmounted (`xlog_check_unmount_rec`).
    pub(super) fn is_of_unmount(&self) -> bool {
        let flags = self.body.get(OPERATION_FLAGS_OFFSET);
        self.h_num_logops == 1 && flags.is_some_and(|flags| flags & UNMOUNT_FLAG != 0)
    }
}

/// The first words of the body's blocks.
fn words(headers: &[u8]) -> impl Iterator<Item = &[u8]> {
    headers.chunks(BASIC_BLOCK_BYTES).enumerate().flat_map(|(number, header)| {
        let at = if number == 0 { CYCLE_DATA_OFFSET } else { EXTENDED_CYCLE_DATA_OFFSET };
        let each = BODY_PER_HEADER_BYTES / BASIC_BLOCK_BYTES;
        header.get(at..).unwrap_or_default().chunks_exact(WORD_BYTES).take(each)
    })
}

/// `xlog_cksum`: mkfs and xfs_repair write records without one, and the kernel takes them.
fn checksum_is_right(headers: &[u8], body: &[u8]) -> bool {
    let Some((first, extended)) = headers.split_at_checked(BASIC_BLOCK_BYTES) else { return false };
    let Some(h_crc) = Bytes(first).le32(CRC_OFFSET) else { return false };
    let sum = |len: usize| {
        let mut pieces = vec![
            first.get(..CRC_OFFSET).unwrap_or_default(),
            &[0; WORD_BYTES],
            first.get(CRC_OFFSET.saturating_add(WORD_BYTES)..len).unwrap_or_default(),
        ];
        let extended = extended.chunks(BASIC_BLOCK_BYTES);
        pieces.extend(extended.filter_map(|header| header.get(..EXTENDED_HEADER_BYTES)));
        pieces.push(body);
        crc32c(&pieces)
    };
    h_crc == 0 || HEADER_BYTES.into_iter().any(|len| sum(len) == h_crc)
}
