//! What the block maps of a capture say, for any number of readers at once.

use super::cache::Cache;
use crate::map::{FANOUT, MapReader, Piece};
use crate::repository::Repository;
use imager_image::NODE_FANOUT;
use imager_image::manifest::Map;
use imager_image::node::Entry;
use imager_units::{Error, ErrorKind, Result};
use std::sync::{Mutex, PoisonError};

const LEAVES_BYTES: usize = 8 << 20;
const LEAF_BYTES: usize = NODE_FANOUT * size_of::<Entry>();
/// How many readers, each with the nodes it saw last, are kept for the next who needs one.
const IDLE_READERS: usize = 8;

/// The maps, by number.
pub(super) struct Maps<'r> {
    repository: &'r Repository,
    maps: Vec<Map>,
    idle: Mutex<Vec<(usize, MapReader<'r>)>>,
    pieces: Cache<(usize, u64), (Piece, u64)>,
}

impl<'r> Maps<'r> {
    pub(super) fn new(repository: &'r Repository, maps: Vec<Map>) -> Self {
        Self { repository, maps, idle: Mutex::default(), pieces: Cache::new(LEAVES_BYTES) }
    }

    /// Map `number`.
    pub(super) fn get(&self, number: usize) -> Result<&Map> {
        self.maps.get(number).ok_or_else(|| Error::new(ErrorKind::Invalid, "a map that is not there"))
    }

    /// The piece of map `number` that holds block `index`, and the piece's first block.
    ///
    /// # Errors
    /// `Corrupt`, `NotFound`, `Io` when a node cannot be read.
    pub(super) fn piece(&self, number: usize, index: u64) -> Result<(Piece, u64)> {
        self.pieces.get(&(number, index / FANOUT), || {
            let mut reader = self.reader(number)?;
            let found = reader.at(index);
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((number, reader));
            if idle.len() > IDLE_READERS {
                idle.remove(0);
            }
            let (piece, within) = found?;
            let weight = if matches!(piece, Piece::Leaf(_)) { LEAF_BYTES } else { 64 };
            Ok(((piece, index.saturating_sub(within as u64)), weight))
        })
    }

    fn reader(&self, number: usize) -> Result<MapReader<'r>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.iter().rposition(|(held, _)| *held == number) {
            Some(at) => Ok(idle.remove(at).1),
            None => {
                drop(idle);
                MapReader::new(self.repository.frames()?, self.get(number)?)
            }
        }
    }
}
