//! Healing: finding elsewhere what a damaged or missing pack should hold.
//!
//! The next capture sends again the blocks of packs that are marked as damaged, so most of what was lost is in other
//! packs afterwards, under the same ids. A damaged frame is then made anew from these and moved like any other.

use super::decide::{Decisions, Job, Seen, Why};
use super::needs::{Need, manifest};
use crate::map::block_extent;
use crate::monitor::{Monitor, check_cancelled};
use crate::repository::{FrameReader, Repository};
use crate::verify::streams;
use crate::verify::walk::{Known, Visitor, Walk, is_damage};
use imager_image::node::{Content, Entry, Location};
use imager_image::pack::{FrameSpan, PackKind};
use imager_image::{BLOCK_BYTES, NodeId, PackId, names};
use imager_units::{ByteLen, Error, Extent, Result};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many blocks of damaged packs are looked for in one run: about 100 MiB. The rest waits for the next.
const MOST_REFERENCES: usize = 500_000;

/// A block or node that a frame should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    pub(super) at: u32,
    pub(super) len: u32,
    pub(super) id: [u8; 32],
}

/// Frames of a pack, and what each should hold.
pub(super) type Frames = BTreeMap<FrameSpan, Vec<Reference>>;

/// What is known of damaged packs.
#[derive(Default)]
pub(super) struct Mending {
    packs: HashMap<PackId, Frames>,
    /// Where else blocks and nodes are.
    sites: HashMap<[u8; 32], Location>,
}

struct Visit<'a> {
    size: ByteLen,
    each: &'a mut dyn FnMut([u8; 32], u32, &Location),
}

impl Visitor for Visit<'_> {
    fn node(&mut self, id: NodeId, location: &Location) {
        (self.each)(id.0, 0, location);
    }

    fn leaf(&mut self, first: u64, entries: &[Entry]) -> Result<bool> {
        for (index, entry) in (first..).zip(entries) {
            if let Content::Data(id, location) = entry.content {
                let len = block_extent(index, self.size).len().get();
                (self.each)(id.0, u32::try_from(len).unwrap_or(0), &location);
            }
        }
        Ok(true)
    }

    /// The mark has spoken of it.
    fn lost(&mut self, _extent: Extent, _location: &Location, _error: Error) {}
}

/// Hands every reference of these captures to `each`: id, length of a block, 0 for a node, and place.
fn walk<'o>(
    repository: &Repository,
    objects: impl IntoIterator<Item = &'o String>,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut([u8; 32], u32, &Location),
) -> Result<()> {
    let mut known = Known::default();
    for object in objects {
        check_cancelled(monitor)?;
        let manifest = match manifest(repository, object) {
            Err(error) if is_damage(&error) => continue,
            manifest => manifest?,
        };
        for stream in streams(&manifest) {
            let size = ByteLen::new(stream.map.size_bytes);
            let mut visitor = Visit { size, each: &mut *each };
            Walk::new(repository, stream.map, &mut known, &mut visitor, monitor)?.run()?;
        }
    }
    Ok(())
}

/// What frames of a pack should hold, as far as these captures know them by its name.
///
/// # Errors
/// `Io`, `Denied` from the share; `Cancelled`.
pub(super) fn named(
    repository: &Repository,
    objects: &[String],
    pack: PackId,
    monitor: &dyn Monitor,
) -> Result<Frames> {
    let mut frames = Frames::new();
    walk(repository, objects, monitor, &mut |id, len, place| {
        if place.pack.id == pack {
            frames.entry(place.frame).or_default().push(Reference { at: place.at, len, id });
        }
    })?;
    Ok(frames)
}

