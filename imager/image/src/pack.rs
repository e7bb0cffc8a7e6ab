//! Packs: write-once objects of frames with a table of what is in them, named by the BLAKE3 of their bytes.

use crate::FORMAT_VERSION;
use crate::cursor::{Cursor, narrow};
use crate::frame::{Codec, FRAME_HEADER_BYTES, FRAME_MOST_BYTES, FRAME_MOST_RAW_BYTES, FrameKind};
use crate::id::PackId;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};

/// First 8 bytes of BLAKE3("halfhour pack, format 1").
pub const PACK_MAGIC: [u8; 8] = [0x25, 0xb0, 0x3c, 0x6b, 0xbc, 0xc2, 0x40, 0xdf];
/// First 8 bytes of BLAKE3("halfhour pack trailer, format 1").
pub const TRAILER_MAGIC: [u8; 8] = [0x14, 0xfe, 0x95, 0xfd, 0x6f, 0x9a, 0xb2, 0xd0];
/// Bytes before the first frame.
pub const PACK_HEADER_BYTES: usize = 16;
/// Bytes behind the table.
pub const PACK_TRAILER_BYTES: usize = 24;
/// A pack is closed once its frames reach this many bytes.
pub const PACK_TARGET_BYTES: usize = 16 << 20;
/// No pack is longer than this.
pub const PACK_MOST_BYTES: usize = 64 << 20;

/// What the frames of a pack hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackKind {
    /// Blocks of volumes.
    Data,
    /// Nodes of block maps.
    Map,
}

/// A pack and its length, as whoever refers to it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackRef {
    /// Its name.
    pub id: PackId,
    /// Its length in bytes; a pack of another length is not this pack.
    pub len: u32,
}

/// Where a frame lies in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameSpan {
    /// First byte.
    pub offset: u32,
    /// Bytes, header and all.
    pub len: u32,
}

/// A block or node as a pack's table lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: [u8; 32],
    /// Its bytes in the opened frame; items follow each other without gaps.
    pub len: u32,
}

/// One frame as the table lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFrame {
    /// Where it lies.
    pub span: FrameSpan,
    /// What is in it, in order.
    pub items: Vec<Item>,
}

/// The table of a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its frames in order.
    pub frames: Vec<TableFrame>,
}

/// A pack being filled.
pub struct PackBuilder {
    kind: PackKind,
    bytes: Vec<u8>,
    table: Table,
}

impl FrameSpan {
    /// The span as a part of the object.
    pub fn extent(self) -> Extent {
        let start = ByteOffset::new(self.offset.into());
        Extent::between(start, start.saturating_add(ByteLen::new(self.len.into())))
    }

    /// Whether a frame of blocks or a node can lie here in `pack`: what a reader asks before it fetches so many bytes.
    pub fn is_inside(self, pack: PackRef) -> bool {
        let bytes = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let end = bytes(self.offset).saturating_add(bytes(self.len)).saturating_add(PACK_TRAILER_BYTES);
        bytes(self.offset) >= PACK_HEADER_BYTES
            && (FRAME_HEADER_BYTES..=FRAME_MOST_BYTES).contains(&bytes(self.len))
            && end <= bytes(pack.len)
            && bytes(pack.len) <= PACK_MOST_BYTES
    }
}

impl PackKind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Map => 2,
        }
    }

    /// What kind of frame such a pack holds.
    pub const fn frames(self) -> FrameKind {
        match self {
            Self::Data => FrameKind::Blocks,
            Self::Map => FrameKind::Node,
        }
    }
}

impl PackBuilder {
    /// An empty pack.
    pub fn new(kind: PackKind) -> Self {
        // Room for a full pack, its last frame and its table: growing would double it.
        let mut bytes = Vec::with_capacity(PACK_TARGET_BYTES.saturating_add(2 << 20));
        bytes.extend(PACK_MAGIC.into_iter().chain(FORMAT_VERSION.to_le_bytes()));
        bytes.extend([0, 0, kind.code(), 0, 0, 0]);
        Self { kind, bytes, table: Table::default() }
    }

