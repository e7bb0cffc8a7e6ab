//! Nodes of a block map: a Merkle tree over the blocks of one volume.
//!
//! A leaf says of each of up to 128 consecutive blocks what is known of it; an inner node refers to up to 128 nodes of
//! the level below. A subtree without any content needs no node: it is `Unused`, or `Zero` with full masks. The
//! encoding is canonical (equal contents, equal bytes, equal id), so captures share what did not change. Each node
//! lists the packs it refers to once.

use crate::cursor::{Cursor, narrow};
use crate::id::{BlockId, NodeId, PackId};
use crate::mask::{Mask, MaskUnit};
use crate::pack::{FrameSpan, PackRef};
use crate::{BLOCK_BYTES, NODE_FANOUT};
use imager_units::{Error, Result};

/// Where a block's or node's frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack.
    pub pack: PackRef,
    /// The frame in it.
    pub frame: FrameSpan,
    /// Where in the opened frame the block starts; 0 for a node.
    pub at: u32,
}

/// What a capture knows of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// No byte of it counts.
    Unused,
    /// The masked bytes are zero.
    Zero,
    /// The masked bytes, the others zero, are this content.
    Data(BlockId, Location),
    /// None of what counts could be read.
    Unreadable,
}

/// One block of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its content.
    pub content: Content,
    /// The parts that `content` speaks of; none for `Unused` and `Unreadable`.
    pub mask: Mask,
    /// The parts that count but could not be read.
    pub unreadable: Mask,
}

/// What an inner node knows of one subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// No byte of it counts.
    Unused,
    /// Every byte of it counts and is zero.
    Zero,
    /// See there.
    Node(NodeId, Location),
}

/// A node of a block map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Level 0.
    Leaf(Vec<Entry>),
    /// Level 1 and up.
    Inner(u8, Vec<Child>),
}

impl Entry {
    /// A block of which nothing counts.
    pub const UNUSED: Self = Self { content: Content::Unused, mask: Mask::NONE, unreadable: Mask::NONE };

    /// A block whose bytes in `mask` are zero.
    pub const fn zero(mask: Mask) -> Self {
        Self { content: Content::Zero, mask, unreadable: Mask::NONE }
    }
}

const KIND: u8 = 0b0011;
const PARTIAL: u8 = 0b0100;
const UNREADABLE: u8 = 0b1000;
const KNOWN: u8 = KIND | PARTIAL | UNREADABLE;

impl Node {
    /// The encoding. `lens` gives the length of each block of a leaf, which decides what a full mask is.
    ///
    /// # Errors
    /// `Invalid` when the node has more children than the format allows.
    pub fn encode(&self, unit: MaskUnit, last_block_len: usize) -> Result<Vec<u8>> {
        let mut places = Places::default();
        let mut body = Vec::new();
        let (level, count) = match self {
            Self::Leaf(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    let last = index.saturating_add(1) == entries.len();
                    let full = unit.full(if last { last_block_len } else { BLOCK_BYTES });
                    entry.encode(unit, full, &mut places, &mut body)?;
                }
                (0, entries.len())
            }
            Self::Inner(level, children) => {
                for child in children {
                    child.encode(&mut places, &mut body)?;
                }
                (*level, children.len())
            }
        };
        if count > NODE_FANOUT {
            return Err(Error::new(imager_units::ErrorKind::Invalid, "a node with too many children"));
        }
        let mut out = vec![level, unit.log2()];
        out.extend(narrow::<u16>(count, "children")?.to_le_bytes());
        places.encode(&mut out)?;
        out.append(&mut body);
        Ok(out)
    }

    /// Decodes a node that must be of `level` and have `count` children; `last_block_len` is the length of a leaf's
    /// last block.
    ///
    /// # Errors
    /// `Corrupt` when it is not such a node or contradicts itself.
    pub fn decode(
        bytes: &[u8],
        level: u8,
        count: usize,
        unit: MaskUnit,
        last_block_len: usize,
    ) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, "a map node");
        let [found_level, found_unit] = cursor.array()?;
        let found_count = usize::from(cursor.u16()?);
        if (found_level, found_unit, found_count) != (level, unit.log2(), count) || count > NODE_FANOUT {
            return cursor.corrupt("not the one that belongs in this place");
        }
        let places = Places::decode(&mut cursor)?;
        let node = if level == 0 {
            let entry = |index: usize| {
                let last = index.saturating_add(1) == count;
                let len = if last { last_block_len } else { BLOCK_BYTES };
                Entry::decode(&mut cursor, unit, unit.full(len), &places)
            };
            Self::Leaf((0..count).map(entry).collect::<Result<_>>()?)
        } else {
            Self::Inner(
                level,
                (0..count).map(|_| Child::decode(&mut cursor, &places)).collect::<Result<_>>()?,
            )
        };
        cursor.finish()?;
        // One content, one encoding: else captures would not share it, and a list could hide what nothing refers to.
        if node.encode(unit, last_block_len)? != bytes {
            return Err(Error::corrupt("a map node that is not encoded the one way there is"));
        }
        Ok(node)
    }
}

