//! Manifests: hostile headers, frames and bodies.
//!
//! The first byte chooses what the rest is: an object (tried as it is and with its digest put right), or the JSON of
//! a body, which a manifest is made of that must be read back as it is.

#![no_main]

use imager_image::frame::{Codec, Compression};
use imager_image::keys::{Encryption, MasterKey};
use imager_image::manifest::{Header, Manifest};
use imager_image::repository::{Description, decode_json};
use imager_image::{Keys, RepositoryId, names};
use libfuzzer_sys::fuzz_target;

fn object(bytes: &[u8], codec: &mut Codec<'_>) {
    let header = Header::decode(bytes);
    if let Ok(manifest) = Manifest::decode(bytes, codec) {
        let header = header.expect("its manifest was decoded");
        assert!(!header.revoked);
        assert_eq!(manifest.header, header);
        assert_eq!(read_back(&manifest, codec), Some(manifest));
    }
}

/// A number with a fraction may change in its last bit when JSON is read, and nothing depends on this one.
fn read_back(manifest: &Manifest, codec: &mut Codec<'_>) -> Option<Manifest> {
    let bytes = manifest.encode(codec).ok()?;
    let mut again = Manifest::decode(&bytes, codec).ok()?;
    again.elapsed_seconds = manifest.elapsed_seconds;
    Some(again)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let repository = RepositoryId([7; 16]);
    let encryption = if first & 2 == 0 { Encryption::None } else { Encryption::XChaCha20Poly1305 };
    let keys = Keys::new(repository, &MasterKey::public(repository), encryption);
    let mut codec = Codec::new(&keys, Compression::Fast).expect("memory for a codec");
    if first & 1 == 0 {
        object(rest, &mut codec);
        let mut mended = rest.to_vec();
        mended.extend_from_slice(blake3::hash(rest).as_bytes());
        object(&mended, &mut codec);
        let _ = Description::decode(rest);
        if let Some((machine, time, id)) = std::str::from_utf8(rest).ok().and_then(names::manifest_parts) {
            assert_eq!(names::manifest(machine, time, id).as_bytes(), rest);
        }
    } else if let Ok(manifest) = decode_json::<Manifest>(rest, "a body") {
        let again = read_back(&manifest, &mut codec);
        // What decoding refuses: a revocation, a header that is too long, a root outside its pack, no mask unit.
        assert!(again.is_none_or(|again| again == manifest));
    }
});
