//! Reading a block map: in order with large uniform parts in one step, or one block anywhere.

use super::{FANOUT, block_count, children_of, last_block_len};
use crate::repository::FrameReader;
use imager_image::frame::FrameKind;
use imager_image::manifest::Map;
use imager_image::node::{Child, Content, Entry, Location, Node, blocks_under, root_level};
use imager_image::{MaskUnit, NodeId};
use imager_units::{ByteLen, Context, Error, Result};
use std::sync::Arc;

/// A part of a map in order.
#[derive(Clone, Debug)]
pub enum Piece {
    /// So many blocks that are all unused, or all zero with full masks.
    Run(Child, u64),
    /// The blocks of one leaf.
    Leaf(Arc<Vec<Entry>>),
}

/// Reads one block map; keeps the nodes on the way to where it last was.
pub struct MapReader<'r> {
    frames: FrameReader<'r>,
    root: Child,
    blocks: u64,
    size: ByteLen,
    unit: MaskUnit,
    /// One node a level, the leaf at 0.
    path: Vec<Option<(u64, Visited)>>,
}

#[derive(Clone)]
enum Visited {
    Inner(Arc<Vec<Child>>),
    Leaf(Arc<Vec<Entry>>),
}

impl<'r> MapReader<'r> {
    /// Opens a map; reads nothing yet.
    ///
    /// # Errors
    /// `Corrupt` when the manifest describes no possible map.
    pub fn new(frames: FrameReader<'r>, map: &Map) -> Result<Self> {
        let size = ByteLen::new(map.size_bytes);
        let blocks = block_count(size);
        let path = vec![None; usize::from(root_level(blocks)) + 1];
        Ok(Self { frames, root: map.root.child(), blocks, size, unit: map.mask_unit()?, path })
    }

    /// How many blocks the volume has.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The size of the volume.
    pub fn size(&self) -> ByteLen {
        self.size
    }

    /// The grain of its masks.
    pub fn unit(&self) -> MaskUnit {
        self.unit
    }

    /// What is known of block `index`.
    ///
    /// # Errors
    /// `Corrupt`, `NotFound`, `Io` when a node cannot be read.
    pub fn entry(&mut self, index: u64) -> Result<Entry> {
        match self.at(index)? {
            (Piece::Run(Child::Zero, _), _) => Ok(Entry::zero(self.full_mask(index))),
            (Piece::Run(..), _) => Ok(Entry::UNUSED),
            (Piece::Leaf(entries), within) => {
                entries.get(within).copied().ok_or_else(|| Error::corrupt("a leaf that is too short"))
            }
        }
    }

    /// The mask of all of block `index`.
    pub fn full_mask(&self, index: u64) -> imager_image::Mask {
        let len = super::block_extent(index, self.size).len();
        self.unit.full(len.to_usize().unwrap_or(0))
    }

    /// The piece that holds block `index`, and where in it the block lies. A run is as long as it goes from the
    /// start of its subtree.
    ///
    /// # Errors
    /// As `entry`.
    pub fn at(&mut self, index: u64) -> Result<(Piece, usize)> {
        let top = self.path.len().saturating_sub(1);
        let mut child = self.root;
        for level in (0..=top).rev() {
            let level_no = u8::try_from(level).unwrap_or(u8::MAX);
            let under = blocks_under(level_no);
            let Child::Node(id, location) = child else {
                let first = index - index % under;
                let count = under.min(self.blocks.saturating_sub(first));
                let within = usize::try_from(index - first).unwrap_or(usize::MAX);
                return Ok((Piece::Run(child, count), within));
            };
            let node_index = index / under;
            match self.visit(level_no, node_index, id, &location)? {
                Visited::Leaf(entries) => {
                    let within = usize::try_from(index % FANOUT).unwrap_or(usize::MAX);
                    return Ok((Piece::Leaf(entries), within));
                }
                Visited::Inner(children) => {
                    let slot = (index / (under / FANOUT)) % FANOUT;
                    let slot = usize::try_from(slot).unwrap_or(usize::MAX);
                    child = *children.get(slot).ok_or_else(|| Error::corrupt("a map node too short"))?;
                }
            }
        }
        Err(Error::corrupt("a map without leaves"))
    }