    /// Adds a sealed frame and says where it lies.
    ///
    /// # Errors
    /// `Invalid` when the pack would outgrow its limits.
    pub fn push(&mut self, frame: &[u8], items: Vec<Item>) -> Result<FrameSpan> {
        let span = FrameSpan {
            offset: narrow(self.bytes.len(), "a frame's offset")?,
            len: narrow(frame.len(), "a frame's length")?,
        };
        if self.bytes.len().saturating_add(frame.len()) > PACK_MOST_BYTES {
            let what = "a frame too many for a pack that should have been closed";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        self.bytes.extend_from_slice(frame);
        self.table.frames.push(TableFrame { span, items });
        Ok(span)
    }

    /// How many bytes its frames have.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds no frame.
    pub fn is_empty(&self) -> bool {
        self.table.frames.is_empty()
    }

    /// Whether it is time to close it.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_TARGET_BYTES
    }

    /// Closes the pack: its name, its bytes, and what is in it.
    ///
    /// # Errors
    /// As [`Codec::seal`].
    pub fn finish(mut self, codec: &mut Codec<'_>) -> Result<(PackRef, Vec<u8>, Table)> {
        let table = codec.seal(FrameKind::Table, &self.table.encode(self.kind)?)?;
        let table_offset: u32 = narrow(self.bytes.len(), "a table's offset")?;
        let table_len: u32 = narrow(table.len(), "a table's length")?;
        self.bytes.extend_from_slice(&table);
        let total = self.bytes.len().saturating_add(PACK_TRAILER_BYTES);
        let len: u32 = narrow(total, "a pack's length")?;
        self.bytes.extend(TRAILER_MAGIC);
        self.bytes.extend(table_offset.to_le_bytes());
        self.bytes.extend(table_len.to_le_bytes());
        self.bytes.extend(u64::from(len).to_le_bytes());
        let id = PackId(*blake3::hash(&self.bytes).as_bytes());
        Ok((PackRef { id, len }, self.bytes, self.table))
    }
}

/// Where the table of a pack of `pack_len` bytes lies, from its last [`PACK_TRAILER_BYTES`].
///
/// # Errors
/// `Corrupt` when these bytes are no trailer of a pack of this length.
pub fn table_span(pack_len: u32, trailer: &[u8]) -> Result<FrameSpan> {
    let mut cursor = Cursor::new(trailer, "a pack's trailer");
    let magic: [u8; 8] = cursor.array()?;
    let span = FrameSpan { offset: cursor.u32()?, len: cursor.u32()? };
    let total = cursor.u64()?;
    let end = u64::from(span.offset).saturating_add(u64::from(span.len)).saturating_add(24);
    let room = usize::try_from(span.offset).is_ok_and(|at| at >= PACK_HEADER_BYTES)
        && usize::try_from(span.len).is_ok_and(|len| (FRAME_HEADER_BYTES..=PACK_MOST_BYTES).contains(&len));
    if magic != TRAILER_MAGIC || total != u64::from(pack_len) || end != total || !room {
        return cursor.corrupt("does not fit the pack");
    }
    cursor.finish()?;
    Ok(span)
}

/// What kind of pack starts with `header`.
///
/// # Errors
/// `Corrupt` when it is no pack, `Unsupported` when it is one of a newer format.
pub fn kind_of(header: &[u8]) -> Result<PackKind> {
    let mut cursor = Cursor::new(header, "a pack's header");
    if cursor.array::<8>()? != PACK_MAGIC {
        return cursor.corrupt("wrong magic");
    }
    if cursor.u16()? > FORMAT_VERSION || cursor.u16()? != 0 {
        return Err(Error::unsupported("a pack of a newer format"));
    }
    match cursor.u8()? {
        1 => Ok(PackKind::Data),
        2 => Ok(PackKind::Map),
        _ => Err(Error::unsupported("a pack of an unknown kind")),
    }
}

impl Table {
    /// The table as a frame holds it.
    ///
    /// # Errors
    /// `Invalid` when a count does not fit its field.
    pub fn encode(&self, kind: PackKind) -> Result<Vec<u8>> {
        let mut out = vec![kind.code(), 0, 0, 0];
        out.extend(narrow::<u32>(self.frames.len(), "frames in a pack")?.to_le_bytes());
        for frame in &self.frames {
            out.extend(frame.span.offset.to_le_bytes());
            out.extend(frame.span.len.to_le_bytes());
            out.extend(narrow::<u32>(frame.items.len(), "items in a frame")?.to_le_bytes());
            for item in &frame.items {
                out.extend(item.id);
                out.extend(item.len.to_le_bytes());
            }
        }
        Ok(out)
    }

