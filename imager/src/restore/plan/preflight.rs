//! Whether everything that a plan needs of the repository is there.

use crate::map::MapReader;
use crate::repository::{Repository, object};
use crate::restore::work::content_bytes;
use imager_image::manifest::Map;
use imager_image::names;
use imager_image::node::Content;
use imager_image::pack::PackRef;
use imager_units::{ByteLen, Error, ErrorKind, Result};
use std::collections::HashSet;

/// Reads a whole map and checks that every pack it refers to is there; says how many bytes have content.
pub(super) fn preflight(repository: &Repository, map: &Map) -> Result<ByteLen> {
    read_whole_map(repository, map).map_err(|error| match error.kind() {
        // A pack of the map that is gone is damage, not a name that somebody mistyped.
        ErrorKind::NotFound => Error::with_source(ErrorKind::Corrupt, "a pack of its map is missing", error),
        _ => error,
    })
}

fn read_whole_map(repository: &Repository, map: &Map) -> Result<ByteLen> {
    let mut packs: HashSet<PackRef> = HashSet::new();
    let mut reader = MapReader::new(repository.frames()?, map)?;
    let total = content_bytes(&mut reader)?;
    let mut reader = MapReader::new(repository.frames()?, map)?;
    for block in reader.blocks_with_content() {
        let (_, entry) = block?;
        if let Content::Data(_, location) = entry.content {
            packs.insert(location.pack);
        }
    }
    let mut moved = HashSet::new();
    for pack in packs {
        let len = repository.store().len(&object(names::pack(pack.id))?)?;
        if len != Some(ByteLen::new(pack.len.into())) {
            if repository.store().len(&object(names::moved(pack.id, 0))?)?.is_none() {
                let how = if len.is_none() { "is missing" } else { "has the wrong length" };
                return Err(Error::corrupt(format!("pack {} {how}; nothing was written", pack.id)));
            }
            moved.insert(pack);
        }
    }
    if !moved.is_empty() {
        check_moved(repository, map, &moved)?;
    }
    Ok(total)
}

/// Checks that what is needed of these packs is where it moved.
fn check_moved(repository: &Repository, map: &Map, moved: &HashSet<PackRef>) -> Result<()> {
    let mut reader = MapReader::new(repository.frames()?, map)?;
    let mut last = None;
    for block in reader.blocks_with_content() {
        let Content::Data(_, location) = block?.1.content else { continue };
        let frame = (location.pack, location.frame);
        if moved.contains(&location.pack) && last != Some(frame) {
            last = Some(frame);
            if repository.locate(&location)?.is_none() {
                let what =
                    format!("pack {} is missing, and some of what moved out of it too", location.pack.id);
                return Err(Error::corrupt(format!("{what}; nothing was written")));
            }
        }
    }
    Ok(())
}
