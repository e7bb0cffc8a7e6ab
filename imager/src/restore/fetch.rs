//! Getting the content of blocks: frames that lie together are fetched together, each is opened once.

use super::work::Block;
use crate::repository::FrameReader;
use imager_image::PackId;
use imager_image::frame::FrameKind;
use imager_image::node::{Content, Location};
use imager_image::pack::FrameSpan;
use imager_units::{ByteLen, ErrorKind, Extent, Result};
use std::collections::HashMap;

/// Frames this close in a pack are fetched in one call.
const GAP: ByteLen = ByteLen::new(64 << 10);
/// No call asks for more than this.
const MOST: ByteLen = ByteLen::new(4 << 20);

/// Opened frames. A damaged one is absent.
#[derive(Default)]
pub(super) struct Fetched {
    frames: HashMap<(PackId, FrameSpan), Vec<u8>>,
}

impl Fetched {
    /// The content at `location`, `len` bytes of it.
    pub(super) fn block(&self, location: &Location, len: usize) -> Option<&[u8]> {
        let frame = self.frames.get(&(location.pack.id, location.frame))?;
        let at = usize::try_from(location.at).ok()?;
        frame.get(at..at.checked_add(len)?)
    }
}

/// Fetches and opens every frame that the blocks refer to.
///
/// # Errors
/// `Io`, `Denied` from the share. A frame that is damaged or gone is left out.
pub(super) fn fetch(frames: &mut FrameReader<'_>, blocks: &[Block]) -> Result<Fetched> {
    let mut wanted: Vec<Location> = blocks
        .iter()
        .filter_map(|block| match block.entry.content {
            Content::Data(_, location) => Some(Location { at: 0, ..location }),
            _ => None,
        })
        .collect();
    wanted.sort_by_key(|location| (location.pack.id, location.frame));
    wanted.dedup();
    let mut fetched = Fetched::default();
    for group in wanted.chunk_by(is_near).flat_map(|near| near.chunks(16)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let span = Extent::between(first.frame.extent().start(), last.frame.extent().end());
        if span.len() <= MOST {
            tolerate(frames.fetch(first.pack.id, span))?;
        }
        for location in group {
            if let Some(raw) = tolerate(frames.open(FrameKind::Blocks, location))? {
                fetched.frames.insert((location.pack.id, location.frame), raw);
            }
        }
    }
    Ok(fetched)
}

fn is_near(a: &Location, b: &Location) -> bool {
    let gap = b.frame.extent().start().saturating_since(a.frame.extent().end());
    a.pack.id == b.pack.id && gap <= GAP
}

/// Damage is the caller's to report, block by block; a share that fails is an error.
fn tolerate<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
            tracing::debug!("{error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
