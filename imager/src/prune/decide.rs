//! What becomes of every pack: decided from what was seen, without touching the share.

use super::leases::Lease;
use super::needs::{Need, Needs};
use super::record::{MOST_LISTED, Record};
use crate::moved;
use crate::repository::{Repository, object};
use imager_image::moved::{Moved, MovedFrame};
use imager_image::pack::{FrameSpan, PackKind, PackRef};
use imager_image::{CaptureId, Compression, PackId, names};
use imager_units::{ByteLen, Result};
use std::collections::{HashMap, HashSet};

/// A pack is not rewritten to gain less than this.
const LEAST_GAIN_BYTES: u64 = 32 << 10;
/// A frame may have moved so often.
const MOST_MOVES: u8 = 32;

/// Everything that was seen.
pub(super) struct Seen {
    pub(super) packs: HashMap<PackId, u32>,
    pub(super) needs: Needs,
    /// Packs that captures which go need.
    pub(super) also: HashSet<PackId>,
    /// How many parts say where a pack's frames went.
    pub(super) moved: HashMap<PackId, u32>,
    pub(super) documents: Documents,
    pub(super) trash: HashSet<PackId>,
    pub(super) damaged: HashSet<PackId>,
    pub(super) records: Vec<Record>,
    /// Captures under way.
    pub(super) live: HashSet<CaptureId>,
    /// Something cannot be read, and may need anything.
    pub(super) is_blind: bool,
}

/// Where frames of packs that are still needed went.
#[derive(Default)]
pub(super) struct Documents {
    of: HashMap<PackId, Vec<Moved>>,
    /// Whether packs that frames went to are there; asked after the tombstones were listed.
    standing: HashMap<PackId, bool>,
    /// Packs in which damage was found, and those to which something of them went: a reader names the pack by which a
    /// capture knows a block, wherever it is now.
    suspects: HashSet<PackId>,
    /// Whether frames are sound that went to those.
    sound: HashMap<(PackId, FrameSpan), bool>,
}

/// Why a pack's frames move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Less than half of it is needed.
    Sparse,
    /// It is on its way out, and a capture that was under way came to need it.
    Leaving,
    /// It is damaged.
    Damaged,
    /// It is gone.
    Missing,
}

