//! Building a block map while the packs that it refers to are still being written.
//!
//! A pack's name is known only when it is closed, so a node waits until every pack it refers to has its name: leaves
//! for the packs of their blocks, inner nodes for the packs of their children. What waits is bounded by what one open
//! pack can hold. A node that is equal to the parent capture's node at its place becomes a reference to that one.

use super::{FANOUT, MapReader, block_count, children_of, last_block_len};
use imager_image::manifest::{Map, Root};
use imager_image::node::{Child, Content, Entry, Location, Node, blocks_under, root_level};
use imager_image::pack::{FrameSpan, PackRef};
use imager_image::{BLOCK_BYTES, BlockId, Mask, MaskUnit, NodeId};
use imager_units::{ByteLen, Error, ErrorKind, Result};
use std::collections::{HashMap, VecDeque};

/// Where something lies in a pack that may still be open; packs of this capture are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pack's number in this capture.
    pub pack: usize,
    /// The frame.
    pub frame: FrameSpan,
    /// Where in the opened frame.
    pub at: u32,
}

/// What a capture found out about one block.
#[derive(Clone, Copy, Debug)]
pub enum Draft {
    /// All is known.
    Known(Entry),
    /// New content in a pack of this capture.
    New {
        /// Its id.
        id: BlockId,
        /// Where it is.
        place: Place,
        /// Which parts it speaks of.
        mask: Mask,
        /// Which parts could not be read.
        unreadable: Mask,
    },
}

/// Whoever stores the nodes and knows the names of closed packs.
pub trait NodeSink {
    /// The pack with this number, once it is closed.
    fn pack(&self, number: usize) -> Option<PackRef>;

    /// Where a node of an earlier capture is now, if it is still there to be referred to.
    fn standing(&self, id: NodeId, location: &Location) -> Option<Location>;

    /// How many packs were closed so far.
    fn closed(&self) -> usize;

    /// Stores an encoded node.
    ///
    /// # Errors
    /// Whatever storing it can fail with.
    fn store(&mut self, id: NodeId, encoded: &[u8]) -> Result<Place>;

    /// The id of an encoded node.
    fn id(&self, encoded: &[u8]) -> NodeId;
}

#[derive(Clone, Copy)]
enum ChildDraft {
    Known(Child),
    New(NodeId, Place),
}

enum Growing {
    Leaf(Vec<Option<Draft>>),
    Inner(Vec<Option<ChildDraft>>),
}

/// Builds the map of one volume.
pub struct MapBuilder {
    size: ByteLen,
    blocks: u64,
    unit: MaskUnit,
    top: u8,
    growing: HashMap<(u8, u64), (Growing, usize)>,
    /// Complete nodes that were not looked at yet.
    ready: VecDeque<(u8, u64, Growing)>,
    /// Complete nodes that wait for a pack to be closed.
    waiting: Vec<(u8, u64, Growing)>,
    /// How many packs were closed when the waiting nodes were last looked at.
    closed: usize,
    root: Option<ChildDraft>,
}

impl MapBuilder {
    /// The map of a volume of `size` bytes, at least one.
    pub fn new(size: ByteLen, unit: MaskUnit) -> Self {
        let blocks = block_count(size);
        let top = root_level(blocks);
        let root = (blocks == 0).then_some(ChildDraft::Known(Child::Unused));
        Self {
            size,
            blocks,
            unit,
            top,
            growing: HashMap::new(),
            ready: VecDeque::new(),
            waiting: Vec::new(),
            closed: 0,
            root,
        }
    }

    /// Says what block `index` is; each block once, in any order.
    pub fn put(&mut self, index: u64, draft: Draft) {
        let (leaf, within) = (index / FANOUT, index % FANOUT);
        let count = children_of(0, leaf, self.blocks);
        let (growing, left) =
            self.growing.entry((0, leaf)).or_insert_with(|| (Growing::Leaf(vec![None; count]), count));
        if let Growing::Leaf(entries) = growing
            && let Some(place) = usize::try_from(within).ok().and_then(|at| entries.get_mut(at))
        {
            *left -= usize::from(place.is_none());
            *place = Some(draft);
        }
        self.complete(0, leaf);
    }

