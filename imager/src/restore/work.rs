//! What a restore has to do for one volume: the blocks with content, in order, cut where frames end.

use crate::map::{MapReader, Piece, block_extent};
use imager_image::BLOCK_BYTES;
use imager_image::node::{Child, Content, Entry};
use imager_units::{ByteLen, Extent, ExtentSet, Result};
use std::collections::VecDeque;

/// How many blocks a unit has at most.
pub(super) const UNIT_BLOCKS: usize = 32;
/// How many bytes the neighbouring blocks of a unit have at most.
pub(super) const UNIT_BYTES: usize = UNIT_BLOCKS * BLOCK_BYTES;
/// A unit is cut at the next end of a frame from here on.
const ENOUGH_BLOCKS: usize = 16;
/// Large zero parts come in pieces of this many blocks.
const ZERO_BLOCKS: u64 = 16_384;

/// A block with what the map says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Where it lies in the volume.
    pub(super) extent: Extent,
    /// What is known of it.
    pub(super) entry: Entry,
}

/// A piece of work.
#[derive(Debug)]
pub(super) enum Unit {
    /// A large part that is all zero.
    Zero(Extent),
    /// Blocks, at least one.
    Blocks(Vec<Block>),
}

/// The units of a volume.
pub(super) struct Units<'a> {
    map: MapReader<'a>,
    head: &'a ExtentSet,
    /// Only the head, or all but the head.
    in_head: bool,
    only: Option<&'a ExtentSet>,
    next: u64,
    ready: VecDeque<Unit>,
    blocks: Vec<Block>,
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.extent.len().to_usize().unwrap_or(0)
    }
}

impl<'a> Units<'a> {
    /// The units of `map` inside (or outside) `head`, and inside `only` if that is given.
    pub(super) fn new(
        map: MapReader<'a>,
        head: &'a ExtentSet,
        in_head: bool,
        only: Option<&'a ExtentSet>,
    ) -> Self {
        Self { map, head, in_head, only, next: 0, ready: VecDeque::new(), blocks: Vec::new() }
    }

    fn is_asked(&self, extent: Extent) -> bool {
        self.head.overlaps(extent) == self.in_head && self.only.is_none_or(|only| only.overlaps(extent))
    }

    /// The next block from which on something may be asked for.
    fn seek(&self, from: u64) -> u64 {
        let rest = |first: u64| {
            let here = block_extent(first, self.map.size());
            Extent::between(here.start(), Extent::first(self.map.size()).end())
        };
        let next_in = |set: &ExtentSet| {
            set.overlapping(rest(from))
                .next()
                .map_or(self.map.blocks(), |e| e.start().get() / BLOCK_BYTES as u64)
        };
        let by_head = if self.in_head { next_in(self.head) } else { from };
        by_head.max(self.only.map_or(from, next_in)).max(from)
    }

    /// Takes the next piece of the map apart.
    fn step(&mut self) -> Result<()> {
        self.next = self.seek(self.next);
        if self.next >= self.map.blocks() {
            self.cut();
            return Ok(());
        }
        let (piece, within) = self.map.at(self.next)?;
        match piece {
            Piece::Run(child, count) => {
                let end = self.next + (count - within as u64);
                self.run(child, end);
            }
            Piece::Leaf(entries) => {
                for entry in entries.iter().skip(within) {
                    self.push(*entry);
                    self.next += 1;
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, child: Child, end: u64) {
        if child == Child::Unused {
            self.next = end;
            return;
        }
        let size = self.map.size();
        while self.next < end {
            let to = end.min(self.next + ZERO_BLOCKS);
            let part =
                Extent::between(block_extent(self.next, size).start(), block_extent(to - 1, size).end());
            let plain = !self.in_head
                && !self.head.overlaps(part)
                && self.only.is_none_or(|only| only.contains(part));
            if plain {
                self.cut();
                self.ready.push_back(Unit::Zero(part));
                self.next = to;
            } else {
                // Near the head or only partly asked for: block by block.
                for _ in self.next..to {
                    let entry = Entry::zero(self.map.full_mask(self.next));
                    self.push(entry);
                    self.next += 1;
                }
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        let extent = block_extent(self.next, self.map.size());
        if entry.content == Content::Unused || !self.is_asked(extent) {
            return;
        }
        let frame = |entry: &Entry| match entry.content {
            Content::Data(_, location) => Some((location.pack.id, location.frame.offset)),
            _ => None,
        };
        let same_frame = self
            .blocks
            .last()
            .is_some_and(|last| frame(&last.entry).is_some() && frame(&last.entry) == frame(&entry));
        if self.blocks.len() >= UNIT_BLOCKS || (self.blocks.len() >= ENOUGH_BLOCKS && !same_frame) {
            self.cut();
        }
        self.blocks.push(Block { extent, entry });
    }

    fn cut(&mut self) {
        if !self.blocks.is_empty() {
            self.ready.push_back(Unit::Blocks(std::mem::take(&mut self.blocks)));
        }
    }
}

impl Iterator for Units<'_> {
    type Item = Result<Unit>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            if self.next >= self.map.blocks() && self.blocks.is_empty() {
                return None;
            }
            if let Err(error) = self.step() {
                self.next = u64::MAX;
                self.blocks.clear();
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// How many bytes of a map have content, without reading any.
pub(super) fn content_bytes(map: &mut MapReader<'_>) -> Result<ByteLen> {
    let size = map.size();
    let mut total = ByteLen::ZERO;
    for piece in map.pieces() {
        let (first, piece) = piece?;
        total = total.saturating_add(match piece {
            Piece::Run(Child::Unused, _) => ByteLen::ZERO,
            Piece::Run(_, count) => {
                let last = block_extent(first + count - 1, size).end();
                last.saturating_since(block_extent(first, size).start())
            }
            Piece::Leaf(entries) => (first..)
                .zip(entries.iter())
                .filter(|(_, entry)| entry.content != Content::Unused)
                .map(|(index, _)| block_extent(index, size).len())
                .sum(),
        });
    }
    Ok(total)
}
