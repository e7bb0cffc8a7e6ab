//! Filling packs and sending them to the share.
//!
//! One thread sends, in the order in which packs were closed: data before the maps that refer to it, and the manifest
//! only after all. One pack is sent while the next is filled, so a slow share slows the capture and does not fill memory.

use super::dedup::{Dedup, Site};
use super::worker::{Found, Output};
use crate::map::{NodeSink, Place};
use crate::monitor::{Monitor, Stage, timed};
use crate::repository::{Repository, object};
use imager_image::frame::FrameKind;
use imager_image::index::{self, Hook, is_hook};
use imager_image::node::Location;
use imager_image::pack::{Item, PackBuilder, PackKind, PackRef};
use imager_image::{BlockId, CaptureId, Codec, Compression, NodeId, PackId, names};
use imager_units::{ByteLen, Context, Error, ErrorKind, Result};
use netshare_store::ObjectName;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// How many ids the sparse index of one capture lists at most: 4 TiB of new unique blocks. The rest costs space when it
/// comes again, nothing else.
const MOST_HOOKS: usize = 1 << 20;

/// After so many packs what is on the share is listed, so that a capture that dies is not sent anew as a whole.
const CHECKPOINT_PACKS: usize = 64;

/// A closed pack on its way.
pub(super) struct Closed {
    id: PackId,
    bytes: Vec<u8>,
    hooks: Vec<Hook>,
}

/// Puts packs onto the share as they come, until the sender is gone, and lists the blocks in them in sparse indexes:
/// also when the capture ends early, because then the next one goes on from there.
///
/// # Errors
/// The share's first error.
pub(super) fn send(
    repository: &Repository,
    id: CaptureId,
    queue: &Receiver<Option<Closed>>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let (mut hooks, mut checkpoints) = (Vec::new(), Vec::new());
    // What is no pack only has to be received.
    for (count, pack) in (1..).zip(queue.iter().flatten()) {
        let name = object(names::pack(pack.id))?;
        timed(monitor, Stage::Share, || repository.store().put(&name, &pack.bytes))
            .context(|| format!("storing pack {}", pack.id))?;
        hooks.extend(pack.hooks);
        if count % CHECKPOINT_PACKS == 0 {
            let name = object(names::index(CaptureId::random()?))?;
            let listed = checkpoints.last().map_or(0, |(_, listed)| *listed);
            store_index(repository, &name, hooks.get(listed..).unwrap_or_default())?;
            checkpoints.push((name, hooks.len()));
        }
    }
    store_index(repository, &object(names::index(id))?, &hooks)?;
    for (name, _) in checkpoints {
        // Whoever may not delete leaves them; they say nothing wrong.
        if let Err(error) = repository.store().delete(&name) {
            tracing::info!("{name} stays: {error}");
        }
    }
    Ok(())
}

/// Stores a sparse index, unless there is nothing to list.
///
/// # Errors
/// The share's.
pub(crate) fn store_index(repository: &Repository, name: &ObjectName, hooks: &[Hook]) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let bytes = index::encode(hooks, &mut repository.codec(Compression::Small)?)?;
    repository.store().put(name, &bytes).map(drop)
}

/// A closed pack is handed over when the one before it is on the share.
pub(super) fn queue() -> (SyncSender<Option<Closed>>, Receiver<Option<Closed>>) {
    sync_channel(0)
}

struct Open {
    number: usize,
    builder: PackBuilder,
    hooks: Vec<BlockId>,
}

/// The packs that a capture writes.
pub(super) struct Packer<'a, 'r> {
    codec: Codec<'r>,
    dedup: &'a Mutex<Dedup<'r>>,
    queue: SyncSender<Option<Closed>>,
    packs: Vec<Option<PackRef>>,
    closed: usize,
    data: Option<Open>,
    map: Option<Open>,
    /// How many ids are listed.
    hooks: usize,
    stored: ByteLen,
}

impl<'a, 'r> Packer<'a, 'r> {
    /// Packs go into `queue`.
    ///
    /// # Errors
    /// `OutOfSpace` without memory for a codec.
    pub(super) fn new(
        repository: &'r Repository,
        dedup: &'a Mutex<Dedup<'r>>,
        queue: SyncSender<Option<Closed>>,
    ) -> Result<Self> {
        let codec = repository.codec(Compression::Fast)?;
        Ok(Self {
            codec,
            dedup,
            queue,
            packs: Vec::new(),
            closed: 0,
            data: None,
            map: None,
            hooks: 0,
            stored: ByteLen::ZERO,
        })
    }

