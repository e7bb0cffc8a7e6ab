//! Finding blocks that the repository already holds.
//!
//! First among those of this capture and of packs whose tables were loaded, then through the sparse index: a hit there
//! loads that pack's table, since blocks that came together come again together. Memory is bounded; what is forgotten
//! or missed costs space, never correctness. A block of a pack that this capture did not write and its parent does not
//! name is fetched and checked once before it is relied on.

use crate::map::Place;
use crate::repository::{Repository, object};
use imager_image::frame::FrameKind;
use imager_image::node::Location;
use imager_image::pack::{self, PACK_TRAILER_BYTES, PackRef, Table};
use imager_image::{BlockId, Codec, Compression, PackId, index, names};
use imager_units::{ByteLen, ByteOffset, Extent, Result};
use std::collections::{HashMap, HashSet, VecDeque};

/// How many blocks are remembered exactly: about 16 MiB.
const MOST_KNOWN: usize = 1 << 17;
/// How many sampled ids of earlier captures are kept: about 48 MiB at the most, 600 GiB of unique blocks.
const MOST_HOOKS: usize = 1 << 19;

/// Where a block was found.
#[derive(Clone, Copy, Debug)]
pub enum Site {
    /// In a pack that this capture is writing.
    Ours(Place),
    /// In a pack that was there before.
    Stored(Location),
}

/// The memory of one capture.
pub struct Dedup<'r> {
    repository: &'r Repository,
    codec: Codec<'r>,
    known: HashMap<BlockId, Site>,
    order: VecDeque<BlockId>,
    hooks: HashMap<BlockId, PackRef>,
    /// Packs whose tables were looked at.
    loaded: HashSet<PackId>,
    /// Packs that are on their way out or damaged: as good as absent.
    absent: HashSet<PackId>,
    present: HashMap<PackId, bool>,
    checked: HashSet<(PackId, u32)>,
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
            checked: HashSet::new(),
        };
        for folder in [names::TRASH, names::DAMAGED] {
            repository.store().list(folder, &mut |entry| {
                dedup.absent.extend(names::pack_of(entry.name.as_str()));
                Ok(())
            })?;
        }
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

    /// Whether a pack is there with its length and is not on its way out.
    pub fn is_present(&mut self, pack: PackRef) -> bool {
        let (repository, absent) = (self.repository, &self.absent);
        *self.present.entry(pack.id).or_insert_with(|| {
            let len = object(names::pack(pack.id)).and_then(|name| repository.store().len(&name));
            !absent.contains(&pack.id) && matches!(len, Ok(Some(len)) if len.get() == u64::from(pack.len))
        })
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
        match self.known.get(&id).copied()? {
            Site::Stored(location) if !self.is_sound(id, &location) => None,
            site => Some(site),
        }
    }

    /// Remembers where a block is.
    pub fn learn(&mut self, id: BlockId, site: Site) {
        if self.known.insert(id, site).is_none() {
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

    /// Opens the frame once and checks every block of it that is known there.
    fn is_sound(&mut self, id: BlockId, location: &Location) -> bool {
        if self.checked.contains(&(location.pack.id, location.frame.offset)) {
            return true;
        }
        let name = object(names::pack(location.pack.id));
        let frame = name.and_then(|name| self.repository.store().get_range(&name, location.frame.extent()));
        let raw = frame.and_then(|frame| self.codec.open(FrameKind::Blocks, &frame)).unwrap_or_default();
        let blocks = self.known.iter().filter_map(|(known, site)| match site {
            Site::Stored(at) if at.pack == location.pack && at.frame == location.frame => {
                Some((*known, at.at))
            }
            _ => None,
        });
        let blocks: Vec<_> = blocks.collect();
        let starts: Vec<_> = blocks.iter().map(|(_, at)| *at).collect();
        let keys = self.repository.keys();
        let sound = |&(id, at): &(BlockId, u32)| {
            // A block ends where the next one starts.
            let end = starts.iter().filter(|start| **start > at).min().map_or(raw.len(), |end| *end as usize);
            raw.get(at as usize..end).is_some_and(|bytes| keys.block_id(bytes) == id)
        };
        let bad: Vec<_> = blocks.iter().filter(|block| !sound(block)).map(|(id, _)| *id).collect();
        for id in &bad {
            self.known.remove(id);
        }
        if bad.is_empty() {
            self.checked.insert((location.pack.id, location.frame.offset));
        }
        !bad.contains(&id)
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