/// Looks at every needed pack that is damaged or missing, and adds jobs for what can be healed. `order` are the captures
/// that stay, the newest of each machine first, and how many those are.
///
/// # Errors
/// `Io`, `Denied` from the share; `Cancelled`.
pub(super) fn look(
    repository: &Repository,
    seen: &Seen,
    decisions: &mut Decisions,
    order: &(Vec<String>, usize),
    monitor: &dyn Monitor,
) -> Result<Mending> {
    let bad = bad(repository, seen)?;
    if bad.is_empty() {
        return Ok(Mending::default());
    }
    monitor.phase("looking for what is damaged elsewhere", None);
    let (mut mending, mut count) = (Mending::default(), 0_usize);
    let mut newest: HashSet<(PackId, [u8; 32])> = HashSet::new();
    let (objects, newest_count) = order;
    let mut collect = |id: [u8; 32], len: u32, place: &Location, is_newest: bool| {
        if bad.contains_key(&place.pack.id) && count < MOST_REFERENCES {
            count += 1;
            let frames = mending.packs.entry(place.pack.id).or_default();
            frames.entry(place.frame).or_default().push(Reference { at: place.at, len, id });
            if is_newest {
                newest.insert((place.pack.id, id));
            }
        }
    };
    let first = objects.iter().take(*newest_count);
    walk(repository, first, monitor, &mut |id, len, place| collect(id, len, place, true))?;
    walk(repository, objects.iter().skip(*newest_count), monitor, &mut |id, len, place| {
        collect(id, len, place, false);
    })?;
    for references in mending.packs.values_mut().flat_map(BTreeMap::values_mut) {
        references.sort_unstable();
        references.dedup();
    }
    let lost = mending.lost(repository, &bad)?;
    let wanted: HashSet<[u8; 32]> = lost.values().flatten().flat_map(|(_, ids)| ids).copied().collect();
    walk(repository, objects, monitor, &mut |id, _, place| {
        if wanted.contains(&id) && !bad.contains_key(&place.pack.id) {
            mending.sites.entry(id).or_insert(*place);
        }
    })?;
    for (pack, frames) in lost {
        if let Some((need, left)) = bad.get(&pack) {
            let is_settled = frames
                .iter()
                .flat_map(|(_, ids)| ids)
                .all(|id| mending.sites.contains_key(id) || !newest.contains(&(pack, *id)));
            add(seen, decisions, &mending, (need, left), &frames, is_settled);
        }
    }
    Ok(mending)
}

/// Frames that do not hold what they should, and the ids of what they should hold and do not; none where that is not known.
type Lost = Vec<(FrameSpan, Vec<[u8; 32]>)>;
type Bad<'s> = BTreeMap<PackId, (&'s Need, Vec<FrameSpan>)>;

/// Needed packs that are damaged or not there, with the needed frames that are nowhere else.
fn bad<'s>(repository: &Repository, seen: &'s Seen) -> Result<Bad<'s>> {
    let mut bad = BTreeMap::new();
    for (id, need) in &seen.needs.packs {
        let is_whole = seen.packs.get(id) == Some(&need.pack.len);
        if is_whole && !seen.damaged.contains(id) {
            continue;
        }
        if !is_whole {
            // A pack may have come after packs were listed and before captures were.
            let len = repository.store().len(&crate::repository::object(names::pack(*id))?)?;
            if len == Some(ByteLen::new(need.pack.len.into())) {
                continue;
            }
        }
        if let Some(left) = seen.uncovered(need).filter(|left| !left.is_empty()) {
            bad.insert(*id, (need, left));
        }
    }
    Ok(bad)
}

fn add(
    seen: &Seen,
    decisions: &mut Decisions,
    mending: &Mending,
    (need, left): (&Need, &[FrameSpan]),
    lost: &Lost,
    is_settled: bool,
) {
    let is_there = |id: &[u8; 32]| mending.sites.contains_key(id);
    let hopeless = |frame: &FrameSpan| {
        let ids = lost.iter().find(|(lost, _)| lost == frame).map(|(_, ids)| ids.as_slice());
        ids.is_some_and(|ids| {
            let is_enough = if is_settled { ids.iter().any(is_there) } else { ids.iter().all(is_there) };
            ids.is_empty() || !is_enough
        })
    };
    let mut frames = left.to_vec();
    frames.retain(|frame| !hopeless(frame));
    let ids: HashSet<&[u8; 32]> = lost.iter().flat_map(|(_, ids)| ids).filter(|id| !is_there(id)).collect();
    let (count, pack, is_all) = (ids.len(), need.pack.id, frames.len() == left.len());
    if count > 0 {
        let what = if is_settled {
            "no capture that is newer needs them, so they will not come back: imager verify names what is affected"
        } else {
            "captures still need them: capture again, then prune"
        };
        decisions.warnings.push(format!("pack {pack}: {count} of its blocks are nowhere else; {what}"));
    }
    let is_worth = lost.is_empty() || lost.iter().any(|(frame, _)| frames.contains(frame));
    let part = seen.moved.get(&pack).copied().unwrap_or(0);
    // What moves out of a pack that is leaving cannot move where nothing of it is to be had.
    let before = decisions.jobs.len();
    decisions.jobs.retain(|job| job.pack.id != pack);
    let is_leaving = decisions.jobs.len() < before;
    if frames.is_empty() || !(is_all || is_leaving || is_settled && is_worth) {
        if is_leaving && !decisions.waiting.contains(&pack) {
            decisions.waiting.push(pack);
        }
        return;
    }
    let why = if seen.packs.contains_key(&pack) { Why::Damaged } else { Why::Missing };
    decisions.jobs.push(Job { pack: need.pack, kind: need.kind, frames, why, part, is_all });
}