impl Entry {
    /// Whether the masks fit the content, each other and a block whose full mask is `full`.
    fn is_sound(&self, full: Mask) -> bool {
        let fits = match self.content {
            Content::Unused => self.mask.is_none() && self.unreadable.is_none(),
            Content::Zero | Content::Data(..) => !self.mask.is_none(),
            Content::Unreadable => self.mask.is_none() && !self.unreadable.is_none(),
        };
        fits && self.mask.union(self.unreadable).is_within(full) && self.mask.0 & self.unreadable.0 == 0
    }

    fn encode(&self, unit: MaskUnit, full: Mask, places: &mut Places, out: &mut Vec<u8>) -> Result<()> {
        if !self.is_sound(full) {
            let what = "an entry whose masks make no sense";
            return Err(Error::new(imager_units::ErrorKind::Invalid, what));
        }
        let (kind, has_mask) = match self.content {
            Content::Unused => (0, false),
            Content::Zero => (1, true),
            Content::Data(..) => (2, true),
            Content::Unreadable => (3, false),
        };
        let partial = has_mask && self.mask != full;
        let unreadable = !self.unreadable.is_none();
        out.push(kind | if partial { PARTIAL } else { 0 } | if unreadable { UNREADABLE } else { 0 });
        if partial {
            self.mask.encode(unit, out);
        }
        if unreadable {
            self.unreadable.encode(unit, out);
        }
        if let Content::Data(id, location) = self.content {
            out.extend(id.0);
            out.extend(narrow::<u16>(places.place(location), "frames of a node")?.to_le_bytes());
            out.extend(location.at.to_le_bytes());
        }
        Ok(())
    }

    fn decode(cursor: &mut Cursor<'_>, unit: MaskUnit, full: Mask, places: &Places) -> Result<Self> {
        let tag = cursor.u8()?;
        if tag & !KNOWN != 0 {
            return cursor.corrupt("an entry of an unknown kind");
        }
        let has_mask = matches!(tag & KIND, 1 | 2);
        let mut mask = if has_mask { full } else { Mask::NONE };
        if tag & PARTIAL != 0 {
            mask = Mask::decode(cursor.take(unit.encoded_len())?);
        }
        let mut unreadable = Mask::NONE;
        if tag & UNREADABLE != 0 {
            unreadable = Mask::decode(cursor.take(unit.encoded_len())?);
        }
        let content = match tag & KIND {
            0 => Content::Unused,
            1 => Content::Zero,
            2 => Content::Data(BlockId(cursor.array()?), places.read(cursor)?),
            _ => Content::Unreadable,
        };
        let entry = Self { content, mask, unreadable };
        if entry.is_sound(full) { Ok(entry) } else { cursor.corrupt("an entry whose masks make no sense") }
    }
}

impl Child {
    fn encode(&self, places: &mut Places, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Unused => out.push(0),
            Self::Zero => out.push(1),
            Self::Node(id, location) => {
                out.push(2);
                out.extend(id.0);
                out.extend(narrow::<u16>(places.place(*location), "frames of a node")?.to_le_bytes());
                out.extend(location.at.to_le_bytes());
            }
        }
        Ok(())
    }

    fn decode(cursor: &mut Cursor<'_>, places: &Places) -> Result<Self> {
        match cursor.u8()? {
            0 => Ok(Self::Unused),
            1 => Ok(Self::Zero),
            2 => {
                let id = NodeId(cursor.array()?);
                match places.read(cursor)? {
                    location if location.at == 0 => Ok(Self::Node(id, location)),
                    _ => cursor.corrupt("a node that does not have a frame to itself"),
                }
            }
            _ => cursor.corrupt("a child of an unknown kind"),
        }
    }
}

