//! Frames: a run of bytes compressed, sealed and given a digest.
//!
//! Compressed first, then encrypted; incompressible bytes are kept as they are. The digest covers the stored bytes,
//! so damage is noticed before anything is decrypted or decompressed, and without a key.

use crate::cursor::{Cursor, narrow};
use crate::id::fill_random;
use crate::keys::Keys;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{Tag, XNonce};
use imager_units::{Error, ErrorKind, Result};
use zstd::zstd_safe::CParameter;

/// First 8 bytes of BLAKE3("halfhour frame, format 1").
pub const FRAME_MAGIC: [u8; 8] = [0xdb, 0xc4, 0x14, 0x13, 0x2e, 0x82, 0x46, 0x6d];
/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 80;
/// What a frame holds at most, before compression: 1 MiB, but for a pack's table and a manifest's body.
pub const FRAME_MOST_RAW_BYTES: usize = 1 << 20;
/// No frame of blocks and no node is longer than this, header and all: what does not shrink is stored as it is.
pub const FRAME_MOST_BYTES: usize = FRAME_HEADER_BYTES + FRAME_MOST_RAW_BYTES + TAG_BYTES;
/// The most any frame may hold (a pack's table, a manifest's body, an index): bounds what a reader allocates.
const MOST_RAW_BYTES: usize = 64 << 20;
const TAG_BYTES: usize = 16;
const DIGEST_AT: usize = 48;

/// What a frame holds; part of the associated data, so one cannot stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Consecutive blocks.
    Blocks = 1,
    /// One node of a block map.
    Node = 2,
    /// The table of a pack.
    Table = 3,
    /// The body of a manifest.
    Manifest = 4,
    /// A sparse index.
    Index = 5,
    /// Where the frames of a pack went.
    Moved = 6,
    /// The report of a restore.
    Report = 7,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Blocks => 1,
            Self::Node => 2,
            Self::Table => 3,
            Self::Manifest => 4,
            Self::Index => 5,
            Self::Moved => 6,
            Self::Report => 7,
        }
    }

    const fn most_raw_bytes(self) -> usize {
        match self {
            Self::Blocks | Self::Node | Self::Report => FRAME_MOST_RAW_BYTES,
            _ => MOST_RAW_BYTES,
        }
    }
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Quick: the disk and the network decide the speed.
    #[default]
    Fast,
    /// Smaller, for slow shares.
    Small,
}

impl Compression {
    /// zstd's level, and the logarithm of its table's entries where that is not the level's own.
    ///
    /// Level 1 with eight times the table it would take for a frame: a fifth less work than level 2 for 2 % more bytes.
    const fn parameters(self) -> (i32, Option<u32>) {
        match self {
            Self::Fast => (1, Some(16)),
            Self::Small => (3, None),
        }
    }

    /// How much of a volume goes into one frame: more compresses better, less is read for one block.
    pub const fn frame_bytes(self) -> usize {
        match self {
            Self::Fast => 256 << 10,
            Self::Small => 512 << 10,
        }
    }
}

/// Seals and opens frames; holds the compressor's working memory, so each thread has its own.
pub struct Codec<'k> {
    keys: &'k Keys,
    compressor: zstd::bulk::Compressor<'static>,
    /// Where it writes.
    room: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

struct Header {
    codec: u8,
    cipher: u8,
    raw_len: usize,
    nonce: [u8; 24],
}

const STORED: u8 = 0;
const ZSTD: u8 = 1;
const PLAIN: u8 = 0;
const XCHACHA20_POLY1305: u8 = 1;

impl<'k> Codec<'k> {
    /// A codec for one thread.
    ///
    /// # Errors
    /// `OutOfSpace` when there is no memory for the compressor.
    pub fn new(keys: &'k Keys, compression: Compression) -> Result<Self> {
        let no_memory = |e| Error::with_source(ErrorKind::OutOfSpace, "preparing zstd", e);
        let (level, hash_log) = compression.parameters();
        let mut compressor = zstd::bulk::Compressor::new(level).map_err(no_memory)?;
        if let Some(log) = hash_log {
            compressor.set_parameter(CParameter::HashLog(log)).map_err(no_memory)?;
        }
        Ok(Self {
            keys,
            compressor,
            room: Vec::new(),
            decompressor: zstd::bulk::Decompressor::new().map_err(no_memory)?,
        })
    }

