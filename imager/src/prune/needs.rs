//! The mark: which frames of which packs captures need.
//!
//! Memory is bounded: of a pack of which at least half is needed only that is remembered, unless it is special (on its
//! way out, damaged, missing): of those each frame must be known.

use crate::captures;
use crate::monitor::{Monitor, check_cancelled};
use crate::repository::Repository;
use crate::verify::streams;
use crate::verify::walk::{Known, Visitor, Walk, is_damage};
use imager_image::manifest::Manifest;
use imager_image::node::{Content, Entry, Location};
use imager_image::pack::{FrameSpan, PackKind, PackRef};
use imager_image::{NodeId, PackId};
use imager_units::{Error, ErrorKind, Extent, Result};
use std::collections::{HashMap, HashSet};

/// How many frames are remembered: about 100 MiB.
const MOST_FRAMES: usize = 4 << 20;

/// What is needed of one pack.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) pack: PackRef,
    pub(super) kind: PackKind,
    /// The frames; `None` when they are too many to remember, or there is no need to.
    pub(super) frames: Option<HashSet<FrameSpan>>,
    live: u64,
}

impl Need {
    /// Bytes of needed frames; `None` when it is at least half of the pack.
    pub(super) fn live_bytes(&self) -> Option<u64> {
        self.frames.as_ref().map(|_| self.live)
    }

    /// The frames in the order in which they lie in the pack.
    pub(super) fn sorted(&self) -> Option<Vec<FrameSpan>> {
        let mut frames: Vec<_> = self.frames.as_ref()?.iter().copied().collect();
        frames.sort_unstable();
        Some(frames)
    }
}

/// What is needed of all packs.
#[derive(Default)]
pub(super) struct Needs {
    pub(super) packs: HashMap<PackId, Need>,
    frames: usize,
}

impl Needs {
    /// Notes that a frame is needed; says whether that was new.
    pub(super) fn add(&mut self, pack: PackRef, kind: PackKind, frame: FrameSpan, is_special: bool) -> bool {
        let new = || Need { pack, kind, frames: Some(HashSet::new()), live: 0 };
        let need = self.packs.entry(pack.id).or_insert_with(new);
        let Some(frames) = &mut need.frames else { return false };
        if !frames.insert(frame) {
            return false;
        }
        self.frames += 1;
        need.live = need.live.saturating_add(frame.len.into());
        let is_full = !is_special && need.live.saturating_mul(2) >= u64::from(pack.len);
        if is_full || self.frames > MOST_FRAMES {
            self.frames -= frames.len();
            need.frames = None;
        }
        true
    }
}

/// A capture whose needs are not all known, and why.
pub(super) type Blind = Vec<String>;

/// Walks captures and collects what they need.
pub(super) struct Mark<'a> {
    pub(super) repository: &'a Repository,
    pub(super) monitor: &'a dyn Monitor,
    known: Known,
}

struct Collector<'a, F> {
    each: F,
    lost: &'a mut Vec<String>,
}

impl<F: FnMut(&Location, PackKind)> Visitor for Collector<'_, F> {
    fn node(&mut self, _id: NodeId, location: &Location) {
        (self.each)(location, PackKind::Map);
    }

    fn leaf(&mut self, _first: u64, entries: &[Entry]) -> Result<bool> {
        for entry in entries {
            if let Content::Data(_, location) = entry.content {
                (self.each)(&location, PackKind::Data);
            }
        }
        Ok(true)
    }

    fn lost(&mut self, _extent: Extent, location: &Location, error: Error) {
        let why = crate::verify::chain(&error);
        self.lost.push(format!("a node of its maps, in pack {}, cannot be read: {why}", location.pack.id));
    }
}

impl<'a> Mark<'a> {
    pub(super) fn new(repository: &'a Repository, monitor: &'a dyn Monitor) -> Self {
        Self { repository, monitor, known: Known::default() }
    }

    /// Hands every place that these captures need to `each`, those in shared subtrees once. Says what could not be read.
    ///
    /// # Errors
    /// `Cancelled`; `Io`, `Denied` from the share.
    pub(super) fn walk<'o>(
        &mut self,
        objects: impl IntoIterator<Item = &'o str>,
        mut each: impl FnMut(&Location, PackKind),
    ) -> Result<Blind> {
        let mut blind = Vec::new();
        for object in objects {
            check_cancelled(self.monitor)?;
            let manifest = match manifest(self.repository, object) {
                Ok(manifest) => manifest,
                // Revoked, or removed by another prune.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if is_damage(&error) => {
                    blind.push(format!("{object}: {}", crate::verify::chain(&error)));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut lost = Vec::new();
            for stream in streams(&manifest) {
                let mut visitor = Collector { each: &mut each, lost: &mut lost };
                Walk::new(self.repository, stream.map, &mut self.known, &mut visitor, self.monitor)?.run()?;
            }
            blind.extend(lost.into_iter().take(3).map(|lost| format!("{object}: {lost}")));
        }
        Ok(blind)
    }
}

/// Reads a manifest; what seems damaged is read once more.
pub(super) fn manifest(repository: &Repository, object: &str) -> Result<Manifest> {
    match captures::read(repository, object) {
        Err(error) if error.kind() == ErrorKind::Corrupt => captures::read(repository, object),
        read => read,
    }
}
