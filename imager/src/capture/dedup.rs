//! Finding blocks that the repository already holds.
//!
//! First among those of this capture and of packs whose tables were loaded, then through the sparse index: a hit there
//! loads that pack's table, since blocks that came together come again together. Memory is bounded; what is forgotten
//! or missed costs space, never correctness. A block of a pack that this capture did not write and its parent does not
//! name is fetched and checked once before it is relied on.

use crate::map::Place;
use crate::moved::MOST_TRIES;
use crate::repository::{Repository, object};
use imager_image::frame::FrameKind;
use imager_image::node::Location;
use imager_image::pack::{self, PACK_TRAILER_BYTES, PackRef, Table};
use imager_image::{BLOCK_BYTES, BlockId, Codec, Compression, NodeId, PackId, index, names};
use imager_units::{ByteLen, ByteOffset, Extent, Result};
use std::collections::{HashMap, HashSet, VecDeque};

/// How many blocks are remembered exactly: about 16 MiB.
const MOST_KNOWN: usize = 1 << 17;
/// How many sampled ids of earlier captures are kept: about 48 MiB at the most, 600 GiB of unique blocks.
const MOST_HOOKS: usize = 1 << 19;

/// How many opened frames are kept while their blocks are checked, one after the other: at most 16 MiB.
const MOST_OPENED: usize = 16;

/// Where a block was found.
#[derive(Clone, Copy, Debug)]
pub enum Site {
    /// In a pack that this capture is writing.
    Ours(Place),
    /// In a pack that was there before.
    Stored(Location),
}

/// What is known of a block.
#[derive(Clone, Copy)]
struct Known {
    site: Site,
    /// Whether it was looked at, or is our own.
    is_proven: bool,
}

/// The memory of one capture.
pub struct Dedup<'r> {
    repository: &'r Repository,
    codec: Codec<'r>,
    known: HashMap<BlockId, Known>,
    order: VecDeque<BlockId>,
    hooks: HashMap<BlockId, PackRef>,
    /// Packs whose tables were looked at.
    loaded: HashSet<PackId>,
    /// Packs that are on their way out or damaged: as good as absent.
    absent: HashSet<PackId>,
    present: HashMap<PackId, bool>,
    /// Packs whose frames went elsewhere.
    moved: HashSet<PackId>,
    /// Frames opened last, oldest first.
    opened: VecDeque<((PackId, u32), Vec<u8>)>,
}

impl<'r> Dedup<'r> {
    /// Reads the sparse indexes. The capture's lease must be on the share before: packs that are given up from then
    /// on are kept for it.
    ///
    /// # Errors
    /// `Io`, `Denied` from the share. A damaged index is passed over.
    pub fn load(repository: &'r Repository) -> Result<Self> {
        let mut dedup = Self {
            repository,
            codec: repository.codec(Compression::Fast)?,
            known: HashMap::new(),
            order: VecDeque::new(),
            hooks: HashMap::new(),
            loaded: HashSet::new(),
            absent: HashSet::new(),
            present: HashMap::new(),
            moved: HashSet::new(),
            opened: VecDeque::new(),
        };
        for folder in [names::TRASH, names::DAMAGED] {
            repository.store().list(folder, &mut |entry| {
                dedup.absent.extend(names::pack_of(entry.name.as_str()));
                Ok(())
            })?;
        }
        repository.store().list(names::MOVED, &mut |entry| {
            dedup.moved.extend(names::moved_part(entry.name.as_str()).map(|(pack, _)| pack));
            Ok(())
        })?;
        let mut indexes = Vec::new();
        repository.store().list(names::INDEX, &mut |entry| {
            indexes.push(entry.name);
            Ok(())
        })?;
        for name in indexes {
            if dedup.hooks.len() >= MOST_HOOKS {
                break;
            }
            let read =
                repository.store().get(&name).and_then(|bytes| index::decode(&bytes, &mut dedup.codec));
            match read {
                Ok(hooks) => dedup.hooks.extend(hooks.into_iter().take(MOST_HOOKS - dedup.hooks.len())),
                Err(error) => tracing::warn!("index {name} is passed over: {error}"),
            }
        }
        Ok(dedup)
    }

    /// Whether nothing was on its way out, damaged or moved when the share was looked at: then whatever a manifest names
    /// that is still there after that is there too.
    pub fn is_settled(&self) -> bool {
        self.absent.is_empty() && self.moved.is_empty()
    }

    /// Whether a pack is there with its length and is not on its way out.
    pub fn is_present(&mut self, pack: PackRef) -> bool {
        let (repository, absent) = (self.repository, &self.absent);
        *self.present.entry(pack.id).or_insert_with(|| {
            let len = object(names::pack(pack.id)).and_then(|name| repository.store().len(&name));
            !absent.contains(&pack.id) && matches!(len, Ok(Some(len)) if len.get() == u64::from(pack.len))
        })
    }

    /// Where a block of an earlier capture is, if it may be relied on: in its pack, or where it moved. A frame that was
    /// damaged may have been made anew without this block, so there it is looked at.
    pub fn standing(&mut self, id: BlockId, location: &Location) -> Option<Location> {
        self.stand(location, |dedup, place| dedup.prove(id, place))
    }

