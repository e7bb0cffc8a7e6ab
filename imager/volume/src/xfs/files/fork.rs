//! Where the data of an inode lies: extents in the inode, or a tree of them (fs/xfs/libxfs/xfs_bmap_btree.c,
//! `struct xfs_bmbt_rec`, `struct xfs_bmdr_block`, `struct xfs_btree_block` with long pointers).

use super::inode::{Format, Inode};
use super::{BASIC_BLOCK_BYTES, Files};
use crate::bytes::Bytes;
use crate::read::{read as read_extent, read_into};
use crate::xfs::checksum;
use imager_units::{ByteLen, Extent, Result};

const RECORD_BYTES: usize = 16;
/// A key and a pointer of a node.
const KEY_BYTES: usize = 8;
const POINTER_BYTES: usize = 8;
/// `XFS_BTREE_LBLOCK_LEN`, `XFS_BTREE_LBLOCK_CRC_LEN`.
const LONG_HEADER_BYTES: usize = 24;
const LONG_CRC_HEADER_BYTES: usize = 72;
const ROOT_HEADER_BYTES: usize = 4;
const CRC_OFFSET: usize = 64;
/// `XFS_BM_MAXLEVELS` is less.
const MOST_LEVELS: u16 = 9;
/// What small files and directories never have.
const MOST_RUNS: usize = 1 << 16;
const MOST_BLOCKS: usize = 1 << 12;

/// Blocks of a file that lie in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first one's place in the file, in blocks.
    pub(super) offset: u64,
    pub(super) count: u64,
    /// `XFS_FSB_TO_AGNO`: the group's number, shifted, and the block's there.
    start: u64,
    /// Allocated and never written: reads as zeros.
    is_unwritten: bool,
}

impl Run {
    fn parse(record: &[u8]) -> Option<Self> {
        let b = Bytes(record);
        let (high, low) = (b.be64(0)?, b.be64(8)?);
        Some(Self {
            offset: high << 1 >> 10,
            count: low & 0x1F_FFFF,
            start: (high & 0x1FF) << 43 | low >> 21,
            is_unwritten: high >> 63 == 1,
        })
    }

    fn end(self) -> u64 {
        self.offset.saturating_add(self.count)
    }

    /// Where it lies.
    ///
    /// # Errors
    /// `Corrupt` when it lies outside of its group.
    pub(super) fn extent(self, files: &Files<'_>, inode: &Inode) -> Result<Extent> {
        blocks(files, self.start, self.count).ok_or_else(|| inode.wrong("has blocks outside of their group"))
    }
}

/// Blocks of the filesystem in a row, all in one group.
fn blocks(files: &Files<'_>, start: u64, count: u64) -> Option<Extent> {
    let log = u32::from(files.sb.sb_agblklog);
    let group = start.checked_shr(log)?;
    let at = start.checked_sub(group.checked_shl(log)?)?;
    let end = at.checked_add(count)?;
    (group < files.layout.groups && end <= files.layout.blocks_of(group))
        .then(|| files.layout.extent(group, at, end))
}

/// All runs of an inode, in their order, each inside of the filesystem.
///
/// # Errors
/// `Io`; `Corrupt` when they are out of order or place, or a block of the tree is damaged; `Corrupt` when there are more
/// than anything small has.
pub(super) fn runs(files: &Files<'_>, inode: &Inode) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    match inode.format {
        Format::Extents => add(files, inode, &inode.fork, &mut runs)?,
        Format::Tree => Walk { files, inode, read: 0 }.root(&mut runs)?,
        Format::Local => {}
    }
    Ok(runs)
}

fn add(files: &Files<'_>, inode: &Inode, records: &[u8], runs: &mut Vec<Run>) -> Result<()> {
    for run in records.chunks_exact(RECORD_BYTES).filter_map(Run::parse) {
        if run.count == 0 || runs.last().is_some_and(|last| run.offset < last.end()) {
            return Err(inode.wrong("has extents out of order"));
        }
        run.extent(files, inode)?;
        if runs.len() >= MOST_RUNS {
            return Err(inode.wrong("has too many extents to be read"));
        }
        runs.push(run);
    }
    Ok(())
}

struct Walk<'a> {
    files: &'a Files<'a>,
    inode: &'a Inode,
    read: usize,
}

