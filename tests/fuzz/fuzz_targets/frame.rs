//! Frames: hostile bytes open to an error or to what seals back to the same content.
//!
//! The fuzzer cannot forge digests, so each input is also tried with its digest put right: first byte the kind, then
//! a frame without its digest.

#![no_main]

use imager_image::frame::{self, Codec, Compression, FRAME_HEADER_BYTES, FrameKind};
use imager_image::keys::{Encryption, MasterKey};
use imager_image::{Keys, RepositoryId};
use libfuzzer_sys::fuzz_target;

const KINDS: [FrameKind; 5] =
    [FrameKind::Blocks, FrameKind::Node, FrameKind::Table, FrameKind::Manifest, FrameKind::Index];
/// What a frame of each kind may open to.
const MOST: [usize; 5] = [1 << 20, 1 << 20, 64 << 20, 64 << 20, 64 << 20];

/// The frame with magic, length and digest as they should be, so that the rest is looked at.
fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = bytes.to_vec();
    let stored = u32::try_from(frame.len().checked_sub(FRAME_HEADER_BYTES)?).ok()?;
    frame[..8].copy_from_slice(&frame::FRAME_MAGIC);
    frame[16..20].copy_from_slice(&stored.to_le_bytes());
    let mut digest = blake3::Hasher::new();
    digest.update(&frame[..48]).update(&frame[80..]);
    frame[48..80].copy_from_slice(digest.finalize().as_bytes());
    Some(frame)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let which = usize::from(first & 0x7f) % KINDS.len();
    let (kind, most) = (KINDS[which], MOST[which]);
    let encryption = if first & 0x80 == 0 { Encryption::None } else { Encryption::XChaCha20Poly1305 };
    let repository = RepositoryId([7; 16]);
    let keys = Keys::new(repository, &MasterKey::public(repository), encryption);
    let mut codec = Codec::new(&keys, Compression::Fast).expect("memory for a codec");
    let _ = frame::total_len(rest);
    for frame in [Some(rest.to_vec()), mended(rest)].into_iter().flatten() {
        let checked = frame::check(kind, &frame).is_ok();
        let Ok(raw) = codec.open(kind, &frame) else { continue };
        assert!(checked && raw.len() <= most);
        assert_eq!(frame::total_len(&frame).expect("it was opened"), frame.len());
        let again = codec.seal(kind, &raw).expect("it fits");
        assert_eq!(codec.open(kind, &again).expect("just sealed"), raw);
    }
    // What is sealed comes back, whatever it is.
    let sealed = codec.seal(kind, rest).expect("inputs are short");
    assert_eq!(codec.open(kind, &sealed).expect("just sealed"), rest);
});
