//! Finding what a prune moved: where the frames of packs are that were repacked, healed, or are gone.
//!
//! Only whoever misses something asks here. A frame may have moved more than once, and to several places (two prunes
//! at once, one of them killed): each is tried, and the whole search is bounded, because a share may lie.

use crate::repository::{Repository, object};
use imager_image::moved::Moved;
use imager_image::node::Location;
use imager_image::{Compression, PackId, names};
use imager_units::{ByteLen, Error, ErrorKind, Result};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many packs' documents are remembered: about 20 KiB each.
const MOST_HELD: usize = 256;
/// How many parts of a document are asked for.
const MOST_PARTS: u32 = 1000;
/// How many places are tried for one frame.
pub const MOST_TRIES: u32 = 64;

/// What is remembered of moves.
#[derive(Default)]
pub(crate) struct Moves {
    held: Mutex<State>,
}

#[derive(Default)]
struct State {
    documents: HashMap<PackId, Arc<Vec<Moved>>>,
    /// Packs that were found missing while their frames were found elsewhere.
    gone: HashSet<PackId>,
}

impl Moves {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pack need not be looked for any more.
    pub(crate) fn is_gone(&self, pack: PackId) -> bool {
        self.lock().gone.contains(&pack)
    }

    pub(crate) fn note_gone(&self, pack: PackId) {
        let gone = &mut self.lock().gone;
        if gone.len() < MOST_HELD * 16 {
            gone.insert(pack);
        }
    }
}

/// The documents of one pack, in the order in which they were put.
///
/// # Errors
/// `Io`, `Denied` from the share. What is damaged is passed over.
pub fn documents(repository: &Repository, pack: PackId) -> Result<Vec<Moved>> {
    let mut codec = repository.codec(Compression::Fast)?;
    let mut found = Vec::new();
    for part in 0..MOST_PARTS {
        let name = names::moved(pack, part);
        let read = repository.store().get(&object(name.clone())?);
        match read.and_then(|bytes| Moved::decode(&bytes, pack, &mut codec)) {
            Ok(moved) => found.push(moved),
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                tracing::warn!("{name} is passed over: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

impl Repository {
    /// Where else the frame at `location` may be, nearest first; nowhere when it never moved.
    ///
    /// # Errors
    /// As [`documents`].
    pub fn elsewhere(&self, location: &Location) -> Result<Vec<Location>> {
        let pack = location.pack.id;
        let held = self.moves().lock().documents.get(&pack).cloned();
        let found = held.map(|documents| places(&documents, location)).unwrap_or_default();
        if !found.is_empty() {
            return Ok(found);
        }
        let documents = documents(self, pack)?;
        let found = places(&documents, location);
        if !found.is_empty() {
            let held = &mut self.moves().lock().documents;
            if held.len() >= MOST_HELD {
                held.clear();
            }
            held.insert(pack, Arc::new(documents));
        }
        Ok(found)
    }

    /// Where the frame at `location` lies now, as far as lengths of packs tell; `None` when nowhere.
    ///
    /// # Errors
    /// `Io`, `Denied` from the share.
    pub fn locate(&self, location: &Location) -> Result<Option<Location>> {
        let (mut next, mut tries) = (vec![*location], 0);
        while let Some(place) = next.pop() {
            tries += 1;
            let len = self.store().len(&object(names::pack(place.pack.id))?)?;
            if len == Some(ByteLen::new(place.pack.len.into())) {
                return Ok(Some(place));
            }
            if tries < MOST_TRIES {
                next.extend(self.elsewhere(&place)?.into_iter().rev());
            }
        }
        Ok(None)
    }

    /// Tries `open` at the place and, where that finds damage or nothing, wherever the frame moved.
    ///
    /// # Errors
    /// What `open` said of the place itself, when no other does either.
    pub(crate) fn follow<T>(
        &self,
        location: &Location,
        mut open: impl FnMut(&Location) -> Result<T>,
    ) -> Result<T> {
        let skipped = self.moves().is_gone(location.pack.id);
        let first = if skipped { Err(missing(location.pack.id)) } else { open(location) };
        let Err(error) = first else { return first };
        if !is_lost(&error) {
            return Err(error);
        }
        let (mut next, mut tries) = (self.elsewhere(location)?, 0);
        next.reverse();
        while let Some(place) = next.pop() {
            match open(&place) {
                Err(error) if is_lost(&error) => {}
                found => {
                    if found.is_ok() && error.kind() == ErrorKind::NotFound {
                        self.moves().note_gone(location.pack.id);
                    }
                    return found;
                }
            }
            tries += 1;
            if tries < MOST_TRIES {
                next.extend(self.elsewhere(&place)?.into_iter().rev());
            }
        }
        if skipped { open(location) } else { Err(error) }
    }
}

fn missing(pack: PackId) -> Error {
    Error::new(ErrorKind::NotFound, format!("pack {pack} is not there"))
}

fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

fn places(documents: &[Moved], location: &Location) -> Vec<Location> {
    let found = documents.iter().filter(|moved| moved.pack == location.pack);
    let found = found.filter_map(|moved| moved.find(location.frame));
    found.map(|frame| Location { pack: frame.pack, frame: frame.to, at: location.at }).collect()
}
