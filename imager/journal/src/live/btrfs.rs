//! The map of a live Btrfs on one device, from its trees as the kernel has them (`BTRFS_IOC_TREE_SEARCH_V2`,
//! `linux/btrfs.h`, `linux/btrfs_tree.h`).
//!
//! What the last freeze committed is all in them. On one device each stripe of a chunk is a whole copy of it, whatever its
//! profile.

use crate::sys::{self, TreeKey, TreePage};
use imager_units::{ByteLen, ByteOffset, Context, Extent, ExtentSet, Result};
use std::fs::File;

const EXTENT_TREE: u64 = 2;
const CHUNK_TREE: u64 = 3;
const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
const CHUNK_ITEM: u8 = 228;
/// Where nothing is allocated, and the copies of the superblock.
const KEPT: [(u64, u64); 3] = [(0, 1 << 20), (64 << 20, 4096), (256 << 30, 4096)];
/// How often all is read again, where chunks came and went.
const TRIES: usize = 3;
/// Beyond so many extents, small gaps count as used.
const EXTENTS_MAX: usize = 1 << 19;

/// The used bytes of a device of `size`; `None` where the filesystem lies on several.
pub(super) fn map(folder: &File, size: ByteLen) -> Result<Option<ExtentSet>> {
    let info = sys::btrfs_info(folder).map_err(std::io::Error::from).context(|| "asking Btrfs".to_owned())?;
    if info.device_count != 1 {
        return Ok(None);
    }
    for _ in 0..TRIES {
        let extents = extents(folder, info.node_bytes)?;
        // Afterwards: those that came meanwhile are there.
        let chunks = chunks(folder)?;
        let known: ExtentSet = sorted(chunks.iter().filter_map(|chunk| chunk.logical()).collect());
        if extents.difference(&known).is_empty() {
            return Ok(Some(on_device(&extents, &chunks, size).coarsen(EXTENTS_MAX)));
        }
    }
    Ok(None)
}

/// What is allocated, by logical addresses.
fn extents(folder: &File, node_bytes: u64) -> Result<ExtentSet> {
    let mut extents = ExtentSet::new();
    let first = TreeKey { object: 0, kind: EXTENT_ITEM, offset: 0 };
    each(folder, EXTENT_TREE, first, |key, _| {
        let len = match key.kind {
            EXTENT_ITEM => key.offset,
            METADATA_ITEM => node_bytes,
            _ => return,
        };
        extents.extend(extent(key.object, len));
        if extents.count() > 2 * EXTENTS_MAX {
            extents = std::mem::take(&mut extents).coarsen(EXTENTS_MAX);
        }
    })?;
    Ok(extents)
}

/// A run of logical addresses, and where its copies begin on the device.
struct Chunk {
    start: u64,
    len: u64,
    copies: Vec<u64>,
}

impl Chunk {
    fn logical(&self) -> Option<Extent> {
        extent(self.start, self.len)
    }

    /// `struct btrfs_chunk`: its length, at 44 how many stripes, from 48 on the stripes, of 32 bytes each: a
    /// device's number and where on it.
    fn parse(start: u64, item: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(item.get(at..at + 8)?.try_into().ok()?));
        let count = u16::from_le_bytes(item.get(44..46)?.try_into().ok()?);
        let copies =
            (0..usize::from(count)).map(|index| number(48 + 32 * index + 8)).collect::<Option<_>>()?;
        Some(Self { start, len: number(0)?, copies })
    }
}

fn chunks(folder: &File) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    // All chunks are of this object.
    let first = TreeKey { object: 256, kind: CHUNK_ITEM, offset: 0 };
    each(folder, CHUNK_TREE, first, |key, item| {
        chunks.extend((key.kind == CHUNK_ITEM).then(|| Chunk::parse(key.offset, item)).flatten());
    })?;
    Ok(chunks)
}

/// Where on the device it lies, in all copies.
fn on_device(extents: &ExtentSet, chunks: &[Chunk], size: ByteLen) -> ExtentSet {
    let mut places: Vec<_> = KEPT.iter().filter_map(|(start, len)| extent(*start, *len)).collect();
    for chunk in chunks {
        for part in chunk.logical().into_iter().flat_map(|logical| extents.overlapping(logical)) {
            let inside = part.start().get().saturating_sub(chunk.start);
            let copies =
                chunk.copies.iter().filter_map(|copy| extent(copy.checked_add(inside)?, part.len().get()));
            places.extend(copies);
        }
    }
    let device = Extent::first(size);
    sorted(places.into_iter().map(|place| place.intersection(device)).collect())
}

fn extent(start: u64, len: u64) -> Option<Extent> {
    Extent::new(ByteOffset::new(start), ByteLen::new(len))
}

fn sorted(mut extents: Vec<Extent>) -> ExtentSet {
    extents.sort_unstable();
    extents.into_iter().collect()
}

/// Says every item of a tree from `first` on.
fn each(folder: &File, tree: u64, first: TreeKey, mut each: impl FnMut(TreeKey, &[u8])) -> Result<()> {
    let mut page = TreePage::new(tree);
    let mut next = Some(first);
    while let Some(from) = next {
        let say = || format!("reading tree {tree} of Btrfs");
        sys::btrfs_search(folder, &mut page, from).map_err(std::io::Error::from).context(say)?;
        let mut last = None;
        for (key, item) in page.items() {
            each(key, item);
            last = Some(key);
        }
        next = last.and_then(TreeKey::next);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Chunk, TreeKey, extent, on_device, sorted};
    use imager_units::ByteLen;

    #[test]
    fn keys_follow_each_other_in_the_order_of_the_tree() {
        let key = |object, kind, offset| TreeKey { object, kind, offset };
        assert_eq!(key(1, 2, 3).next(), Some(key(1, 2, 4)));
        assert_eq!(key(1, 2, u64::MAX).next(), Some(key(1, 3, 0)));
        assert_eq!(key(1, u8::MAX, u64::MAX).next(), Some(key(2, 0, 0)));
        assert_eq!(key(u64::MAX, u8::MAX, u64::MAX).next(), None);
    }

    #[test]
    fn what_is_in_a_chunk_lies_in_each_of_its_copies() {
        const MIB: u64 = 1 << 20;
        let mut item = vec![0; 48 + 2 * 32];
        item[..8].copy_from_slice(&(8 * MIB).to_le_bytes());
        item[44..46].copy_from_slice(&2_u16.to_le_bytes());
        for (stripe, at) in [(0, 20 * MIB), (1, 40 * MIB)] {
            item[48 + 32 * stripe + 8..][..8].copy_from_slice(&at.to_le_bytes());
        }
        let chunk = Chunk::parse(100 * MIB, &item).unwrap();
        assert!(Chunk::parse(0, &item[..90]).is_none(), "a stripe is cut off");
        // One extent ends behind the chunk.
        let used =
            sorted([(101, 1), (107, 4)].map(|(start, len)| extent(start * MIB, len * MIB).unwrap()).into());
        let found = on_device(&used, &[chunk], ByteLen::new(41 * MIB + 4096));
        let found: Vec<_> = found.iter().map(|e| (e.start().get() / MIB, e.len().get())).collect();
        assert_eq!(found, [(0, MIB), (21, MIB), (27, MIB), (41, 4096)]);
    }
}