/// The packs and frames a node refers to, each once, in order of first use.
#[derive(Default)]
struct Places {
    packs: Vec<PackRef>,
    frames: Vec<(usize, FrameSpan)>,
}

impl Places {
    fn place(&mut self, location: Location) -> usize {
        let pack = position_or_push(&mut self.packs, location.pack);
        position_or_push(&mut self.frames, (pack, location.frame))
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend(narrow::<u16>(self.packs.len(), "packs of a node")?.to_le_bytes());
        out.extend(narrow::<u16>(self.frames.len(), "frames of a node")?.to_le_bytes());
        for pack in &self.packs {
            out.extend(pack.id.0);
            out.extend(pack.len.to_le_bytes());
        }
        for (pack, span) in &self.frames {
            out.extend(narrow::<u16>(*pack, "packs of a node")?.to_le_bytes());
            out.extend(span.offset.to_le_bytes());
            out.extend(span.len.to_le_bytes());
        }
        Ok(())
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let (packs, frames) = (cursor.u16()?, cursor.u16()?);
        let packs: Vec<_> = (0..packs)
            .map(|_| Ok(PackRef { id: PackId(cursor.array()?), len: cursor.u32()? }))
            .collect::<Result<_>>()?;
        let frames: Vec<_> = (0..frames)
            .map(|_| {
                let pack = usize::from(cursor.u16()?);
                Ok((pack, FrameSpan { offset: cursor.u32()?, len: cursor.u32()? }))
            })
            .collect::<Result<_>>()?;
        let inside =
            |&(pack, span): &(usize, FrameSpan)| packs.get(pack).is_some_and(|pack| span.is_inside(*pack));
        if !frames.iter().all(inside) {
            return cursor.corrupt("a frame outside its pack");
        }
        Ok(Self { packs, frames })
    }

    fn read(&self, cursor: &mut Cursor<'_>) -> Result<Location> {
        let index = usize::from(cursor.u16()?);
        let at = cursor.u32()?;
        let place = self.frames.get(index).and_then(|(pack, frame)| {
            self.packs.get(*pack).map(|pack| Location { pack: *pack, frame: *frame, at })
        });
        place.map_or_else(|| cursor.corrupt("refers to a frame it does not list"), Ok)
    }
}

fn position_or_push<T: PartialEq>(list: &mut Vec<T>, wanted: T) -> usize {
    // Newest last, and most often wanted: at most 128 entries.
    list.iter().rposition(|have| *have == wanted).unwrap_or_else(|| {
        list.push(wanted);
        list.len().saturating_sub(1)
    })
}

/// The level of the root of a volume of `blocks` blocks: the lowest whose nodes cover so many.
pub fn root_level(blocks: u64) -> u8 {
    let mut level = 0;
    while blocks_under(level) < blocks {
        level = u8::saturating_add(level, 1);
    }
    level
}