/// Frames of a pack that are to move.
pub(super) struct Job {
    pub(super) pack: PackRef,
    pub(super) kind: PackKind,
    pub(super) frames: Vec<FrameSpan>,
    pub(super) why: Why,
    /// How many parts say already where others went.
    pub(super) part: u32,
    /// Nothing needed stays behind, so the pack may go.
    pub(super) is_all: bool,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct Decisions {
    pub(super) delete: Vec<PackId>,
    pub(super) tombstone: Vec<PackId>,
    /// Tombstoned, and not yet to be deleted.
    pub(super) waiting: Vec<PackId>,
    /// Tombstoned, and in no record.
    pub(super) unrecorded: Vec<PackId>,
    /// Needed by nobody, but perhaps written by a capture under way.
    pub(super) pending: Vec<PackId>,
    /// Those of them that are in no record.
    pub(super) orphans: Vec<PackId>,
    pub(super) jobs: Vec<Job>,
    pub(super) clear_tombstones: Vec<PackId>,
    pub(super) clear_marks: Vec<PackId>,
    pub(super) clear_moved: Vec<(PackId, u32)>,
    pub(super) stale_records: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Reads where needed frames went, and adds to the needs what they need there.
///
/// # Errors
/// `Io`, `Denied` from the share.
pub(super) fn documents(
    repository: &Repository,
    needs: &mut Needs,
    also: &mut HashSet<PackId>,
    moved: &HashMap<PackId, u32>,
    (trash, damaged): (&HashSet<PackId>, &HashSet<PackId>),
) -> Result<Documents> {
    // Of these each needed frame must be known.
    let is_marked = |pack: &PackId| trash.contains(pack) || damaged.contains(pack);
    let mut documents = Documents::default();
    documents.suspect(repository, damaged, moved)?;
    let mut queue: Vec<PackId> =
        moved.keys().copied().filter(|pack| needs.packs.contains_key(pack)).collect();
    let mut removed: Vec<PackId> = moved.keys().copied().filter(|pack| also.contains(pack)).collect();
    while let Some(pack) = queue.pop() {
        documents.load(repository, pack)?;
        for (kind, to, frame) in documents.targets(repository, needs.packs.get(&pack), moved)? {
            let is_moved = moved.contains_key(&to.id);
            if needs.add(to, kind, frame, is_moved || is_marked(&to.id)) && is_moved {
                queue.push(to.id);
            }
        }
    }
    while let Some(pack) = removed.pop() {
        documents.load(repository, pack)?;
        let to = documents.of.get(&pack).into_iter().flatten().flat_map(|moved| &moved.frames);
        let new: Vec<_> = to.map(|frame| frame.pack.id).collect();
        removed.extend(new.into_iter().filter(|to| also.insert(*to) && moved.contains_key(to)));
    }
    Ok(documents)
}

impl Documents {
    fn load(&mut self, repository: &Repository, pack: PackId) -> Result<()> {
        if let std::collections::hash_map::Entry::Vacant(place) = self.of.entry(pack) {
            place.insert(moved::documents(repository, pack)?);
        }
        Ok(())
    }

    fn is_standing(&mut self, repository: &Repository, pack: PackRef) -> Result<bool> {
        if let Some(known) = self.standing.get(&pack.id) {
            return Ok(*known);
        }
        let len = repository.store().len(&object(names::pack(pack.id))?)?;
        let standing = len == Some(ByteLen::new(pack.len.into()));
        self.standing.insert(pack.id, standing);
        Ok(standing)
    }

    fn suspect(
        &mut self,
        repository: &Repository,
        damaged: &HashSet<PackId>,
        moved: &HashMap<PackId, u32>,
    ) -> Result<()> {
        self.suspects.clone_from(damaged);
        let mut queue: Vec<PackId> =
            damaged.iter().copied().filter(|pack| moved.contains_key(pack)).collect();
        while let Some(pack) = queue.pop() {
            self.load(repository, pack)?;
            let frames = self.of.get(&pack).into_iter().flatten().flat_map(|moved| &moved.frames);
            for frame in frames {
                if self.suspects.insert(frame.pack.id) && moved.contains_key(&frame.pack.id) {
                    queue.push(frame.pack.id);
                }
            }
        }
        Ok(())
    }

    /// Whether a frame that moved can be read where it went; looked at only where damage was found before or after.
    fn is_sound(
        &mut self,
        repository: &Repository,
        kind: PackKind,
        to: PackRef,
        frame: FrameSpan,
    ) -> Result<bool> {
        if let Some(known) = self.sound.get(&(to.id, frame)) {
            return Ok(*known);
        }
        let mut codec = repository.codec(Compression::Fast)?;
        let is_sound = super::relocate::sound(repository, &mut codec, to, kind, frame)?.is_some();
        self.sound.insert((to.id, frame), is_sound);
        Ok(is_sound)
    }

    /// Whether a frame that moved moved on from there.
    fn goes_on(
        &mut self,
        repository: &Repository,
        frame: &MovedFrame,
        moved: &HashMap<PackId, u32>,
    ) -> Result<bool> {
        if !moved.contains_key(&frame.pack.id) {
            return Ok(false);
        }
        self.load(repository, frame.pack.id)?;
        let parts = self.of.get(&frame.pack.id).into_iter().flatten();
        Ok(parts.filter_map(|part| part.find(frame.to)).next().is_some())
    }

    /// The frames elsewhere that stand for those needed of a pack: of each all that are there, since one may be damaged.
    /// One that is known to be damaged stands for nothing.
    fn targets(
        &mut self,
        repository: &Repository,
        need: Option<&Need>,
        moved: &HashMap<PackId, u32>,
    ) -> Result<Vec<(PackKind, PackRef, FrameSpan)>> {
        let Some(need) = need else { return Ok(Vec::new()) };
        let parts = self.of.get(&need.pack.id).cloned().unwrap_or_default();
        let mut targets = Vec::new();
        let all: Vec<FrameSpan> = match need.sorted() {
            Some(frames) => frames,
            None => parts.iter().flat_map(|part| part.frames.iter().map(|frame| frame.from)).collect(),
        };
        for from in all {
            for frame in parts.iter().filter_map(|part| part.find(from)) {
                let is_standing = self.is_standing(repository, frame.pack)?;
                let is_lost = is_standing
                    && self.suspects.contains(&frame.pack.id)
                    && !self.is_sound(repository, need.kind, frame.pack, frame.to)?;
                if is_standing && !is_lost || self.goes_on(repository, frame, moved)? {
                    targets.push((need.kind, frame.pack, frame.to));
                }
            }
        }
        Ok(targets)
    }

    /// Whether a frame is in a pack that is there and stays.
    fn covers(&self, pack: PackId, frame: FrameSpan, trash: &HashSet<PackId>, moves: u8) -> bool {
        let parts = self.of.get(&pack).into_iter().flatten();
        parts.filter_map(|part| part.find(frame)).any(|frame| {
            let is_lost = self.sound.get(&(frame.pack.id, frame.to)) == Some(&false);
            let is_there = self.standing.get(&frame.pack.id) == Some(&true) && !is_lost;
            let stays = is_there && !trash.contains(&frame.pack.id);
            stays || (moves > 0 && self.covers(frame.pack.id, frame.to, trash, moves.saturating_sub(1)))
        })
    }
}

impl Seen {
    /// The needed frames of a pack that are nowhere else; `None` when they are not known one by one.
    pub(super) fn uncovered(&self, need: &Need) -> Option<Vec<FrameSpan>> {
        let mut frames = need.sorted()?;
        frames.retain(|frame| !self.documents.covers(need.pack.id, *frame, &self.trash, MOST_MOVES));
        Some(frames)
    }

    /// Whether an earlier prune's record has the tombstone, and everybody who was under way then is over.
    fn is_ripe(&self, pack: PackId) -> bool {
        self.records.iter().any(|record| record.tombstones.contains(&pack) && record.is_over(&self.live))
    }

    fn is_recorded(&self, pack: PackId) -> bool {
        self.records.iter().any(|record| record.tombstones.contains(&pack))
    }

    pub(super) fn job(&self, need: &Need, frames: Vec<FrameSpan>, why: Why) -> Job {
        let part = self.moved.get(&need.pack.id).copied().unwrap_or(0);
        Job { pack: need.pack, kind: need.kind, frames, why, part, is_all: true }
    }
}

/// Decides.
pub(super) fn decide(seen: &Seen) -> Decisions {
    let mut decisions = Decisions::default();
    let mut packs: Vec<PackId> = seen.packs.keys().copied().collect();
    packs.sort_unstable();
    for pack in packs {
        match seen.needs.packs.get(&pack) {
            None => unneeded(seen, pack, &mut decisions),
            Some(need) if seen.trash.contains(&pack) => leaving(seen, need, &mut decisions),
            Some(need) => staying(seen, need, &mut decisions),
        }
    }
    decisions.tombstone.truncate(MOST_LISTED);
    decisions.orphans.truncate(MOST_LISTED);
    decisions.unrecorded.truncate(MOST_LISTED);
    clear(seen, &mut decisions);
    decisions
}

fn unneeded(seen: &Seen, pack: PackId, decisions: &mut Decisions) {
    if seen.trash.contains(&pack) {
        if seen.is_ripe(pack) && !seen.also.contains(&pack) && !seen.is_blind {
            decisions.delete.push(pack);
        } else {
            wait(seen, pack, decisions);
        }
        return;
    }
    if seen.is_blind {
        return;
    }
    let was_needed = seen.also.contains(&pack) || seen.live.is_empty();
    let orphaned = |record: &&Record| record.orphans.contains(&pack);
    if was_needed || seen.records.iter().filter(orphaned).any(|record| record.is_over(&seen.live)) {
        decisions.tombstone.push(pack);
        return;
    }
    decisions.pending.push(pack);
    if !seen.records.iter().any(|record| orphaned(&record)) {
        decisions.orphans.push(pack);
    }
}

fn wait(seen: &Seen, pack: PackId, decisions: &mut Decisions) {
    decisions.waiting.push(pack);
    if !seen.is_recorded(pack) {
        decisions.unrecorded.push(pack);
    }
}

/// A tombstoned pack that is needed all the same.
fn leaving(seen: &Seen, need: &Need, decisions: &mut Decisions) {
    let pack = need.pack.id;
    match seen.uncovered(need) {
        Some(left)
            if left.is_empty() && seen.is_ripe(pack) && !seen.also.contains(&pack) && !seen.is_blind =>
        {
            decisions.delete.push(pack);
        }
        // All who may come to need it are over, so what is needed is known.
        Some(left) if !left.is_empty() && seen.is_ripe(pack) => {
            decisions.jobs.push(seen.job(need, left, Why::Leaving));
        }
        _ => wait(seen, pack, decisions),
    }
}

fn staying(seen: &Seen, need: &Need, decisions: &mut Decisions) {
    let (pack, len) = (need.pack.id, u64::from(need.pack.len));
    let Some(live) = need.live_bytes() else { return };
    let is_damaged = seen.damaged.contains(&pack) || seen.packs.get(&pack) != Some(&need.pack.len);
    let is_sparse = live.saturating_mul(2) < len && len.saturating_sub(live) >= LEAST_GAIN_BYTES;
    if seen.is_blind || !(is_damaged || is_sparse) {
        return;
    }
    match seen.uncovered(need) {
        // The prune that moved them ended before it could put the tombstone.
        Some(left) if left.is_empty() => decisions.tombstone.push(pack),
        // What is damaged is looked at more closely elsewhere.
        Some(left) if !is_damaged => decisions.jobs.push(seen.job(need, left, Why::Sparse)),
        _ => {}
    }
}

/// Markers that speak of nothing any more.
fn clear(seen: &Seen, decisions: &mut Decisions) {
    let is_gone = |pack: &&PackId| !seen.packs.contains_key(pack);
    let is_unneeded = |pack: &PackId| !seen.needs.packs.contains_key(pack) && !seen.also.contains(pack);
    decisions.clear_tombstones = seen.trash.iter().filter(is_gone).copied().collect();
    if seen.is_blind {
        return;
    }
    decisions.clear_marks = seen.damaged.iter().filter(is_gone).copied().filter(is_unneeded).collect();
    let moved = seen.moved.iter().filter(|(pack, _)| is_gone(pack) && is_unneeded(pack));
    decisions.clear_moved = moved.map(|(pack, parts)| (*pack, *parts)).collect();
    let settled = |pack: &PackId| {
        !seen.packs.contains_key(pack) || seen.needs.packs.contains_key(pack) || seen.trash.contains(pack)
    };
    let stale = seen.records.iter().filter(|record| {
        record.tombstones.iter().all(|pack| !seen.trash.contains(pack)) && record.orphans.iter().all(settled)
    });
    decisions.stale_records = stale.map(|record| record.name.clone()).collect();
}

/// How many bytes each capture under way holds back.
pub(super) fn held_back(leases: Vec<Lease>, seen: &Seen, decisions: &Decisions) -> Vec<Lease> {
    let mut bytes: HashMap<CaptureId, u64> = HashMap::new();
    let mut book = |pack: &PackId, records: Vec<&Record>| {
        if records.iter().any(|record| record.is_over(&seen.live)) {
            return;
        }
        let named: HashSet<CaptureId> = match records.is_empty() {
            true => seen.live.clone(),
            false => records.iter().flat_map(|record| &record.leases).copied().collect(),
        };
        let len = seen.packs.get(pack).copied().unwrap_or(0);
        for lease in named.intersection(&seen.live) {
            let sum = bytes.entry(*lease).or_default();
            *sum = sum.saturating_add(len.into());
        }
    };
    for pack in &decisions.waiting {
        book(pack, seen.records.iter().filter(|record| record.tombstones.contains(pack)).collect());
    }
    for pack in &decisions.pending {
        book(pack, seen.records.iter().filter(|record| record.orphans.contains(pack)).collect());
    }
    let held =
        |lease: Lease| Lease { holds_back_bytes: bytes.get(&lease.capture).copied().unwrap_or(0), ..lease };
    leases.into_iter().map(held).collect()
}
