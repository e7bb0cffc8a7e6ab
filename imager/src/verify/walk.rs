//! Going through a block map without stopping at damage: a node that cannot be read is reported with the bytes it
//! would have spoken of, and its neighbours are visited all the same.

use crate::map::{FANOUT, MapReader, Piece, block_extent};
use crate::monitor::{Monitor, check_cancelled};
use crate::repository::Repository;
use imager_image::manifest::Map;
use imager_image::node::{Child, Entry, Location, blocks_under, root_level};
use imager_image::{MaskUnit, NodeId};
use imager_units::{ByteOffset, Error, ErrorKind, Extent, Result};
use std::collections::HashSet;

/// How many subtrees are remembered: about 36 MiB. What is forgotten is visited again.
const MOST_KNOWN: usize = 1_800_000;

/// What is done with the parts of a map.
pub(crate) trait Visitor {
    /// A node is about to be visited.
    fn node(&mut self, id: NodeId, location: &Location);

    /// The blocks of a leaf, which begins at block `first`; says whether all is well with them.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn leaf(&mut self, first: u64, entries: &[Entry]) -> Result<bool>;

    /// A node could not be read, and with it nothing of `extent`.
    fn lost(&mut self, extent: Extent, location: &Location, error: Error);
}

/// Subtrees with which all was well, so that captures which share them cost no second visit.
#[derive(Default)]
pub(crate) struct Known {
    sound: HashSet<u128>,
    /// How many nodes were read wrong once and right the second time.
    pub(crate) flickered: u64,
}

/// One walk through one map.
pub(crate) struct Walk<'a, 'r> {
    repository: &'r Repository,
    described: &'a Map,
    map: MapReader<'r>,
    known: &'a mut Known,
    visitor: &'a mut dyn Visitor,
    monitor: &'a dyn Monitor,
}

impl<'a, 'r> Walk<'a, 'r> {
    pub(crate) fn new(
        repository: &'r Repository,
        described: &'a Map,
        known: &'a mut Known,
        visitor: &'a mut dyn Visitor,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        let map = MapReader::new(repository.frames()?, described)?;
        Ok(Self { repository, described, map, known, visitor, monitor })
    }

    /// Visits every node that is not known to be sound.
    ///
    /// # Errors
    /// `Cancelled`; `Io`, `Denied` from the share; what the visitor fails with. Damage is no error here.
    pub(crate) fn run(mut self) -> Result<()> {
        let top = root_level(self.map.blocks());
        match self.map.child(top, 0)? {
            Some(root) if self.map.blocks() > 0 => self.subtree(top, 0, root).map(drop),
            _ => Ok(()),
        }
    }

    /// Asks the map; what seems damaged is read once more, since a wire that errs is no damage to the repository.
    fn ask<T>(&mut self, question: impl Fn(&mut MapReader<'r>) -> Result<T>) -> Result<T> {
        match question(&mut self.map) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                // The reader of frames would remember the bytes it has.
                self.map = MapReader::new(self.repository.frames()?, self.described)?;
                let answer = question(&mut self.map)?;
                self.known.flickered += 1;
                Ok(answer)
            }
            answer => answer,
        }
    }

    /// Visits node `index` of `level` and what is below it; says whether all is well there.
    fn subtree(&mut self, level: u8, index: u64, child: Child) -> Result<bool> {
        let Child::Node(id, location) = child else { return Ok(true) };
        let key = key(level, index, id, &location, &self.map);
        if self.known.sound.contains(&key) {
            return Ok(true);
        }
        check_cancelled(self.monitor)?;
        self.visitor.node(id, &location);
        let sound =
            if level == 0 { self.leaf(index, &location)? } else { self.inner(level, index, &location)? };
        if sound && self.known.sound.len() < MOST_KNOWN {
            self.known.sound.insert(key);
        }
        Ok(sound)
    }

    fn leaf(&mut self, index: u64, location: &Location) -> Result<bool> {
        let first = index.saturating_mul(FANOUT);
        match self.ask(|map| map.at(first)) {
            Ok((Piece::Leaf(entries), _)) => self.visitor.leaf(first, &entries),
            Ok(_) => Ok(true),
            Err(error) => self.lost(0, index, location, error),
        }
    }

    fn inner(&mut self, level: u8, index: u64, location: &Location) -> Result<bool> {
        let below = level.saturating_sub(1);
        let first = index.saturating_mul(FANOUT);
        let count = self.map.blocks().div_ceil(blocks_under(below)).saturating_sub(first).min(FANOUT);
        let mut sound = true;
        for at in first..first.saturating_add(count) {
            match self.ask(|map| map.child(below, at)) {
                Ok(Some(child)) => sound &= self.subtree(below, at, child)?,
                Ok(None) => {}
                // All children come from the same node: if one is not to be had, none is.
                Err(error) => return self.lost(level, index, location, error),
            }
        }
        Ok(sound)
    }

    fn lost(&mut self, level: u8, index: u64, location: &Location, error: Error) -> Result<bool> {
        if !is_damage(&error) {
            return Err(error);
        }
        let first = index.saturating_mul(blocks_under(level));
        let last = first.saturating_add(blocks_under(level)).min(self.map.blocks()).saturating_sub(1);
        let size = self.map.size();
        let end = block_extent(last, size).end();
        self.visitor.lost(Extent::between(block_extent(first, size).start(), end), location, error);
        Ok(false)
    }
}

/// Whether an error speaks of what is stored (or of what it needs) rather than of the share that stores it.
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported)
}

/// The bytes of block `index` in `mask`.
pub(crate) fn masked(
    index: u64,
    size: imager_units::ByteLen,
    mask: imager_image::Mask,
    unit: MaskUnit,
) -> impl Iterator<Item = Extent> {
    let block = block_extent(index, size);
    mask.runs(unit, block.len().to_usize().unwrap_or(0)).map(move |run| {
        let at = |n: usize| block.start().saturating_add(imager_units::ByteLen::new(n as u64));
        Extent::between(at(run.start), at(run.end).min(ByteOffset::new(size.get())))
    })
}

/// What tells a subtree at its place: equal keys, equal walks.
fn key(level: u8, index: u64, id: NodeId, location: &Location, map: &MapReader<'_>) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0).update(&location.pack.id.0).update(&location.pack.len.to_le_bytes());
    hasher.update(&location.frame.offset.to_le_bytes()).update(&location.frame.len.to_le_bytes());
    // Only at the end of a volume does its size matter.
    let covered = index.saturating_add(1).saturating_mul(blocks_under(level));
    let end = if covered >= map.blocks() { map.size().get() } else { u64::MAX };
    hasher.update(&[level, map.unit().log2()]).update(&end.to_le_bytes());
    let mut short = [0; 16];
    short.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
    u128::from_le_bytes(short)
}
