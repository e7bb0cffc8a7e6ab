//! Where the frames of a pack went that was repacked or whose damage was healed.
//!
//! A reader asks here only when a pack is missing or what it holds does not prove itself. Nothing is believed on this
//! document's word alone: frames carry digests, and blocks and nodes the ids by which maps refer to them.

use crate::cursor::{Cursor, narrow};
use crate::frame::{Codec, FrameKind};
use crate::id::PackId;
use crate::pack::{FrameSpan, PackRef};
use imager_units::Result;

/// One frame and where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedFrame {
    /// Where it was in the pack that this document speaks of.
    pub from: FrameSpan,
    /// The pack that holds it now.
    pub pack: PackRef,
    /// Where it is there. Its length differs where the frame was damaged and made anew: what it holds is the same.
    pub to: FrameSpan,
}

/// Where frames of one pack went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The pack they were in.
    pub pack: PackRef,
    /// The frames in the order in which they lay there.
    pub frames: Vec<MovedFrame>,
}

impl Moved {
    /// The object that says so.
    ///
    /// # Errors
    /// As [`Codec::seal`].
    pub fn encode(&self, codec: &mut Codec<'_>) -> Result<Vec<u8>> {
        let mut packs: Vec<PackRef> = Vec::new();
        let mut body = Vec::new();
        for frame in &self.frames {
            let known = packs.iter().position(|pack| *pack == frame.pack);
            let index = known.unwrap_or_else(|| {
                packs.push(frame.pack);
                packs.len().saturating_sub(1)
            });
            let index: u32 = narrow(index, "packs that frames moved to")?;
            for field in [frame.from.offset, frame.from.len, index, frame.to.offset, frame.to.len] {
                body.extend(field.to_le_bytes());
            }
        }
        let mut raw = self.pack.id.0.to_vec();
        raw.extend(self.pack.len.to_le_bytes());
        raw.extend(narrow::<u32>(packs.len(), "packs that frames moved to")?.to_le_bytes());
        for pack in &packs {
            raw.extend(pack.id.0);
            raw.extend(pack.len.to_le_bytes());
        }
        raw.append(&mut body);
        codec.seal(FrameKind::Moved, &raw)
    }

    /// Reads the document of `pack`.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged, of another pack, or contradicts itself.
    pub fn decode(bytes: &[u8], pack: PackId, codec: &mut Codec<'_>) -> Result<Self> {
        let raw = codec.open(FrameKind::Moved, bytes)?;
        let mut cursor = Cursor::new(&raw, "where a pack's frames went");
        let from = PackRef { id: PackId(cursor.array()?), len: cursor.u32()? };
        if from.id != pack {
            return cursor.corrupt("of another pack");
        }
        let packs = (0..cursor.u32()?)
            .map(|_| Ok(PackRef { id: PackId(cursor.array()?), len: cursor.u32()? }))
            .collect::<Result<Vec<_>>>()?;
        let mut moved = Self { pack: from, frames: Vec::new() };
        while cursor.left() > 0 {
            let span = FrameSpan { offset: cursor.u32()?, len: cursor.u32()? };
            let index = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
            let to = FrameSpan { offset: cursor.u32()?, len: cursor.u32()? };
            let Some(pack) = packs.get(index).copied() else {
                return cursor.corrupt("refers to a pack it does not list");
            };
            if !span.is_inside(from) || !to.is_inside(pack) || pack.id == from.id {
                return cursor.corrupt("a frame where none can be");
            }
            if moved.frames.last().is_some_and(|last| last.from >= span) {
                return cursor.corrupt("its frames are not in order");
            }
            moved.frames.push(MovedFrame { from: span, pack, to });
        }
        Ok(moved)
    }

    /// Where the frame at `from` is now.
    pub fn find(&self, from: FrameSpan) -> Option<&MovedFrame> {
        let at = self.frames.binary_search_by(|frame| frame.from.cmp(&from)).ok()?;
        self.frames.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::{Moved, MovedFrame};
    use crate::frame::{Codec, Compression, FrameKind};
    use crate::id::{PackId, RepositoryId};
    use crate::keys::{Encryption, Keys, MasterKey};
    use crate::pack::{FrameSpan, PackRef};
    use proptest::prelude::{any, proptest};

    fn keys(encryption: Encryption) -> Keys {
        let repository = RepositoryId([7; 16]);
        Keys::new(repository, &MasterKey::public(repository), encryption)
    }

    fn moved() -> Moved {
        let pack = |n: u8| PackRef { id: PackId([n; 32]), len: 100_000 };
        let frame = |at: u32, to: u8| MovedFrame {
            from: FrameSpan { offset: 16 + at * 1000, len: 1000 },
            pack: pack(to),
            to: FrameSpan { offset: 16, len: 900 + at },
        };
        Moved { pack: pack(1), frames: vec![frame(0, 2), frame(1, 3), frame(7, 2)] }
    }

    #[test]
    fn it_is_read_back_and_speaks_of_one_pack_alone() {
        for encryption in [Encryption::None, Encryption::XChaCha20Poly1305] {
            let keys = keys(encryption);
            let mut codec = Codec::new(&keys, Compression::Small).unwrap();
            let bytes = moved().encode(&mut codec).unwrap();
            let read = Moved::decode(&bytes, PackId([1; 32]), &mut codec).unwrap();
            assert_eq!(read, moved());
            assert_eq!(read.find(moved().frames[1].from), Some(&moved().frames[1]));
            assert_eq!(read.find(FrameSpan { offset: 16, len: 999 }), None);
            assert!(Moved::decode(&bytes, PackId([2; 32]), &mut codec).is_err());
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(Moved::decode(&damaged, PackId([1; 32]), &mut codec).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_lead_outside_a_pack(
            mut raw in proptest::collection::vec(any::<u8>(), 0..300), count in 0_u8..5,
        ) {
            let keys = keys(Encryption::None);
            let mut codec = Codec::new(&keys, Compression::Fast).unwrap();
            if let Some(head) = raw.get_mut(..40) {
                head[..32].fill(1);
                head[36..40].copy_from_slice(&u32::from(count).to_le_bytes());
            }
            let bytes = codec.seal(FrameKind::Moved, &raw).unwrap();
            if let Ok(moved) = Moved::decode(&bytes, PackId([1; 32]), &mut codec) {
                assert!(moved.frames.iter().all(|f| f.from.is_inside(moved.pack) && f.to.is_inside(f.pack)));
            }
        }
    }
}