    /// Says that `count` blocks from `first` are all unused, or all zero with full masks.
    pub fn put_run(&mut self, first: u64, count: u64, uniform: Child) {
        let (mut at, end) = (first, first.saturating_add(count).min(self.blocks));
        while at < end {
            // The largest subtree that starts here and lies within the run (or reaches the volume's end with it).
            let fits = |level: &u8| {
                let under = blocks_under(*level);
                at % under == 0 && (at + under <= end || end == self.blocks)
            };
            let level = (0..=self.top).take_while(fits).last();
            match level {
                Some(level) => {
                    self.put_child(level, at / blocks_under(level), ChildDraft::Known(uniform));
                    at = at.saturating_add(blocks_under(level));
                }
                None => {
                    let entry = match uniform {
                        Child::Zero => Entry::zero(self.full_mask(at)),
                        _ => Entry::UNUSED,
                    };
                    self.put(at, Draft::Known(entry));
                    at += 1;
                }
            }
        }
    }

    /// Says that node `index` of `level` is a node that another map has in this place.
    pub fn keep(&mut self, level: u8, index: u64, child: Child) {
        self.put_child(level, index, ChildDraft::Known(child));
    }

    fn full_mask(&self, index: u64) -> Mask {
        let len = super::block_extent(index, self.size).len();
        self.unit.full(len.to_usize().unwrap_or(0))
    }

    /// Places what is known of node `index` of `level` into the node above.
    fn put_child(&mut self, level: u8, index: u64, child: ChildDraft) {
        if level == self.top {
            self.root = Some(child);
            return;
        }
        let (above, parent) = (level + 1, index / FANOUT);
        let count = children_of(above, parent, self.blocks);
        let (growing, left) =
            self.growing.entry((above, parent)).or_insert_with(|| (Growing::Inner(vec![None; count]), count));
        if let Growing::Inner(children) = growing
            && let Some(place) = usize::try_from(index % FANOUT).ok().and_then(|at| children.get_mut(at))
        {
            *left -= usize::from(place.is_none());
            *place = Some(child);
        }
        self.complete(above, parent);
    }

    /// Moves a node to those that wait for packs once all its children are known.
    fn complete(&mut self, level: u8, index: u64) {
        if self.growing.get(&(level, index)).is_none_or(|(_, left)| *left > 0) {
            return;
        }
        let Some((node, _)) = self.growing.remove(&(level, index)) else { return };
        match self.uniform(index, &node) {
            Some(child) => self.put_child(level, index, ChildDraft::Known(child)),
            None => self.ready.push_back((level, index, node)),
        }
    }

    /// `Unused` or `Zero` when every child is.
    fn uniform(&self, index: u64, node: &Growing) -> Option<Child> {
        let all = |is: &dyn Fn(usize) -> bool, count| (0..count).all(is).then_some(());
        match node {
            Growing::Leaf(entries) => {
                let is = |wanted: &dyn Fn(u64) -> Entry| {
                    all(
                        &|at| {
                            matches!(entries.get(at), Some(Some(Draft::Known(e)))
                            if *e == wanted(index.saturating_mul(FANOUT) + at as u64))
                        },
                        entries.len(),
                    )
                };
                is(&|_| Entry::UNUSED)
                    .map(|()| Child::Unused)
                    .or_else(|| is(&|block| Entry::zero(self.full_mask(block))).map(|()| Child::Zero))
            }
            Growing::Inner(children) => [Child::Unused, Child::Zero].into_iter().find(|wanted| {
                children.iter().all(|c| matches!(c, Some(ChildDraft::Known(known)) if known == wanted))
            }),
        }
    }

