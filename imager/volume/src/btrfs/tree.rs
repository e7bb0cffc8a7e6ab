//! Walking a tree from its root, every node checked.
//!
//! A node must hold its checksum, say of itself what its parent said (place, level, generation, first key), belong to
//! this filesystem and tree, and its keys must go on where the last left off. So no node is met twice in a tree, and a
//! cycle ends at once; and never are more nodes read than the devices have room for.

use super::chunk::Chunks;
use super::devices::{Devices, may_try_another};
use super::node::{Child, Key, Node};
use super::superblock::{MAX_LEVEL, Root, Superblock};
use crate::gather::Gather;
use imager_units::{ByteLen, ByteOffset, Error, Extent, ExtentSet, Result};
use std::ops::RangeInclusive;

/// `BTRFS_FS_TREE_OBJECTID`: the subvolume at the top.
pub(super) const FS_TREE: u64 = 5;
/// `BTRFS_FIRST_FREE_OBJECTID`, `BTRFS_LAST_FREE_OBJECTID`; larger ones would be levels of quota groups.
const FIRST_FREE: u64 = 256;
const LAST_FREE: u64 = (1 << 48) - 1;

/// What is done with every item.
pub(super) type Each<'e> = dyn FnMut(Key, &[u8]) -> Result<()> + 'e;

/// The trees of a filesystem.
pub(super) struct Forest<'a> {
    devices: &'a Devices<'a>,
    sb: &'a Superblock,
    nodes: Gather,
    left: u64,
}

/// A node that is looked for, as its parent describes it.
#[derive(Clone, Copy)]
struct Wanted {
    logical: u64,
    level: u8,
    generation: u64,
    owner: u64,
    /// Its first key; none for a root.
    first: Option<Key>,
}

impl<'a> Forest<'a> {
    /// The trees on `devices`.
    pub(super) fn new(devices: &'a Devices<'a>, sb: &'a Superblock) -> Self {
        let left = devices.total_bytes().checked_div(sb.nodesize.into()).unwrap_or(0);
        Self { devices, sb, nodes: Gather::default(), left }
    }

    /// The logical places of all nodes met since the last call.
    pub(super) fn take_nodes(&mut self) -> ExtentSet {
        std::mem::take(&mut self.nodes).finish()
    }

    /// Calls `each` with every item of a tree, in order.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, and those of `each`.
    pub(super) fn walk(&mut self, chunks: &Chunks, root: Root, each: &mut Each<'_>) -> Result<()> {
        self.walk_between(chunks, root, &(Key::LEAST..=Key::MOST), each)
    }

    /// As [`walk`](Self::walk), of the items whose keys are in `range`; nodes that cannot have any are not read.
    ///
    /// # Errors
    /// As there.
    pub(super) fn walk_between(
        &mut self,
        chunks: &Chunks,
        root: Root,
        range: &RangeInclusive<Key>,
        each: &mut Each<'_>,
    ) -> Result<()> {
        let Root { logical, level, generation, owner } = root;
        if level >= MAX_LEVEL {
            return Err(Error::corrupt(format!("the tree at {logical:#x} is higher than trees can be")));
        }
        let wanted = Wanted { logical, level, generation, owner, first: None };
        self.visit(chunks, wanted, range, &mut None, each)
    }

    fn visit(
        &mut self,
        chunks: &Chunks,
        wanted: Wanted,
        range: &RangeInclusive<Key>,
        last: &mut Option<Key>,
        each: &mut Each<'_>,
    ) -> Result<()> {
        let bytes = self.read(chunks, wanted)?;
        let node = Node::parse(&bytes).ok_or_else(|| Error::corrupt("a tree node is cut short"))?;
        let disordered = || Error::corrupt(format!("keys are out of order at {:#x}", wanted.logical));
        if wanted.level == 0 {
            let mut first = wanted.first;
            for item in node.items()? {
                let (key, data) = item?;
                if first.take().is_some_and(|first| first != key) || last.is_some_and(|last| last >= key) {
                    return Err(disordered());
                }
                *last = Some(key);
                if range.contains(&key) {
                    each(key, data)?;
                }
            }
            return if first.is_none() { Ok(()) } else { Err(disordered()) };
        }
        let children = node.children()?;
        drop(bytes);
        let in_order = children.is_sorted_by(|a, b| a.key < b.key);
        let starts = children.first().map(|child| child.key);
        if !in_order || starts.is_none() || wanted.first.is_some_and(|first| starts != Some(first)) {
            return Err(disordered());
        }
        let behind = children.iter().skip(1).map(|next| Some(next.key)).chain([None]);
        let may_have = |child: &Child, behind: Option<Key>| {
            child.key <= *range.end() && behind.is_none_or(|behind| behind > *range.start())
        };
        let wanted_of = |child: &Child| Wanted {
            logical: child.logical,
            level: wanted.level.saturating_sub(1),
            generation: child.generation,
            owner: wanted.owner,
            first: Some(child.key),
        };
        for (child, _) in children.iter().zip(behind).filter(|(child, behind)| may_have(child, *behind)) {
            self.visit(chunks, wanted_of(child), range, last, each)?;
        }
        Ok(())
    }

    /// Reads a node from the first copy that is in order, as the kernel does.
    fn read(&mut self, chunks: &Chunks, wanted: Wanted) -> Result<Vec<u8>> {
        let at = wanted.logical;
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| Error::corrupt("its trees are larger than its devices"))?;
        let mut bytes = vec![0; usize::try_from(self.sb.nodesize).unwrap_or(usize::MAX)];
        let len = ByteLen::of(&bytes);
        if at.checked_rem(self.sb.sectorsize.into()) != Some(0) {
            return Err(Error::corrupt(format!("no tree node can be at {at:#x}")));
        }
        let (_, chunk) = chunks.around(at, len.get())?;
        let mut failure = None;
        for copy in 0..chunk.copies() {
            let read = self.devices.read(chunk, at, copy, &mut bytes);
            match read.and_then(|()| self.check(&bytes, wanted)) {
                Ok(()) => {
                    self.nodes.push(Extent::new(ByteOffset::new(at), len).unwrap_or_default());
                    return Ok(bytes);
                }
                Err(error) if may_try_another(&error) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::corrupt(format!("there is no tree node at {at:#x}"))))
    }

    fn check(&self, bytes: &[u8], wanted: Wanted) -> Result<()> {
        let at = wanted.logical;
        if !self.sb.checksum()?.is_right(bytes) {
            return Err(Error::corrupt(format!("the checksum of the tree node at {at:#x} is wrong")));
        }
        let says = |node: Node<'_>| {
            node.bytenr == at
                && node.level == wanted.level
                && node.generation == wanted.generation
                && is_node_of(wanted.owner, node.owner)
                && node.fsid == self.sb.metadata_fsid()
        };
        if Node::parse(bytes).is_some_and(says) {
            return Ok(());
        }
        Err(Error::corrupt(format!("the tree node at {at:#x} is another than its parent says")))
    }
}

/// Whether a tree may have a node that says it is of `owner`: snapshots share the nodes of what they are of
/// (`btrfs_check_eb_owner`).
fn is_node_of(tree: u64, owner: u64) -> bool {
    tree == owner || is_of_files(tree) && is_of_files(owner)
}

/// Whether a tree is one of files (`is_fstree`): the first, and those of subvolumes.
pub(super) fn is_of_files(tree: u64) -> bool {
    tree == FS_TREE || (FIRST_FREE..=LAST_FREE).contains(&tree)
}