    /// The keys it seals with.
    pub fn keys(&self) -> &'k Keys {
        self.keys
    }

    /// The frame that holds `raw`, header and all.
    ///
    /// # Errors
    /// `Invalid` when `raw` is longer than a frame may hold; `Io` without random bytes.
    pub fn seal(&mut self, kind: FrameKind, raw: &[u8]) -> Result<Vec<u8>> {
        if raw.len() > kind.most_raw_bytes() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{} bytes are too many for a frame", raw.len()),
            ));
        }
        let (codec, mut frame) = self.compress(raw);
        let mut nonce = [0; 24];
        let cipher = self.encrypt(kind, &mut nonce, &mut frame)?;
        let stored: u32 = narrow(frame.len().saturating_sub(FRAME_HEADER_BYTES), "a frame's payload")?;
        let raw_len: u32 = narrow(raw.len(), "a frame's content")?;
        let fields = FRAME_MAGIC
            .into_iter()
            .chain([kind.code(), codec, cipher, 0])
            .chain(raw_len.to_le_bytes())
            .chain(stored.to_le_bytes())
            .chain([0; 4])
            .chain(nonce);
        frame.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        let digest = digest(&frame);
        if let Some(place) = frame.get_mut(DIGEST_AT..FRAME_HEADER_BYTES) {
            place.copy_from_slice(&digest);
        }
        Ok(frame)
    }

    /// Room for a header, then `raw`, compressed if that saves at least a 64th. No longer than it is: many wait in memory.
    fn compress(&mut self, raw: &[u8]) -> (u8, Vec<u8>) {
        let worth = raw.len().saturating_sub(raw.len() / 64);
        self.room.clear();
        self.room.reserve(worth);
        // A buffer that is too small is an error of zstd's: exactly the case in which the bytes are kept as they are.
        let done = self.compressor.compress_to_buffer(raw, &mut self.room);
        let (codec, payload) = match done {
            Ok(len) if len <= worth => (ZSTD, self.room.as_slice()),
            _ => (STORED, raw),
        };
        let around = FRAME_HEADER_BYTES.saturating_add(TAG_BYTES);
        let mut frame = Vec::with_capacity(payload.len().saturating_add(around));
        frame.resize(FRAME_HEADER_BYTES, 0);
        frame.extend_from_slice(payload);
        (codec, frame)
    }

    fn encrypt(&self, kind: FrameKind, nonce: &mut [u8; 24], frame: &mut Vec<u8>) -> Result<u8> {
        // A pack's table has one even where nothing is encrypted: it makes the pack's name one that was never used, so
        // that a mark on a name (on its way out, damaged) never speaks of bytes that came later.
        if self.keys.sealing().is_some() || kind == FrameKind::Table {
            fill_random(nonce)?;
        }
        let Some(sealing) = self.keys.sealing() else {
            return Ok(PLAIN);
        };
        let cipher = if kind == FrameKind::Manifest { &sealing.manifests } else { &sealing.frames };
        let payload = frame.get_mut(FRAME_HEADER_BYTES..).unwrap_or_default();
        let data = self.keys.associated_data(kind.code());
        let tag = cipher
            .encrypt_inout_detached(&XNonce::from(*nonce), &data, payload.into())
            .map_err(|_| Error::new(ErrorKind::Invalid, "encrypting a frame"))?;
        frame.extend_from_slice(&tag);
        Ok(XCHACHA20_POLY1305)
    }

    /// What the frame holds.
    ///
    /// # Errors
    /// `Corrupt` when a byte of it is wrong or it is of another kind; `Unsupported` when it uses what we do not know.
    pub fn open(&mut self, kind: FrameKind, frame: &[u8]) -> Result<Vec<u8>> {
        let (header, payload) = parse(kind, frame)?;
        let mut decrypted = Vec::new();
        let payload = match (header.cipher, self.keys.sealing()) {
            (PLAIN, None) => payload,
            (XCHACHA20_POLY1305, Some(_)) => {
                decrypted = self.decrypt(kind, &header, payload)?;
                decrypted.as_slice()
            }
            _ => {
                return Err(Error::corrupt("a frame that is sealed in another way than its repository"));
            }
        };
        let raw = match header.codec {
            STORED => {
                if header.cipher == PLAIN {
                    payload.to_vec()
                } else {
                    std::mem::take(&mut decrypted)
                }
            }
            _ => self
                .decompressor
                .decompress(payload, header.raw_len)
                .map_err(|e| Error::with_source(ErrorKind::Corrupt, "decompressing a frame", e))?,
        };
        if raw.len() == header.raw_len { Ok(raw) } else { Err(Error::corrupt("a frame of the wrong length")) }
    }

    fn decrypt(&self, kind: FrameKind, header: &Header, payload: &[u8]) -> Result<Vec<u8>> {
        let forged = || Error::corrupt("a frame that does not belong to its repository or was altered");
        let sealing = self.keys.sealing().ok_or_else(forged)?;
        let cipher = if kind == FrameKind::Manifest { &sealing.manifests } else { &sealing.frames };
        let split = payload.len().checked_sub(TAG_BYTES).ok_or_else(forged)?;
        let (sealed, tag) = payload.split_at_checked(split).ok_or_else(forged)?;
        let tag = Tag::try_from(tag).map_err(|_| forged())?;
        let mut bytes = sealed.to_vec();
        let data = self.keys.associated_data(kind.code());
        cipher
            .decrypt_inout_detached(&XNonce::from(header.nonce), &data, bytes.as_mut_slice().into(), &tag)
            .map_err(|_| forged())?;
        Ok(bytes)
    }
}

