//! What a verification looks for in block maps: first which packs they need, then whether each block is there.

use super::packs::{Wanted, fingerprint};
use super::report::{Fault, chain};
use super::walk::{Visitor, is_damage, masked};
use crate::repository::{FrameReader, Repository};
use imager_image::frame::FrameKind;
use imager_image::manifest::Map;
use imager_image::node::{Content, Entry, Location};
use imager_image::pack::{FrameSpan, PackKind, PackRef};
use imager_image::{BlockId, MaskUnit, NodeId, PackId};
use imager_units::{ByteLen, Error, Extent, ExtentSet, Result};
use std::collections::BTreeMap;

/// The packs of one round: those that come next in the order of their ids.
pub(super) struct Needed {
    most: usize,
    after: Option<PackId>,
    packs: BTreeMap<PackId, (u32, PackKind)>,
    /// There are more behind the last.
    pub(super) more: bool,
}

impl Needed {
    /// None so far, and only such as come after `after`, at most `most`.
    pub(super) fn new(after: Option<PackId>, most: usize) -> Self {
        Self { most, after, packs: BTreeMap::new(), more: false }
    }

    fn add(&mut self, pack: PackRef, kind: PackKind) {
        if self.after.is_some_and(|after| pack.id <= after) {
            return;
        }
        self.packs.entry(pack.id).or_insert((pack.len, kind));
        if self.packs.len() > self.most {
            self.packs.pop_last();
            self.more = true;
        }
    }

    /// The packs in the order of their ids.
    pub(super) fn into_packs(self) -> impl Iterator<Item = Wanted> {
        let packs = self.packs.into_iter();
        packs.map(|(id, (len, kind))| Wanted { pack: PackRef { id, len }, kind })
    }

    /// How many there are, and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.packs.len() as u64, self.packs.values().map(|(len, _)| u64::from(*len)).sum())
    }

    pub(super) fn last(&self) -> Option<PackId> {
        self.packs.last_key_value().map(|(id, _)| *id)
    }
}

/// What a volume lost, by the pack that took it.
pub(super) type Losses = BTreeMap<PackId, (ExtentSet, (Fault, String))>;

/// Collects packs, and what unreadable nodes take with them.
pub(super) struct Collector<'a> {
    pub(super) needed: &'a mut Needed,
    pub(super) losses: Losses,
}

impl Visitor for Collector<'_> {
    fn node(&mut self, _id: NodeId, location: &Location) {
        self.needed.add(location.pack, PackKind::Map);
    }

    fn leaf(&mut self, _first: u64, entries: &[Entry]) -> Result<bool> {
        for entry in entries {
            if let Content::Data(_, location) = entry.content {
                self.needed.add(location.pack, PackKind::Data);
            }
        }
        Ok(true)
    }

    fn lost(&mut self, extent: Extent, location: &Location, error: Error) {
        let why = || (ExtentSet::new(), (Fault::of(&error), chain(&error)));
        self.losses.entry(location.pack.id).or_insert_with(why).0.insert(extent);
    }
}

/// What is there of a pack that is not as it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lacking {
    /// Its length, if it is there at all.
    pub(super) found: Option<u64>,
    /// Frames of it went elsewhere.
    pub(super) moved: bool,
}

/// What is known of packs.
pub(super) enum Proof<'p> {
    /// Packs of these lengths, `None` for missing ones, are not as they should be; all others are.
    Presence(&'p BTreeMap<PackId, Lacking>),
    /// Of packs with ids of this range, these blocks (sorted fingerprints) were found; these packs are missing.
    Content(std::ops::RangeInclusive<PackId>, &'p [u64], &'p std::collections::BTreeSet<PackId>),
}

/// The frame opened last; nothing in it if it could not be.
struct Opened {
    place: (PackId, FrameSpan),
    raw: Option<Vec<u8>>,
}

/// Looks whether every block is where its map says.
pub(super) struct Inspector<'a, 'r> {
    proof: &'a Proof<'a>,
    frames: FrameReader<'r>,
    opened: Option<Opened>,
    size: ByteLen,
    unit: MaskUnit,
    pub(super) losses: Losses,
}

impl<'a, 'r> Inspector<'a, 'r> {
    pub(super) fn new(repository: &'r Repository, map: &Map, proof: &'a Proof<'a>) -> Result<Self> {
        let (frames, size, unit) = (repository.frames()?, ByteLen::new(map.size_bytes), map.mask_unit()?);
        Ok(Self { proof, frames, opened: None, size, unit, losses: Losses::new() })
    }

    fn is_there(&mut self, id: BlockId, location: &Location, len: usize) -> Result<bool> {
        match self.proof {
            Proof::Presence(wrong) => Ok(match wrong.get(&location.pack.id) {
                None => true,
                // Whole frames of a pack that was cut short prove themselves when they are read.
                Some(Lacking { found: Some(len), .. }) if location.frame.extent().end().get() <= *len => true,
                Some(Lacking { moved, .. }) => *moved && self.moved(location)?,
            }),
            Proof::Content(range, sound, missing) => {
                if !range.contains(&location.pack.id)
                    || sound.binary_search(&fingerprint(id, location)).is_ok()
                {
                    return Ok(true);
                }
                if missing.contains(&location.pack.id) {
                    return Ok(false);
                }
                self.probe(id, location, len)
            }
        }
    }

    /// Whether the frame is where it moved.
    fn moved(&mut self, location: &Location) -> Result<bool> {
        let place = (location.pack.id, location.frame);
        if self.opened.as_ref().is_none_or(|opened| opened.place != place) {
            let raw = self.frames.repository().locate(location)?.map(|_| Vec::new());
            self.opened = Some(Opened { place, raw });
        }
        Ok(self.opened.as_ref().is_some_and(|opened| opened.raw.is_some()))
    }

    /// Looks at the very place.
    fn probe(&mut self, id: BlockId, location: &Location, len: usize) -> Result<bool> {
        let place = (location.pack.id, location.frame);
        if self.opened.as_ref().is_none_or(|opened| opened.place != place) {
            let raw = match self.frames.open(FrameKind::Blocks, location) {
                Ok(raw) => Some(raw),
                Err(error) if is_damage(&error) => None,
                Err(error) => return Err(error),
            };
            self.opened = Some(Opened { place, raw });
        }
        let raw = self.opened.as_ref().and_then(|opened| opened.raw.as_deref());
        let block = usize::try_from(location.at).ok().and_then(|at| raw?.get(at..)?.get(..len));
        Ok(block.is_some_and(|block| self.frames.repository().keys().block_id(block) == id))
    }
}

impl Visitor for Inspector<'_, '_> {
    fn node(&mut self, _id: NodeId, _location: &Location) {}

    fn leaf(&mut self, first: u64, entries: &[Entry]) -> Result<bool> {
        let mut sound = true;
        for (index, entry) in (first..).zip(entries) {
            let Content::Data(id, location) = entry.content else { continue };
            let len = crate::map::block_extent(index, self.size).len().to_usize().unwrap_or(0);
            if self.is_there(id, &location, len)? {
                continue;
            }
            sound = false;
            let why = || {
                let message = "it does not hold a block that a map refers to".to_owned();
                (ExtentSet::new(), (Fault::Altered, message))
            };
            let lost = &mut self.losses.entry(location.pack.id).or_insert_with(why).0;
            lost.extend(masked(index, self.size, entry.mask, self.unit));
        }
        Ok(sound)
    }

    /// The collector has spoken of it.
    fn lost(&mut self, _extent: Extent, _location: &Location, _error: Error) {}
}
