//! Moving frames: new packs first, then `moved/`, then the tombstone of the pack they came from.

use super::decide::{Job, Why};
use super::heal::{self, Mending, Reference, holds};
use super::needs::Need;
use crate::capture::packer::store_index;
use crate::monitor::{Monitor, check_cancelled};
use crate::moved::MOST_TRIES;
use crate::repository::{FrameReader, Repository, object};
use crate::verify::walk::is_damage;
use imager_image::index::{Hook, is_hook};
use imager_image::moved::{Moved, MovedFrame};
use imager_image::node::Location;
use imager_image::pack::{FrameSpan, Item, PackBuilder, PackKind, PackRef};
use imager_image::{BLOCK_BYTES, BlockId, CaptureId, Codec, Compression, PackId, names};
use imager_units::{ByteLen, ErrorKind, Result};
use std::collections::HashSet;

/// What came of it.
#[derive(Default)]
pub(super) struct Relocated {
    /// Packs of which nothing needed stayed behind.
    pub(super) emptied: Vec<PackId>,
    /// Packs that were rewritten, healed or both.
    pub(super) packs: u64,
    pub(super) written_bytes: u64,
    pub(super) healed_frames: u64,
    pub(super) warnings: Vec<String>,
}

/// Frames of one job on their way.
struct Pending {
    pack: PackRef,
    part: u32,
    /// From where, into which new pack, to where.
    frames: Vec<(FrameSpan, usize, FrameSpan)>,
    is_all: bool,
}

struct Open {
    number: usize,
    builder: PackBuilder,
    hooks: Vec<BlockId>,
}

struct Mover<'r> {
    repository: &'r Repository,
    codec: Codec<'r>,
    frames: FrameReader<'r>,
    /// The new packs by number, once they are on the share.
    packs: Vec<Option<PackRef>>,
    data: Option<Open>,
    map: Option<Open>,
    hooks: Vec<Hook>,
    pending: Vec<Pending>,
    done: Relocated,
}

/// A frame as it lies in its pack, and what it holds; `None` when it is damaged or not there. What seems damaged is read
/// once more, since a wire that errs is no damage.
///
/// # Errors
/// `Io`, `Denied` from the share.
pub(super) fn sound(
    repository: &Repository,
    codec: &mut Codec<'_>,
    pack: PackRef,
    kind: PackKind,
    frame: FrameSpan,
) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    for _ in 0..2 {
        match repository.store().get_range(&object(names::pack(pack.id))?, frame.extent()) {
            Ok(sealed) => {
                if let Ok(raw) = codec.open(kind.frames(), &sealed) {
                    return Ok(Some((sealed, raw)));
                }
            }
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether what moved out of a pack that is to be deleted is where it went, as long as it can be compared with what
/// moved; the frames of which that is not so. `objects` are the captures that stay.
///
/// # Errors
/// `Io`, `Denied` from the share; `Cancelled`.
pub(super) fn unproven(
    repository: &Repository,
    need: &Need,
    trash: &HashSet<PackId>,
    objects: &[String],
    monitor: &dyn Monitor,
) -> Result<Vec<FrameSpan>> {
    let mut codec = repository.codec(Compression::Fast)?;
    let (mut unproven, mut named) = (Vec::new(), None);
    for frame in need.sorted().unwrap_or_default() {
        check_cancelled(monitor)?;
        let here = sound(repository, &mut codec, need.pack, need.kind, frame)?.map(|(_, raw)| raw);
        let (mut tries, mut proven) = (0, false);
        let mut next = repository.elsewhere(&Location { pack: need.pack, frame, at: 0 })?;
        while let Some(place) = next.pop().filter(|_| !proven && tries < MOST_TRIES) {
            tries += 1;
            next.extend(repository.elsewhere(&place)?);
            if trash.contains(&place.pack.id) {
                continue;
            }
            let there = sound(repository, &mut codec, place.pack, need.kind, place.frame)?;
            proven = match (&here, there) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(here), Some((_, there))) if *here == there => true,
                // A document that errs or lies; or what is here did not prove itself, and was made anew.
                (Some(here), Some((_, there))) => {
                    if named.is_none() {
                        named = Some(heal::named(repository, objects, need.pack.id, monitor)?);
                    }
                    let references = named.as_ref().and_then(|frames| frames.get(&frame));
                    let is_in = |raw: &[u8], reference| holds(repository, need.kind, raw, reference);
                    references.is_some_and(|all| all.iter().all(|r| is_in(&there, r) || !is_in(here, r)))
                }
            };
        }
        if !proven {
            unproven.push(frame);
        }
    }
    Ok(unproven)
}

