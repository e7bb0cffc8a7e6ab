//! What is allocated: every extent of the extent tree, counted against the block groups.

use super::chunk::{Chunk, Chunks};
use super::node::Key;
use super::superblock::Superblock;
use crate::bytes::Bytes;
use crate::gather::Gather;
use imager_units::{ByteLen, ByteOffset, Error, Extent, ExtentSet, Result};

const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
const BLOCK_GROUP_ITEM: u8 = 192;

/// What one block group says, and what was found in it.
#[derive(Clone, Copy, Default)]
struct Group {
    says: Option<u64>,
    found: u64,
}

/// Collects the allocated bytes of one device.
pub(super) struct Space<'a> {
    chunks: &'a Chunks,
    devid: u64,
    node_bytes: u64,
    sector_bytes: u64,
    groups: Vec<Group>,
    /// Where the last extent ended.
    end: u64,
    /// Places on the device.
    used: Gather,
    /// Logical places of metadata, to be compared with the nodes that were met.
    metadata: Gather,
}

impl<'a> Space<'a> {
    /// Nothing yet of the device `devid`.
    pub(super) fn new(chunks: &'a Chunks, sb: &Superblock) -> Self {
        Self {
            chunks,
            devid: sb.devid,
            node_bytes: sb.nodesize.into(),
            sector_bytes: sb.sectorsize.into(),
            groups: vec![Group::default(); chunks.len()],
            end: 0,
            used: Gather::default(),
            metadata: Gather::default(),
        }
    }

    /// Takes an item of the extent tree or the block group tree.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(super) fn take(&mut self, key: Key, data: &[u8]) -> Result<()> {
        match key.kind {
            EXTENT_ITEM => self.take_extent(key.objectid, key.offset),
            METADATA_ITEM => self.take_extent(key.objectid, self.node_bytes),
            BLOCK_GROUP_ITEM => self.take_group(key, data),
            _ => Ok(()),
        }
    }

    fn take_extent(&mut self, logical: u64, len: u64) -> Result<()> {
        let (number, chunk) = self.around(logical, len)?;
        if logical < self.end {
            return Err(Error::corrupt(format!("the extent at {logical:#x} lies over another")));
        }
        self.end = logical.saturating_add(len);
        if let Some(group) = self.groups.get_mut(number) {
            group.found = group.found.saturating_add(len);
        }
        if chunk.holds_metadata() {
            self.metadata.push(extent(logical, len));
        }
        self.map(chunk, logical, len);
        Ok(())
    }

    /// The chunk around an extent, which must be of whole sectors.
    fn around(&self, logical: u64, len: u64) -> Result<(usize, &'a Chunk)> {
        let is_aligned = |at: u64| at.checked_rem(self.sector_bytes) == Some(0);
        if len == 0 || !is_aligned(logical) || !is_aligned(len) {
            return Err(Error::corrupt(format!("the extent of {len} bytes at {logical:#x} cannot be")));
        }
        self.chunks.around(logical, len)
    }

    fn take_group(&mut self, key: Key, data: &[u8]) -> Result<()> {
        let b = Bytes(data);
        let wrong =
            || Error::corrupt(format!("the block group at {:#x} is not that of a chunk", key.objectid));
        let (says, flags) = b.le64(0).zip(b.le64(16)).ok_or_else(wrong)?;
        let (number, chunk) = self.chunks.at(key.objectid).ok_or_else(wrong)?;
        if (chunk.logical, chunk.len, chunk.kind) != (key.objectid, key.offset, flags) {
            return Err(wrong());
        }
        self.groups.get_mut(number).ok_or_else(wrong)?.says = Some(says);
        Ok(())
    }

    /// Adds bytes that no tree counts: those of the log.
    ///
    /// # Errors
    /// `Corrupt` when no chunk has them.
    pub(super) fn add_uncounted(&mut self, logical: u64, len: u64) -> Result<()> {
        let (_, chunk) = self.around(logical, len)?;
        self.map(chunk, logical, len);
        Ok(())
    }

    fn map(&mut self, chunk: &Chunk, logical: u64, len: u64) {
        let from = logical.saturating_sub(chunk.logical);
        let to = from.saturating_add(len);
        for (number, stripe) in (0_u64..).zip(&chunk.stripes) {
            if stripe.devid != self.devid {
                continue;
            }
            for (start, end) in chunk.profile.runs(number, from, to).into_iter().flatten() {
                let start = stripe.offset.saturating_add(start);
                self.used.push(extent(start, stripe.offset.saturating_add(end).saturating_sub(start)));
            }
        }
    }

    /// The places on the device, once everything adds up: each block group with its extents, the superblock with all
    /// block groups, and `nodes`, which were met in trees, with the metadata.
    ///
    /// # Errors
    /// `Corrupt` when something does not.
    pub(super) fn finish(self, sb: &Superblock, nodes: &ExtentSet) -> Result<ExtentSet> {
        let mut total = 0_u64;
        for (chunk, group) in self.chunks.iter().zip(&self.groups) {
            let Group { says: Some(says), found } = *group else {
                return Err(Error::corrupt(format!("the chunk at {:#x} has no block group", chunk.logical)));
            };
            if says != found {
                return Err(Error::corrupt(format!(
                    "the block group at {:#x} has {found} bytes in use and says {says}",
                    chunk.logical
                )));
            }
            total = total.saturating_add(found);
        }
        if total != sb.bytes_used {
            let says = sb.bytes_used;
            return Err(Error::corrupt(format!("{total} bytes are in use and the superblock says {says}")));
        }
        match nodes.difference(&self.metadata.finish()).iter().next() {
            Some(node) => Err(Error::corrupt(format!("the tree node at {} is not allocated", node.start()))),
            None => Ok(self.used.finish()),
        }
    }
}

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap_or_default()
}