/// How many blocks a full node of `level` covers.
pub fn blocks_under(level: u8) -> u64 {
    u64::try_from(NODE_FANOUT).unwrap_or(u64::MAX).saturating_pow(u32::from(level).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::{Child, Content, Entry, Location, Node, blocks_under, root_level};
    use crate::id::{BlockId, NodeId, PackId};
    use crate::mask::{Mask, MaskUnit};
    use crate::pack::{FrameSpan, PackRef};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    fn locations() -> impl Strategy<Value = Location> {
        (0..4_u8, 0..5_u32, any::<u32>()).prop_map(|(pack, frame, at)| Location {
            pack: PackRef { id: PackId([pack; 32]), len: 100_000 },
            frame: FrameSpan { offset: 16 + frame * 1000, len: 1000 },
            at,
        })
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let unit = MaskUnit::from_log2(12).unwrap();
        prop_oneof![
            Just(Entry::UNUSED),
            Just(Entry::zero(unit.full(65_536))),
            (1..u16::MAX).prop_map(|bits| Entry::zero(Mask(bits.into()))),
            (any::<[u8; 32]>(), locations(), 1..u16::MAX, any::<u16>()).prop_map(|(id, at, bits, bad)| {
                Entry {
                    content: Content::Data(BlockId(id), at),
                    mask: Mask(bits.into()),
                    unreadable: Mask(u128::from(bad & !bits)),
                }
            }),
            (1..=u16::MAX).prop_map(|bits| Entry {
                content: Content::Unreadable,
                mask: Mask::NONE,
                unreadable: Mask(bits.into()),
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_leaf_survives_encoding(entries in proptest::collection::vec(entries(), 1..=128)) {
            let unit = MaskUnit::from_log2(12).unwrap();
            let count = entries.len();
            let leaf = Node::Leaf(entries);
            let bytes = leaf.encode(unit, 65_536).unwrap();
            assert_eq!(Node::decode(&bytes, 0, count, unit, 65_536).unwrap(), leaf);
            assert!(Node::decode(&bytes, 1, count, unit, 65_536).is_err());
            assert!(Node::decode(&bytes[..bytes.len() - 1], 0, count, unit, 65_536).is_err());
        }

        #[test]
        fn an_inner_node_survives_encoding(
            children in proptest::collection::vec(
                prop_oneof![
                    Just(Child::Unused),
                    Just(Child::Zero),
                    (any::<[u8; 32]>(), locations()).prop_map(|(id, place)| Child::Node(NodeId(id), Location { at: 0, ..place })),
                ],
                1..=128,
            )
        ) {
            let unit = MaskUnit::SECTOR;
            let count = children.len();
            let node = Node::Inner(2, children);
            let bytes = node.encode(unit, 65_536).unwrap();
            assert_eq!(Node::decode(&bytes, 2, count, unit, 65_536).unwrap(), node);
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_node(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Node::decode(&bytes, 0, 1, MaskUnit::SECTOR, 512);
        }
    }

    #[test]
    fn a_node_that_lists_a_frame_twice_not_at_all_or_too_long_is_refused() {
        let place =
            |frame: FrameSpan| Location { pack: PackRef { id: PackId([1; 32]), len: 9000 }, frame, at: 0 };
        let child = |frame| Child::Node(NodeId([2; 32]), place(frame));
        let (here, there) = (FrameSpan { offset: 16, len: 1000 }, FrameSpan { offset: 2000, len: 1000 });
        let decode = |bytes: &[u8], count| Node::decode(bytes, 1, count, MaskUnit::SECTOR, 65_536);
        let encode =
            |children: Vec<Child>| Node::Inner(1, children).encode(MaskUnit::SECTOR, 65_536).unwrap();
        let mut twice = encode(vec![child(here), child(there)]);
        assert!(decode(&twice, 2).is_ok());
        // Frames start behind level, unit, three counts and one pack: the second becomes a copy of the first.
        twice.copy_within(44 + 2..44 + 10, 44 + 12);
        assert!(decode(&twice, 2).is_err());
        let mut spare = encode(vec![child(here), child(there)]);
        spare.truncate(spare.len() - 39);
        spare[2] = 1;
        assert!(decode(&spare, 1).is_err());
        for frame in
            [FrameSpan { len: 8977, ..here }, FrameSpan { len: 79, ..here }, FrameSpan { offset: 15, ..here }]
        {
            assert!(decode(&encode(vec![child(frame)]), 1).is_err());
        }
        let huge = Location { pack: PackRef { id: PackId([1; 32]), len: u32::MAX }, frame: here, at: 0 };
        assert!(decode(&encode(vec![Child::Node(NodeId([2; 32]), huge)]), 1).is_err());
    }

    #[test]
    fn a_tree_is_as_high_as_its_volume_needs() {
        assert_eq!((root_level(0), root_level(128), root_level(129)), (0, 0, 1));
        assert_eq!(root_level(1 << 28), 3);
        assert_eq!(root_level(u64::MAX), 9);
        assert_eq!(blocks_under(1), 16_384);
    }
}