/// Checks a frame's digest and fields without a key: what `verify` does with what it cannot open.
///
/// # Errors
/// As [`Codec::open`].
pub fn check(kind: FrameKind, frame: &[u8]) -> Result<()> {
    parse(kind, frame).map(|_| ())
}

/// How long the frame is that starts with `header`, in bytes.
///
/// # Errors
/// `Corrupt` when it is no frame.
pub fn total_len(header: &[u8]) -> Result<usize> {
    let mut cursor = Cursor::new(header, "a frame's header");
    if cursor.array::<8>()? != FRAME_MAGIC {
        return cursor.corrupt("wrong magic");
    }
    cursor.take(8)?;
    let stored = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
    if stored > MOST_RAW_BYTES.saturating_add(TAG_BYTES) {
        return cursor.corrupt("too long");
    }
    Ok(stored.saturating_add(FRAME_HEADER_BYTES))
}

fn parse(kind: FrameKind, frame: &[u8]) -> Result<(Header, &[u8])> {
    let mut cursor = Cursor::new(frame, "a frame");
    if total_len(frame)? != frame.len() {
        return cursor.corrupt("cut off");
    }
    if frame.get(DIGEST_AT..FRAME_HEADER_BYTES) != Some(digest(frame).as_slice()) {
        return cursor.corrupt("its digest does not match its bytes");
    }
    cursor.take(8)?;
    let [found, codec, cipher, flags] = cursor.array()?;
    let raw_len = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
    cursor.take(8)?;
    let nonce = cursor.array()?;
    cursor.take(32)?;
    if found != kind.code() {
        return cursor.corrupt("of another kind than expected");
    }
    if flags != 0 || codec > ZSTD || cipher > XCHACHA20_POLY1305 {
        return Err(Error::unsupported("a frame sealed or compressed in a way this version does not know"));
    }
    if raw_len > kind.most_raw_bytes() {
        return cursor.corrupt("claims to hold more than a frame may");
    }
    let payload = cursor.take(cursor.left())?;
    Ok((Header { codec, cipher, raw_len, nonce }, payload))
}

/// BLAKE3 over everything but the digest's own field.
fn digest(frame: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(frame.get(..DIGEST_AT).unwrap_or_default());
    hasher.update(frame.get(FRAME_HEADER_BYTES..).unwrap_or_default());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::{Codec, Compression, FRAME_MAGIC, FrameKind};
    use crate::id::RepositoryId;
    use crate::keys::{Encryption, Keys, MasterKey};
    use proptest::prelude::{any, proptest};

    fn keys(encryption: Encryption) -> Keys {
        let repository = RepositoryId([7; 16]);
        Keys::new(repository, &MasterKey::public(repository), encryption)
    }

    #[test]
    fn the_magic_is_the_digest_of_its_sentence() {
        assert_eq!(FRAME_MAGIC, blake3::hash(b"halfhour frame, format 1").as_bytes()[..8]);
    }

    proptest! {
        #[test]
        fn a_frame_gives_back_what_it_was_given_and_any_flipped_bit_is_noticed(
            raw in proptest::collection::vec(any::<u8>(), 0..5000), repeat in 1_usize..20, at in any::<usize>(),
            bit in 0_u8..8, sealed in any::<bool>(),
        ) {
            let raw = raw.repeat(repeat);
            let keys = keys(if sealed { Encryption::XChaCha20Poly1305 } else { Encryption::None });
            let mut codec = Codec::new(&keys, Compression::Fast).unwrap();
            let mut frame = codec.seal(FrameKind::Blocks, &raw).unwrap();
            assert_eq!(codec.open(FrameKind::Blocks, &frame).unwrap(), raw);
            assert!(codec.open(FrameKind::Node, &frame).is_err());
            assert!(frame.len() <= raw.len() + 96);
            let at = at % frame.len();
            frame[at] ^= 1 << bit;
            assert!(codec.open(FrameKind::Blocks, &frame).is_err());
        }
    }
}
