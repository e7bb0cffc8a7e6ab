//! Sparse indexes: what decodes survives being encoded again.

#![no_main]

use imager_image::frame::{Codec, Compression, FrameKind};
use imager_image::index::{self, Hook};
use imager_image::keys::{Encryption, MasterKey};
use imager_image::{Keys, RepositoryId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let repository = RepositoryId([7; 16]);
    let keys = Keys::new(repository, &MasterKey::public(repository), Encryption::None);
    let mut codec = Codec::new(&keys, Compression::Fast).expect("memory for a codec");
    assert!(index::decode(data, &mut codec).map_or(true, |hooks| hooks.len() <= 64 << 20));
    let frame = codec.seal(FrameKind::Index, data).expect("inputs are short");
    let Ok(hooks) = index::decode(&frame, &mut codec) else { return };
    assert!(hooks.len() * 36 <= data.len());
    assert!(hooks.capacity() * size_of::<Hook>() <= 8 * data.len().max(64));
    let again = index::encode(&hooks, &mut codec).expect("as large as before at most");
    assert_eq!(index::decode(&again, &mut codec).expect("just encoded"), hooks);
});