    /// What the map says of node `index` of `level` as a whole, if it has nodes down to there.
    ///
    /// # Errors
    /// As `entry`.
    pub fn child(&mut self, level: u8, index: u64) -> Result<Option<Child>> {
        let top = u8::try_from(self.path.len().saturating_sub(1)).unwrap_or(u8::MAX);
        if level > top {
            return Ok(None);
        }
        let mut child = self.root;
        for above in (level + 1..=top).rev() {
            let Child::Node(id, location) = child else { return Ok(Some(child)) };
            let steps = u32::from(above - level);
            let node_index = index / FANOUT.saturating_pow(steps);
            let slot = (index / FANOUT.saturating_pow(steps - 1)) % FANOUT;
            let Visited::Inner(children) = self.visit(above, node_index, id, &location)? else {
                return Ok(None);
            };
            let slot = usize::try_from(slot).unwrap_or(usize::MAX);
            match children.get(slot) {
                Some(next) => child = *next,
                None => return Ok(None),
            }
        }
        Ok(Some(child))
    }

    fn visit(&mut self, level: u8, index: u64, id: NodeId, location: &Location) -> Result<Visited> {
        let slot = usize::from(level);
        if let Some(Some((held, node))) = self.path.get(slot)
            && *held == index
        {
            return Ok(node.clone());
        }
        let node = self.load(level, index, id, location)?;
        let node = match node {
            Node::Leaf(entries) => Visited::Leaf(Arc::new(entries)),
            Node::Inner(_, children) => Visited::Inner(Arc::new(children)),
        };
        if let Some(place) = self.path.get_mut(slot) {
            *place = Some((index, node.clone()));
        }
        Ok(node)
    }

    fn load(&mut self, level: u8, index: u64, id: NodeId, location: &Location) -> Result<Node> {
        let say = || format!("reading the block map at level {level}, node {index}");
        let raw = self.frames.open(FrameKind::Node, location).context(say)?;
        if self.frames.repository().keys().node_id(&raw) != id {
            return Err(Error::corrupt("a map node that is not the one referred to").within(say()));
        }
        let count = children_of(level, index, self.blocks);
        let is_last = level == 0 && (index + 1).saturating_mul(FANOUT) >= self.blocks;
        let last = if is_last { last_block_len(self.size) } else { imager_image::BLOCK_BYTES };
        Node::decode(&raw, level, count, self.unit, last).context(say)
    }

    /// The pieces in order, from the first block to the last; each with its first block.
    pub fn pieces(&mut self) -> impl Iterator<Item = Result<(u64, Piece)>> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            if next >= self.blocks {
                return None;
            }
            let first = next;
            let piece = match self.at(first) {
                Ok((piece, _)) => piece,
                Err(error) => {
                    next = u64::MAX;
                    return Some(Err(error));
                }
            };
            next += match &piece {
                Piece::Run(_, count) => *count,
                Piece::Leaf(entries) => entries.len() as u64,
            };
            Some(Ok((first, piece)))
        })
    }

    /// Every block that is not unused, in order, without the zero ones that lie in uniform parts.
    pub fn blocks_with_content(&mut self) -> impl Iterator<Item = Result<(u64, Entry)>> + '_ {
        self.pieces().flat_map(|piece| {
            let (first, entries) = match piece {
                Err(error) => return vec![Err(error)],
                Ok((_, Piece::Run(..))) => return Vec::new(),
                Ok((first, Piece::Leaf(entries))) => (first, entries),
            };
            let numbered = (first..).zip(entries.iter().copied());
            numbered.filter(|(_, e)| e.content != Content::Unused).map(Ok).collect()
        })
    }
}