    /// Decodes an opened table frame of a pack of kind `kind`.
    ///
    /// # Errors
    /// `Corrupt` when it contradicts itself.
    pub fn decode(kind: PackKind, bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, "a pack's table");
        if cursor.array::<4>()? != [kind.code(), 0, 0, 0] {
            return cursor.corrupt("of another kind than its pack");
        }
        let count = cursor.u32()?;
        let mut table = Self::default();
        let mut end = u32::try_from(PACK_HEADER_BYTES).unwrap_or(u32::MAX);
        for _ in 0..count {
            let span = FrameSpan { offset: cursor.u32()?, len: cursor.u32()? };
            let len = usize::try_from(span.len).unwrap_or(usize::MAX);
            let next = span.offset.checked_add(span.len);
            let Some(next) = next.filter(|_| (FRAME_HEADER_BYTES..=FRAME_MOST_BYTES).contains(&len)) else {
                return cursor.corrupt("a frame of an impossible length");
            };
            if span.offset != end {
                return cursor.corrupt("its frames do not follow each other");
            }
            end = next;
            let items: Vec<Item> = (0..cursor.u32()?)
                .map(|_| Ok(Item { id: cursor.array()?, len: cursor.u32()? }))
                .collect::<Result<_>>()?;
            let held = items.iter().fold(0, |held: u64, item| held.saturating_add(item.len.into()));
            let fits = usize::try_from(held).is_ok_and(|held| held <= FRAME_MOST_RAW_BYTES);
            if !fits || items.iter().any(|item| item.len == 0) {
                return cursor.corrupt("a frame that cannot hold its items");
            }
            table.frames.push(TableFrame { span, items });
        }
        cursor.finish()?;
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Item, PACK_MAGIC, PACK_TRAILER_BYTES, PackBuilder, PackKind, TRAILER_MAGIC, Table, kind_of,
        table_span,
    };
    use crate::frame::{Codec, Compression, FrameKind};
    use crate::id::RepositoryId;
    use crate::keys::{Encryption, Keys, MasterKey};

    #[test]
    fn the_magics_are_the_digests_of_their_sentences() {
        assert_eq!(PACK_MAGIC, blake3::hash(b"halfhour pack, format 1").as_bytes()[..8]);
        assert_eq!(TRAILER_MAGIC, blake3::hash(b"halfhour pack trailer, format 1").as_bytes()[..8]);
    }

    #[test]
    fn a_pack_is_read_back_from_its_end() {
        let repository = RepositoryId([7; 16]);
        let keys = Keys::new(repository, &MasterKey::public(repository), Encryption::XChaCha20Poly1305);
        let mut codec = Codec::new(&keys, Compression::Fast).unwrap();
        let mut builder = PackBuilder::new(PackKind::Data);
        for n in 0..3_u8 {
            let frame = codec.seal(FrameKind::Blocks, &[n; 1000]).unwrap();
            builder
                .push(&frame, vec![Item { id: [n; 32], len: 400 }, Item { id: [n; 32], len: 600 }])
                .unwrap();
        }
        let (pack, bytes, table) = builder.finish(&mut codec).unwrap();
        assert_eq!(pack.id.0, *blake3::hash(&bytes).as_bytes());
        assert_eq!(kind_of(&bytes).unwrap(), PackKind::Data);
        let span = table_span(pack.len, &bytes[bytes.len() - PACK_TRAILER_BYTES..]).unwrap();
        let (from, len) = (span.offset as usize, span.len as usize);
        let opened = codec.open(FrameKind::Table, &bytes[from..from + len]).unwrap();
        assert_eq!(Table::decode(PackKind::Data, &opened).unwrap(), table);
        assert!(Table::decode(PackKind::Map, &opened).is_err());
        assert!(table_span(pack.len - 1, &bytes[bytes.len() - PACK_TRAILER_BYTES..]).is_err());
    }

    #[test]
    fn the_same_blocks_packed_twice_are_two_packs() {
        let repository = RepositoryId([7; 16]);
        let keys = Keys::new(repository, &MasterKey::public(repository), Encryption::None);
        let mut codec = Codec::new(&keys, Compression::Fast).unwrap();
        let mut pack = || {
            let mut builder = PackBuilder::new(PackKind::Data);
            let frame = codec.seal(FrameKind::Blocks, b"block").unwrap();
            builder.push(&frame, vec![Item { id: [1; 32], len: 5 }]).unwrap();
            builder.finish(&mut codec).unwrap().0
        };
        let (one, other) = (pack(), pack());
        assert!(one.len == other.len && one.id != other.id);
    }
}
