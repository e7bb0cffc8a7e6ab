//! What would be replayed, taken apart far enough to see that it changes nothing.
//!
//! A covered log holds one or two transactions, each of which logs the superblock's buffer and nothing else
//! (`xfs_sync_sb`). Whatever is not exactly that is a change: other buffers, inodes, intents, pieces that go on in
//! another record, two transactions at once.

use super::record::Record;
use crate::bytes::Bytes;
use std::ops::Range;

const OPERATION_BYTES: usize = 12;
/// `XFS_TRANSACTION`.
const CLIENT_TRANSACTION: u8 = 0x69;
/// `XLOG_START_TRANS`, `XLOG_COMMIT_TRANS`.
const FLAG_START: u8 = 1;
const FLAG_COMMIT: u8 = 2;
/// `XFS_TRANS_HEADER_MAGIC`.
const TRANSACTION_MAGIC: u32 = 0x5452_414E;
/// `XFS_LI_BUF`.
const ITEM_BUFFER: u16 = 0x123C;
/// The sort of a buffer stands above these bits, which would make it a buffer of inodes, of quotas, or cancelled.
const BUFFER_FLAGS: u16 = (1 << 11) - 1;
/// `blf_data_map` has a bit for each of these.
const CHUNK_BYTES: u32 = 128;
const DATA_MAP_OFFSET: usize = 20;
/// The superblock's counters, quota flags, checksum and sequence number: the kernel counts the first anew, and the
/// others change nothing about space. In order.
const VOLATILE: [Range<usize>; 4] = [128..160, 176..178, 224..228, 240..248];

/// What must come next.
enum Next {
    Start,
    Header,
    Item,
    /// The bytes of the superblock from an offset on.
    Bytes(usize),
}

/// Reads the operations of records one after the other.
pub(super) struct Pending<'a> {
    superblock: &'a [u8],
    next: Next,
}

impl<'a> Pending<'a> {
    /// `superblock` is the first sector as it lies in place.
    pub(super) fn new(superblock: &'a [u8]) -> Self {
        Self { superblock, next: Next::Start }
    }

    /// Whether the last transaction was ended.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.next, Next::Start)
    }

    /// Reads a record; `None` when it changes anything.
    pub(super) fn read(&mut self, record: &Record) -> Option<()> {
        let mut at = 0_usize;
        for _ in 0..record.h_num_logops {
            let b = Bytes(record.body.get(at..)?);
            let len = usize::try_from(b.be32(4)?).ok()?;
            let (client, flags) = (b.byte(8)?, b.byte(9)?);
            let bytes = b.slice(OPERATION_BYTES, len)?;
            if client != CLIENT_TRANSACTION {
                return None;
            }
            self.next = self.step(flags, bytes)?;
            at = at.checked_add(OPERATION_BYTES)?.checked_add(len)?;
        }
        Some(())
    }

    fn step(&self, flags: u8, bytes: &[u8]) -> Option<Next> {
        match (&self.next, flags) {
            (Next::Start, FLAG_START) if bytes.is_empty() => Some(Next::Header),
            (Next::Header, 0) => (Bytes(bytes).le32(0)? == TRANSACTION_MAGIC).then_some(Next::Item),
            (Next::Item, FLAG_COMMIT) if bytes.is_empty() => Some(Next::Start),
            (Next::Item, 0) => superblock_item(bytes).map(Next::Bytes),
            (Next::Bytes(at), 0) => self.is_in_place(*at, bytes).then_some(Next::Item),
            _ => None,
        }
    }

    /// Whether the superblock says the same from `at` on.
    fn is_in_place(&self, at: usize, logged: &[u8]) -> bool {
        let Some(there) = Bytes(self.superblock).slice(at, logged.len()) else { return false };
        let mut pairs = (at..).zip(there.iter().zip(logged));
        pairs.all(|(at, (there, logged))| there == logged || VOLATILE.iter().any(|range| range.contains(&at)))
    }
}

/// Where in the superblock the bytes begin that a buffer item logs in one piece; `None` when it is another item
/// (`struct xfs_buf_log_format`, in the machine's own byte order).
fn superblock_item(bytes: &[u8]) -> Option<usize> {
    let b = Bytes(bytes);
    let is_superblock = b.le16(0)? == ITEM_BUFFER
        && b.le16(2)? == 2 // the format and one piece
        && b.le16(4)? & BUFFER_FLAGS == 0
        && b.le64(8)? == 0;
    let first = b.le32(DATA_MAP_OFFSET)?.trailing_zeros().checked_mul(CHUNK_BYTES)?;
    is_superblock.then_some(usize::try_from(first).ok()?)
}