    /// Stores every node whose packs have their names by now; one that `parent` has at its place is not stored again.
    ///
    /// # Errors
    /// Whatever the sink or reading the parent's map fails with.
    pub fn advance(&mut self, sink: &mut dyn NodeSink, parent: &mut Option<MapReader<'_>>) -> Result<()> {
        if self.closed != sink.closed() {
            self.closed = sink.closed();
            let waiting = std::mem::take(&mut self.waiting);
            self.ready = waiting.into_iter().chain(std::mem::take(&mut self.ready)).collect();
        }
        // Storing a node can complete the one above it, which joins the list.
        while let Some((level, index, node)) = self.ready.pop_front() {
            match resolve(&node, level, &*sink) {
                None => self.waiting.push((level, index, node)),
                Some(node) => {
                    let child = self.store(level, index, &node, sink, parent)?;
                    self.put_child(level, index, child);
                }
            }
        }
        Ok(())
    }

    fn store(
        &self,
        level: u8,
        index: u64,
        node: &Node,
        sink: &mut dyn NodeSink,
        parent: &mut Option<MapReader<'_>>,
    ) -> Result<ChildDraft> {
        let is_last = (index + 1).saturating_mul(FANOUT) >= self.blocks;
        let last = if level == 0 && is_last { last_block_len(self.size) } else { BLOCK_BYTES };
        let encoded = node.encode(self.unit, last)?;
        let id = sink.id(&encoded);
        let known = match parent {
            Some(parent) if parent.size() == self.size && parent.unit() == self.unit => {
                // A parent that cannot be read here costs space, nothing else.
                parent.child(level, index).unwrap_or_default()
            }
            _ => None,
        };
        if let Some(Child::Node(known, location)) = known
            && known == id
            && let Some(standing) = sink.standing(id, &location)
        {
            return Ok(ChildDraft::Known(Child::Node(id, standing)));
        }
        Ok(ChildDraft::New(id, sink.store(id, &encoded)?))
    }

    /// How many nodes wait for the names of packs: up to 20 KiB of memory each.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The finished map, once everything was said and every pack has its name.
    ///
    /// # Errors
    /// `Invalid` when a block was never spoken of or a pack is still open.
    pub fn finish(&self, sink: &dyn NodeSink) -> Result<Map> {
        let unfinished = || Error::new(ErrorKind::Invalid, "a block map that is not complete");
        let root = self.root.ok_or_else(unfinished)?;
        let root = resolve_child(&root, sink).ok_or_else(unfinished)?;
        Ok(Map {
            size_bytes: self.size.get(),
            mask_unit_bytes: self.unit.bytes() as u64,
            root: Root::from(root),
        })
    }
}

fn resolve(node: &Growing, level: u8, sink: &dyn NodeSink) -> Option<Node> {
    match node {
        Growing::Leaf(entries) => {
            entries.iter().map(|e| resolve_entry(e.as_ref()?, sink)).collect::<Option<_>>().map(Node::Leaf)
        }
        Growing::Inner(children) => children
            .iter()
            .map(|c| resolve_child(c.as_ref()?, sink))
            .collect::<Option<_>>()
            .map(|children| Node::Inner(level, children)),
    }
}

fn resolve_entry(draft: &Draft, sink: &dyn NodeSink) -> Option<Entry> {
    match *draft {
        Draft::Known(entry) => Some(entry),
        Draft::New { id, place, mask, unreadable } => {
            let location = Location { pack: sink.pack(place.pack)?, frame: place.frame, at: place.at };
            Some(Entry { content: Content::Data(id, location), mask, unreadable })
        }
    }
}

fn resolve_child(draft: &ChildDraft, sink: &dyn NodeSink) -> Option<Child> {
    match *draft {
        ChildDraft::Known(child) => Some(child),
        ChildDraft::New(id, place) => {
            let location = Location { pack: sink.pack(place.pack)?, frame: place.frame, at: place.at };
            Some(Child::Node(id, location))
        }
    }
}
