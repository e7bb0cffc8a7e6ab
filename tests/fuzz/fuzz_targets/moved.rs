//! Where the frames of a pack went: hostile documents decode to what leads nowhere but into packs, or to an error.
//!
//! Tried as an object, and as what a sealed one holds, which the fuzzer could not seal.

#![no_main]

use imager_image::frame::{Codec, Compression, FrameKind};
use imager_image::keys::{Encryption, MasterKey};
use imager_image::moved::{Moved, MovedFrame};
use imager_image::{Keys, PackId, RepositoryId};
use libfuzzer_sys::fuzz_target;

/// A frame, as it is written: from, which pack, to.
const FRAME_BYTES: usize = 20;

fuzz_target!(|data: &[u8]| {
    let repository = RepositoryId([7; 16]);
    let keys = Keys::new(repository, &MasterKey::public(repository), Encryption::None);
    let mut codec = Codec::new(&keys, Compression::Fast).expect("memory for a codec");
    let Some(id) = data.first_chunk() else { return };
    let _ = Moved::decode(data, PackId(*id), &mut codec);
    let sealed = codec.seal(FrameKind::Moved, data).expect("inputs are short");
    let Ok(moved) = Moved::decode(&sealed, PackId(*id), &mut codec) else { return };
    assert_eq!(moved.pack.id.0, *id);
    assert!(moved.frames.len() * FRAME_BYTES <= data.len());
    assert!(moved.frames.capacity() * size_of::<MovedFrame>() <= 16 * data.len());
    assert!(moved.frames.is_sorted_by(|a, b| a.from < b.from));
    for frame in &moved.frames {
        assert!(frame.from.is_inside(moved.pack) && frame.to.is_inside(frame.pack));
        assert_ne!(frame.pack.id, moved.pack.id, "it leads to itself");
        assert_eq!(moved.find(frame.from), Some(frame));
    }
    let again = moved.encode(&mut codec).expect("as large as before at most");
    assert_eq!(Moved::decode(&again, moved.pack.id, &mut codec).expect("just encoded"), moved);
    let other = PackId(blake3::hash(data).into());
    assert!(Moved::decode(&again, other, &mut codec).is_err(), "another pack's");
});