impl Mending {
    /// What of these packs does not prove itself.
    fn lost(&self, repository: &Repository, bad: &Bad<'_>) -> Result<BTreeMap<PackId, Lost>> {
        let mut lost: BTreeMap<PackId, Lost> = BTreeMap::new();
        let mut codec = repository.codec(imager_image::Compression::Fast)?;
        for (pack, (need, left)) in bad {
            let found = lost.entry(*pack).or_default();
            for frame in left {
                let references = self.references(*pack, *frame);
                let opened = super::relocate::sound(repository, &mut codec, need.pack, need.kind, *frame)?;
                // What moved on to here is known by the pack it came from, and healed there.
                let is_unknown = opened.is_none() && references.is_empty();
                let raw = opened.map(|(_, raw)| raw).unwrap_or_default();
                let wrong = references.iter().filter(|r| !holds(repository, need.kind, &raw, r));
                let mut ids: Vec<_> = wrong.map(|reference| reference.id).collect();
                ids.sort_unstable();
                ids.dedup();
                if is_unknown || !ids.is_empty() {
                    found.push((*frame, ids));
                }
            }
        }
        Ok(lost)
    }

    /// What a frame should hold.
    pub(super) fn references(&self, pack: PackId, frame: FrameSpan) -> &[Reference] {
        self.packs.get(&pack).and_then(|frames| frames.get(&frame)).map_or(&[], Vec::as_slice)
    }

    /// The frame's content made anew from what `raw` still holds and from elsewhere; `None` when nothing of it is to
    /// be had. What is nowhere stays zero, and does not prove itself.
    ///
    /// # Errors
    /// `Io`, `Denied` from the share.
    pub(super) fn mend(
        &self,
        frames: &mut FrameReader<'_>,
        kind: PackKind,
        references: &[Reference],
        raw: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let mut made = raw.to_vec();
        let mut found = false;
        for reference in references {
            if holds(frames.repository(), kind, raw, reference) {
                continue;
            }
            let Some(site) = self.sites.get(&reference.id) else { continue };
            let other = match frames.open(kind.frames(), site) {
                Err(error) if is_damage(&error) => continue,
                other => other?,
            };
            let there = Reference { at: site.at, ..*reference };
            if holds(frames.repository(), kind, &other, &there) {
                if kind == PackKind::Map {
                    return Ok(Some(other));
                }
                let content = content(kind, &other, &there).unwrap_or_default();
                let at = usize::try_from(reference.at).unwrap_or(usize::MAX);
                let end = at.saturating_add(content.len());
                if end > imager_image::frame::FRAME_MOST_RAW_BYTES {
                    continue;
                }
                made.resize(made.len().max(end), 0);
                made.get_mut(at..end).unwrap_or_default().copy_from_slice(content);
                found = true;
            }
        }
        Ok(found.then_some(made))
    }
}

fn content<'r>(kind: PackKind, raw: &'r [u8], reference: &Reference) -> Option<&'r [u8]> {
    let at = usize::try_from(reference.at).ok()?;
    match kind {
        PackKind::Map => Some(raw),
        PackKind::Data => raw.get(at..at.checked_add(usize::try_from(reference.len).ok()?)?),
    }
}

/// Whether an opened frame holds what it should there.
pub(super) fn holds(repository: &Repository, kind: PackKind, raw: &[u8], reference: &Reference) -> bool {
    let keys = repository.keys();
    let is_it = |content: &[u8]| match kind {
        PackKind::Data => content.len() <= BLOCK_BYTES && keys.block_id(content).0 == reference.id,
        PackKind::Map => keys.node_id(content).0 == reference.id,
    };
    content(kind, raw, reference).is_some_and(is_it)
}