/// Moves what the jobs say.
///
/// # Errors
/// `Io`, `OutOfSpace`, `Denied` from the share; `Cancelled`. What was moved until then stays moved.
pub(super) fn relocate(
    repository: &Repository,
    jobs: Vec<Job>,
    mending: &Mending,
    monitor: &dyn Monitor,
) -> Result<Relocated> {
    if jobs.is_empty() {
        return Ok(Relocated::default());
    }
    let total = jobs.iter().flat_map(|job| &job.frames).map(|frame| ByteLen::new(frame.len.into())).sum();
    monitor.phase("moving what is needed", Some(total));
    let mut mover = Mover {
        repository,
        codec: repository.codec(Compression::Fast)?,
        frames: repository.frames()?,
        packs: Vec::new(),
        data: None,
        map: None,
        hooks: Vec::new(),
        pending: Vec::new(),
        done: Relocated::default(),
    };
    for job in jobs {
        check_cancelled(monitor)?;
        mover.job(job, mending, monitor)?;
    }
    mover.close(PackKind::Data)?;
    mover.close(PackKind::Map)?;
    store_index(repository, &object(names::index(CaptureId::random()?))?, &mover.hooks)?;
    Ok(mover.done)
}

impl Mover<'_> {
    fn job(&mut self, job: Job, mending: &Mending, monitor: &dyn Monitor) -> Result<()> {
        let mut pending = Pending { pack: job.pack, part: job.part, frames: Vec::new(), is_all: job.is_all };
        for frame in &job.frames {
            let references = mending.references(job.pack.id, *frame);
            match self.content(&job, *frame, references, mending)? {
                Some((bytes, items)) => {
                    let (number, to) = self.push(job.kind, &bytes, items)?;
                    pending.frames.push((*frame, number, to));
                }
                None => {
                    pending.is_all = false;
                    if job.why != Why::Missing {
                        self.mark(job.pack.id)?;
                    }
                    let what = "is damaged, and the pack is marked: capture again, then prune";
                    let message = format!("pack {}: the frame at {} {what}", job.pack.id, frame.extent());
                    self.done.warnings.push(message);
                }
            }
            monitor.advance(ByteLen::new(frame.len.into()));
        }
        if !pending.frames.is_empty() {
            self.pending.push(pending);
        }
        Ok(())
    }

    /// The next prune finds what it can elsewhere; and where a copy is elsewhere already, what is damaged stands for it no
    /// more.
    fn mark(&self, pack: PackId) -> Result<()> {
        let name = object(names::marker(names::DAMAGED, pack))?;
        match self.repository.store().put(&name, crate::verify::MARK) {
            Err(error) if error.kind() == ErrorKind::Exists => Ok(()),
            put => put.map(drop),
        }
    }

    /// The frame to be stored and what is in it: as it is where it is sound, or made anew.
    fn content(
        &mut self,
        job: &Job,
        frame: FrameSpan,
        references: &[Reference],
        mending: &Mending,
    ) -> Result<Option<(Vec<u8>, Vec<Item>)>> {
        let found = match job.why {
            Why::Missing => None,
            _ => sound(self.repository, &mut self.codec, job.pack, job.kind, frame)?,
        };
        let opened = match found {
            Some((sealed, raw))
                if references.iter().all(|reference| holds(self.repository, job.kind, &raw, reference)) =>
            {
                let items = self.items(job.kind, &raw);
                return Ok(Some((sealed, items)));
            }
            found => found.map(|(_, raw)| raw),
        };
        let raw = opened.unwrap_or_default();
        let Some(made) = mending.mend(&mut self.frames, job.kind, references, &raw)? else { return Ok(None) };
        self.done.healed_frames += 1;
        let items = self.items(job.kind, &made);
        Ok(Some((self.codec.seal(job.kind.frames(), &made)?, items)))
    }

    /// A frame holds whole blocks, of which only the last may be shorter; or one node.
    fn items(&self, kind: PackKind, raw: &[u8]) -> Vec<Item> {
        let keys = self.repository.keys();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match kind {
            PackKind::Map => vec![Item { id: keys.node_id(raw).0, len: len(raw) }],
            PackKind::Data => {
                let block = |block: &[u8]| Item { id: keys.block_id(block).0, len: len(block) };
                raw.chunks(BLOCK_BYTES).map(block).collect()
            }
        }
    }

    fn push(&mut self, kind: PackKind, bytes: &[u8], items: Vec<Item>) -> Result<(usize, FrameSpan)> {
        let packs = &mut self.packs;
        let slot = if kind == PackKind::Data { &mut self.data } else { &mut self.map };
        let open = slot.get_or_insert_with(|| {
            packs.push(None);
            Open { number: packs.len() - 1, builder: PackBuilder::new(kind), hooks: Vec::new() }
        });
        if kind == PackKind::Data {
            open.hooks.extend(items.iter().map(|item| BlockId(item.id)).filter(|id| is_hook(*id)));
        }
        let place = (open.number, open.builder.push(bytes, items)?);
        if open.builder.is_full() {
            self.close(kind)?;
        }
        Ok(place)
    }

    /// Puts the open pack, and says where everything went that waited for it.
    fn close(&mut self, kind: PackKind) -> Result<()> {
        let slot = if kind == PackKind::Data { &mut self.data } else { &mut self.map };
        if let Some(open) = slot.take() {
            let (pack, bytes, _) = open.builder.finish(&mut self.codec)?;
            self.repository.store().put(&object(names::pack(pack.id))?, &bytes)?;
            self.done.written_bytes += bytes.len() as u64;
            self.hooks.extend(open.hooks.into_iter().map(|id| (id, pack)));
            if let Some(place) = self.packs.get_mut(open.number) {
                *place = Some(pack);
            }
        }
        let packs = &self.packs;
        let is_ready = |pending: &mut Pending| {
            pending.frames.iter().all(|(_, number, _)| packs.get(*number).is_some_and(Option::is_some))
        };
        let ready: Vec<Pending> = self.pending.extract_if(.., is_ready).collect();
        ready.into_iter().try_for_each(|pending| self.announce(pending))
    }

    fn announce(&mut self, pending: Pending) -> Result<()> {
        let place = |(from, number, to): (FrameSpan, usize, FrameSpan)| {
            let pack = self.packs.get(number).copied().flatten()?;
            Some(MovedFrame { from, pack, to })
        };
        let frames = pending.frames.into_iter().filter_map(place).collect();
        let bytes = Moved { pack: pending.pack, frames }.encode(&mut self.codec)?;
        let id = pending.pack.id;
        match self.repository.store().put(&object(names::moved(id, pending.part))?, &bytes) {
            // Another prune was first; the next one sees what is left to do.
            Err(error) if error.kind() == ErrorKind::Exists => {
                self.done.warnings.push(format!("pack {id} was moved by another prune at the same time"));
                return Ok(());
            }
            put => put?,
        };
        self.done.packs += 1;
        if pending.is_all {
            self.done.emptied.push(id);
        }
        Ok(())
    }
}