    /// The same for a node of a map.
    pub fn standing_node(&mut self, id: NodeId, location: &Location) -> Option<Location> {
        self.stand(location, |dedup, place| {
            let name = object(names::pack(place.pack.id));
            let sealed =
                name.and_then(|name| dedup.repository.store().get_range(&name, place.frame.extent()));
            let raw = sealed.and_then(|sealed| dedup.codec.open(FrameKind::Node, &sealed));
            raw.is_ok_and(|raw| dedup.repository.keys().node_id(&raw) == id)
        })
    }

    fn stand(
        &mut self,
        location: &Location,
        mut is_there: impl FnMut(&mut Self, &Location) -> bool,
    ) -> Option<Location> {
        let (mut next, mut tries) = (vec![*location], 0);
        while let Some(place) = next.pop() {
            tries += 1;
            if self.is_present(place.pack) && (place == *location || is_there(self, &place)) {
                return Some(place);
            }
            if self.moved.contains(&place.pack.id) && tries < MOST_TRIES {
                // What cannot be found out now costs space, nothing else.
                next.extend(self.repository.elsewhere(&place).unwrap_or_default().into_iter().rev());
            }
        }
        None
    }

    /// Where a block is, if that is known.
    pub fn find(&mut self, id: BlockId) -> Option<Site> {
        if !self.known.contains_key(&id) && index::is_hook(id) {
            let pack = self.hooks.get(&id).copied()?;
            if self.loaded.insert(pack.id)
                && self.is_present(pack)
                && let Err(error) = self.load_table(pack)
            {
                tracing::warn!("the table of pack {} is passed over: {error}", pack.id);
            }
        }
        let Known { site, is_proven } = self.known.get(&id).copied()?;
        match site {
            Site::Stored(location) if !is_proven && !self.prove(id, &location) => {
                self.known.remove(&id);
                None
            }
            site => {
                self.known.insert(id, Known { site, is_proven: true });
                Some(site)
            }
        }
    }

    /// Remembers where a block is.
    pub fn learn(&mut self, id: BlockId, site: Site) {
        let is_proven = matches!(site, Site::Ours(_));
        if self.known.insert(id, Known { site, is_proven }).is_none() {
            self.order.push_back(id);
        }
        while self.known.len() > MOST_KNOWN {
            let Some(oldest) = self.order.pop_front() else { break };
            self.known.remove(&oldest);
        }
    }

    fn load_table(&mut self, pack: PackRef) -> Result<()> {
        for (id, location) in table_of(self.repository, pack, &mut self.codec)? {
            self.learn(id, Site::Stored(location));
        }
        Ok(())
    }

    /// Looks whether the block is where a table says it is. Its neighbours are asked for next: the frame is kept.
    fn prove(&mut self, id: BlockId, location: &Location) -> bool {
        let frame = (location.pack.id, location.frame.offset);
        if !self.opened.iter().any(|(opened, _)| *opened == frame) {
            let name = object(names::pack(location.pack.id));
            let sealed =
                name.and_then(|name| self.repository.store().get_range(&name, location.frame.extent()));
            let raw = sealed.and_then(|sealed| self.codec.open(FrameKind::Blocks, &sealed));
            if self.opened.len() >= MOST_OPENED {
                self.opened.pop_front();
            }
            // A frame that does not open holds nothing.
            self.opened.push_back((frame, raw.unwrap_or_default()));
        }
        let raw = self.opened.iter().find(|(opened, _)| *opened == frame).map(|(_, raw)| raw.as_slice());
        let at = usize::try_from(location.at).unwrap_or(usize::MAX);
        let rest = raw.and_then(|raw| raw.get(at..)).unwrap_or_default();
        // Only the last block of a volume is shorter than a block, and it is the last of its frame.
        let block = rest.get(..BLOCK_BYTES).unwrap_or(rest);
        !block.is_empty() && self.repository.keys().block_id(block) == id
    }
}

/// The blocks of a data pack and where they are, from its own table.
///
/// # Errors
/// `Corrupt` when the pack is damaged; `Io`, `NotFound` from the share.
pub fn table_of(
    repository: &Repository,
    pack: PackRef,
    codec: &mut Codec<'_>,
) -> Result<Vec<(BlockId, Location)>> {
    let name = object(names::pack(pack.id))?;
    let end = ByteOffset::new(pack.len.into());
    let start = ByteOffset::new(u64::from(pack.len).saturating_sub(PACK_TRAILER_BYTES as u64));
    let trailer = repository.store().get_range(&name, Extent::between(start, end))?;
    let span = pack::table_span(pack.len, &trailer)?;
    let sealed = repository.store().get_range(&name, span.extent())?;
    let table = Table::decode(pack::PackKind::Data, &codec.open(FrameKind::Table, &sealed)?)?;
    let mut blocks = Vec::new();
    for frame in table.frames {
        let mut at = 0_u32;
        for item in frame.items {
            blocks.push((BlockId(item.id), Location { pack, frame: frame.span, at }));
            at = at.saturating_add(item.len);
        }
    }
    Ok(blocks)
}

/// The bytes of memory that what is remembered may take, for tests of the bound.
pub const fn memory_bound() -> ByteLen {
    ByteLen::new((MOST_KNOWN * 120 + MOST_HOOKS * 90) as u64)
}
