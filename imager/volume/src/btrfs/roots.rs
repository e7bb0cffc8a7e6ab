//! Which trees there are: the roots of the root tree that the map needs (`struct btrfs_root_item`).

use super::chunk::Chunks;
use super::node::Key;
use super::superblock::{Root, Superblock};
use super::tree::Forest;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

const ROOT_TREE: u64 = 1;
const EXTENT_TREE: u64 = 2;
const CHUNK_TREE: u64 = 3;
const DEV_TREE: u64 = 4;
const BLOCK_GROUP_TREE: u64 = 11;
/// `BTRFS_TREE_LOG_OBJECTID`, -6.
const LOG_TREES: u64 = u64::MAX - 5;
pub(super) const ROOT_ITEM: u8 = 132;

/// Of `struct btrfs_root_item`, which begins with an inode item of 160 bytes.
const GENERATION_OFFSET: usize = 160;
const BYTENR_OFFSET: usize = 176;
const LEVEL_OFFSET: usize = 238;

/// The trees of the map.
pub(super) struct Roots {
    pub(super) extents: Root,
    pub(super) devices: Root,
    /// Where block groups have a tree of their own.
    pub(super) block_groups: Option<Root>,
}

impl Roots {
    /// Finds them in the root tree.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub(super) fn find(
        forest: &mut Forest<'_>,
        chunks: &Chunks,
        sb: &Superblock,
        has_block_group_tree: bool,
    ) -> Result<Self> {
        let (mut extents, mut devices, mut block_groups) = (None, None, None);
        forest.walk(chunks, of_roots(sb), &mut |key, data| {
            let place = match (key.objectid, key.kind) {
                (EXTENT_TREE, ROOT_ITEM) => &mut extents,
                (DEV_TREE, ROOT_ITEM) => &mut devices,
                (BLOCK_GROUP_TREE, ROOT_ITEM) => &mut block_groups,
                _ => return Ok(()),
            };
            *place = Some(root_item(data, key.objectid)?);
            Ok(())
        })?;
        let need = |root: Option<Root>, what: &str| {
            root.ok_or_else(|| Error::corrupt(format!("there is no {what} tree")))
        };
        let block_groups = match has_block_group_tree {
            true => Some(need(block_groups, "block group")?),
            false => None,
        };
        Ok(Self { extents: need(extents, "extent")?, devices: need(devices, "device")?, block_groups })
    }
}

/// The root of the root tree.
pub(super) fn of_roots(sb: &Superblock) -> Root {
    let (logical, level) = (sb.root, sb.root_level);
    Root { logical, level, generation: sb.generation, owner: ROOT_TREE }
}

/// The root of a tree by its number: the newest where there are several.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(super) fn of_tree(
    forest: &mut Forest<'_>,
    chunks: &Chunks,
    sb: &Superblock,
    tree: u64,
) -> Result<Option<Root>> {
    let mut found = None;
    let range = Key::new(tree, ROOT_ITEM, 0)..=Key::new(tree, ROOT_ITEM, u64::MAX);
    forest.walk_between(chunks, of_roots(sb), &range, &mut |_, data| {
        found = Some(root_item(data, tree)?);
        Ok(())
    })?;
    Ok(found)
}

/// The root of the chunk tree.
pub(super) fn of_chunks(sb: &Superblock) -> Root {
    let (logical, level) = (sb.chunk_root, sb.chunk_root_level);
    Root { logical, level, generation: sb.chunk_root_generation, owner: CHUNK_TREE }
}

/// The root of the tree that lists the log trees; none where nothing was logged.
pub(super) fn of_logs(sb: &Superblock) -> Option<Root> {
    let (logical, level) = (sb.log_root, sb.log_root_level);
    let root = Root { logical, level, generation: sb.generation.saturating_add(1), owner: LOG_TREES };
    (logical != 0).then_some(root)
}

/// The roots of the log trees in the tree that lists them; none for other items.
///
/// # Errors
/// `Corrupt`.
pub(super) fn of_log(key: Key, data: &[u8]) -> Result<Option<Root>> {
    if (key.objectid, key.kind) != (LOG_TREES, ROOT_ITEM) {
        return Ok(None);
    }
    root_item(data, LOG_TREES).map(Some)
}

fn root_item(data: &[u8], owner: u64) -> Result<Root> {
    let b = Bytes(data);
    let root = || {
        let (logical, level) = (b.le64(BYTENR_OFFSET)?, b.byte(LEVEL_OFFSET)?);
        Some(Root { logical, level, generation: b.le64(GENERATION_OFFSET)?, owner })
    };
    root().ok_or_else(|| Error::corrupt("the root of a tree is cut short"))
}