impl Walk<'_> {
    fn root(mut self, runs: &mut Vec<Run>) -> Result<()> {
        let b = Bytes(&self.inode.fork);
        let (level, count) = (b.be16(0).unwrap_or(0), usize::from(b.be16(2).unwrap_or(0)));
        if !(1..=MOST_LEVELS).contains(&level) {
            return Err(self.inode.wrong("has a tree of extents of an impossible height"));
        }
        let pointers = pointers(&self.inode.fork, ROOT_HEADER_BYTES, count);
        for pointer in pointers.ok_or_else(|| self.inode.wrong("has a damaged root of its extents"))? {
            self.block(pointer, level.saturating_sub(1), runs)?;
        }
        Ok(())
    }

    /// What is below a block. The height bounds how deep it calls itself, `MOST_BLOCKS` how often.
    fn block(&mut self, pointer: u64, level: u16, runs: &mut Vec<Run>) -> Result<()> {
        let wrong = || self.inode.wrong("has a damaged tree of extents");
        self.read = self.read.saturating_add(1);
        let extent = blocks(self.files, pointer, 1).filter(|_| self.read <= MOST_BLOCKS).ok_or_else(wrong)?;
        let bytes = read_extent(self.files.volume, extent)?;
        let b = Bytes(&bytes);
        let is_checked = self.files.sb.features.has_crc();
        let header = if is_checked { LONG_CRC_HEADER_BYTES } else { LONG_HEADER_BYTES };
        let sound = b.is(0, if is_checked { b"BMA3" } else { b"BMAP" })
            && b.be16(4) == Some(level)
            && (!is_checked
                || checksum::is_right(&bytes, CRC_OFFSET)
                    && b.be64(24) == extent.start().get().checked_div(BASIC_BLOCK_BYTES)
                    && b.array(40) == Some(self.files.sb.meta_uuid)
                    && b.be64(56) == Some(self.inode.number));
        let count = b.be16(6).map(usize::from).filter(|_| sound).ok_or_else(wrong)?;
        if level == 0 {
            let records = b.slice(header, count.saturating_mul(RECORD_BYTES)).ok_or_else(wrong)?;
            return add(self.files, self.inode, records, runs);
        }
        for below in pointers(&bytes, header, count).ok_or_else(wrong)? {
            self.block(below, level.saturating_sub(1), runs)?;
        }
        Ok(())
    }
}

/// The pointers of a node. There is room for all keys before the first of them.
fn pointers(node: &[u8], header: usize, count: usize) -> Option<Vec<u64>> {
    let most = node.len().checked_sub(header)?.checked_div(KEY_BYTES.saturating_add(POINTER_BYTES))?;
    let at = header.checked_add(most.checked_mul(KEY_BYTES)?)?;
    let pointers = Bytes(node).slice(at, count.checked_mul(POINTER_BYTES)?)?;
    (count <= most)
        .then(|| pointers.chunks_exact(POINTER_BYTES).filter_map(|pointer| Bytes(pointer).be64(0)).collect())
}

/// The first run that does not end before block `offset`.
fn first(runs: &[Run], offset: u64) -> usize {
    runs.partition_point(|run| run.end() <= offset)
}

/// Where on the volume block `offset` of a file lies.
pub(super) fn place(files: &Files<'_>, runs: &[Run], offset: u64) -> Option<u64> {
    let run = runs.get(first(runs, offset)..)?.first().filter(|run| run.offset <= offset)?;
    let start = run.start.checked_add(offset.checked_sub(run.offset)?)?;
    blocks(files, start, 1).map(|extent| extent.start().get())
}

/// `len` bytes of a file from its block `from` on; what has no block, or was never written, is zeros.
///
/// # Errors
/// `Io`.
pub(super) fn read(files: &Files<'_>, runs: &[Run], from: u64, len: usize) -> Result<Vec<u8>> {
    let block_bytes = files.layout.block_bytes;
    let len_blocks = u64::try_from(len).unwrap_or(u64::MAX).div_ceil(block_bytes);
    let end = from.saturating_add(len_blocks);
    let mut content = vec![0; len];
    let mut buffer = Vec::new();
    let here = runs.get(first(runs, from)..).unwrap_or_default().iter();
    for run in here.take_while(|run| run.offset < end).filter(|run| !run.is_unwritten) {
        let (first, last) = (run.offset.max(from), run.end().min(end));
        let skipped = run.start.saturating_add(first.saturating_sub(run.offset));
        let extent = last.checked_sub(first).filter(|&count| count > 0);
        let Some(extent) = extent.and_then(|count| blocks(files, skipped, count)) else { continue };
        read_into(files.volume, extent, &mut buffer)?;
        let at = ByteLen::new(first.saturating_sub(from).saturating_mul(block_bytes)).to_usize();
        let to = at.and_then(|at| content.get_mut(at..)).unwrap_or_default();
        let count = to.len().min(buffer.len());
        if let (Some(to), Some(read)) = (to.get_mut(..count), buffer.get(..count)) {
            to.copy_from_slice(read);
        }
    }
    Ok(content)
}