    /// Takes the frames of a worker's output into the open pack, and says where each went.
    ///
    /// # Errors
    /// Whatever closing a pack fails with.
    pub(super) fn take(&mut self, output: &mut Output) -> Result<Vec<Place>> {
        let mut places = Vec::with_capacity(output.frames.len());
        for (frame, items) in std::mem::take(&mut output.frames) {
            self.stored = self.stored.saturating_add(ByteLen::of(&frame));
            places.push(self.push_blocks(&frame, items)?);
        }
        let mut dedup = self.dedup.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, found) in &output.blocks {
            if let Found::New { id, frame, at, .. } = *found
                && let Some(place) = places.get(frame)
            {
                dedup.learn(id, Site::Ours(Place { at, ..*place }));
            }
        }
        Ok(places)
    }

    fn push_blocks(&mut self, frame: &[u8], items: Vec<Item>) -> Result<Place> {
        let open = open(&mut self.data, PackKind::Data, &mut self.packs);
        open.hooks.extend(items.iter().map(|item| BlockId(item.id)).filter(|id| is_hook(*id)));
        let place = Place { pack: open.number, frame: open.builder.push(frame, items)?, at: 0 };
        if open.builder.is_full() {
            self.close_data()?;
        }
        Ok(place)
    }

    /// Bytes of sealed frames of blocks so far.
    pub(super) fn stored(&self) -> ByteLen {
        self.stored
    }

    /// Closes the open pack of blocks, if there is one.
    ///
    /// # Errors
    /// Whatever sealing its table or the share fail with.
    pub(super) fn close_data(&mut self) -> Result<()> {
        match self.data.take() {
            Some(open) => self.close(open),
            None => Ok(()),
        }
    }

    /// Closes the open pack of nodes, if there is one, and says whether there was.
    ///
    /// # Errors
    /// As `close_data`.
    pub(super) fn close_map(&mut self) -> Result<bool> {
        match self.map.take() {
            Some(open) => self.close(open).map(|()| true),
            None => Ok(false),
        }
    }

    fn close(&mut self, open: Open) -> Result<()> {
        let (pack, bytes, _) = open.builder.finish(&mut self.codec)?;
        let room = MOST_HOOKS.saturating_sub(self.hooks);
        let hooks: Vec<Hook> = open.hooks.into_iter().take(room).map(|id| (id, pack)).collect();
        self.hooks += hooks.len();
        if let Some(place) = self.packs.get_mut(open.number) {
            *place = Some(pack);
        }
        self.closed += 1;
        self.hand_over(Some(Closed { id: pack.id, bytes, hooks }))
    }

    fn hand_over(&self, pack: Option<Closed>) -> Result<()> {
        // Whoever sends has stopped only because of an error, which its own result tells.
        self.queue.send(pack).map_err(|_| Error::new(ErrorKind::Cancelled, "the share is gone"))
    }

    /// Waits until all packs that were closed are on the share: what is handed over behind them is received then.
    ///
    /// # Errors
    /// `Cancelled` when the share failed.
    pub(super) fn wait(&self) -> Result<()> {
        self.hand_over(None)
    }
}

fn open<'p>(slot: &'p mut Option<Open>, kind: PackKind, packs: &mut Vec<Option<PackRef>>) -> &'p mut Open {
    slot.get_or_insert_with(|| {
        packs.push(None);
        Open { number: packs.len() - 1, builder: PackBuilder::new(kind), hooks: Vec::new() }
    })
}

impl NodeSink for Packer<'_, '_> {
    fn pack(&self, number: usize) -> Option<PackRef> {
        self.packs.get(number).copied().flatten()
    }

    fn standing(&self, id: NodeId, location: &Location) -> Option<Location> {
        self.dedup.lock().unwrap_or_else(PoisonError::into_inner).standing_node(id, location)
    }

    fn closed(&self) -> usize {
        self.closed
    }

    fn store(&mut self, id: NodeId, encoded: &[u8]) -> Result<Place> {
        let frame = self.codec.seal(FrameKind::Node, encoded)?;
        let len = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        let open = open(&mut self.map, PackKind::Map, &mut self.packs);
        let span = open.builder.push(&frame, vec![Item { id: id.0, len }])?;
        let place = Place { pack: open.number, frame: span, at: 0 };
        if open.builder.is_full() {
            self.close_map()?;
        }
        Ok(place)
    }

    fn id(&self, encoded: &[u8]) -> NodeId {
        self.codec.keys().node_id(encoded)
    }
}
