//! The content of blocks for any number of readers at once.
//!
//! Packs are fetched in aligned chunks of a mebibyte, which neighbours in time share whichever of them came first; a
//! frame is opened once while it is remembered, and each block of it is checked against its id once.

use super::cache::Cache;
use crate::repository::{Repository, object};
use imager_image::frame::FrameKind;
use imager_image::node::Location;
use imager_image::pack::FrameSpan;
use imager_image::{BlockId, Codec, Compression, PackId, names};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, Result};
use std::sync::{Arc, Mutex, PoisonError};

const CHUNK: ByteLen = ByteLen::new(1 << 20);
const CHUNKS_BYTES: usize = 8 << 20;
const FRAMES_BYTES: usize = 16 << 20;
/// How many codecs are kept for the next who needs one.
const IDLE_CODECS: usize = 8;

/// An opened frame and which blocks of it are known to be what they should.
struct Frame {
    raw: Vec<u8>,
    checked: Mutex<Vec<(u32, BlockId)>>,
}

/// Reads blocks of one repository.
pub(super) struct Contents<'r> {
    repository: &'r Repository,
    codecs: Mutex<Vec<Codec<'r>>>,
    chunks: Cache<(PackId, u64), Arc<Vec<u8>>>,
    frames: Cache<(PackId, FrameSpan), Arc<Frame>>,
}

impl<'r> Contents<'r> {
    pub(super) fn new(repository: &'r Repository) -> Self {
        let (chunks, frames) = (Cache::new(CHUNKS_BYTES), Cache::new(FRAMES_BYTES));
        Self { repository, codecs: Mutex::default(), chunks, frames }
    }

    /// Copies the bytes of a block of `block_len` bytes from `from` on into `buf`.
    ///
    /// # Errors
    /// `Corrupt` when they are not what `id` says, `NotFound` when the pack is gone; `Io`, `Denied` from the share.
    pub(super) fn read(
        &self,
        id: BlockId,
        location: &Location,
        block_len: usize,
        from: usize,
        buf: &mut [u8],
    ) -> Result<()> {
        let frame = self.frame(location)?;
        let at = usize::try_from(location.at).unwrap_or(usize::MAX);
        let block = frame.raw.get(at..).and_then(|rest| rest.get(..block_len));
        let say = || {
            format!("the block at {} in the frame at {} of {}", at, location.frame.offset, location.pack.id)
        };
        let block = block.ok_or_else(|| Error::corrupt(format!("{} is outside it", say())))?;
        let mut checked = frame.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if !checked.contains(&(location.at, id)) {
            if self.repository.keys().block_id(block) != id {
                return Err(Error::corrupt(format!("{} is another than the map refers to", say())));
            }
            checked.push((location.at, id));
        }
        drop(checked);
        let part = block.get(from..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.ok_or_else(|| Error::corrupt(format!("{} is too short", say())))?);
        Ok(())
    }

    fn frame(&self, location: &Location) -> Result<Arc<Frame>> {
        self.frames.get(&(location.pack.id, location.frame), || {
            let raw = self.repository.follow(location, |place| {
                let sealed = self.sealed(place)?;
                let say = || format!("pack {} at {}", place.pack.id, place.frame.extent());
                self.with_codec(|codec| codec.open(FrameKind::Blocks, &sealed)).context(say)
            })?;
            let weight = raw.len();
            Ok((Arc::new(Frame { raw, checked: Mutex::default() }), weight))
        })
    }

    /// The frame as it lies in its pack.
    fn sealed(&self, location: &Location) -> Result<Vec<u8>> {
        let wanted = location.frame.extent();
        let mut bytes = Vec::with_capacity(wanted.len().to_usize().unwrap_or(0));
        let mut at = wanted.start();
        while at < wanted.end() {
            let start = at.align_down(CHUNK);
            let chunk = Extent::between(start, start.saturating_add(CHUNK).min(pack_end(location)));
            let part = Extent::between(at, chunk.end().min(wanted.end()));
            match self.chunk(location, chunk) {
                Ok(held) => {
                    let from = at.saturating_since(start).to_usize().unwrap_or(usize::MAX);
                    let len = part.len().to_usize().unwrap_or(usize::MAX);
                    let held = held.get(from..).and_then(|rest| rest.get(..len));
                    bytes.extend_from_slice(held.ok_or_else(|| Error::corrupt("a frame outside its pack"))?);
                }
                // A pack that was cut short may still hold this frame.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    return self
                        .repository
                        .store()
                        .get_range(&object(names::pack(location.pack.id))?, wanted);
                }
                Err(error) => return Err(error),
            }
            at = part.end();
        }
        Ok(bytes)
    }

    fn chunk(&self, location: &Location, chunk: Extent) -> Result<Arc<Vec<u8>>> {
        let pack = location.pack.id;
        self.chunks.get(&(pack, chunk.start().get()), || {
            let bytes = self.repository.store().get_range(&object(names::pack(pack))?, chunk)?;
            let weight = bytes.len();
            Ok((Arc::new(bytes), weight))
        })
    }

    fn with_codec<T>(&self, work: impl FnOnce(&mut Codec<'r>) -> Result<T>) -> Result<T> {
        let idle = || self.codecs.lock().unwrap_or_else(PoisonError::into_inner);
        let held = idle().pop();
        let mut codec = match held {
            Some(codec) => codec,
            None => self.repository.codec(Compression::Fast)?,
        };
        let result = work(&mut codec);
        let mut idle = idle();
        if idle.len() < IDLE_CODECS {
            idle.push(codec);
        }
        result
    }
}

fn pack_end(location: &Location) -> ByteOffset {
    ByteOffset::new(location.pack.len.into())
}
