//! Builds repositories in a folder with nothing but the crate's codecs, from disks that a test describes.
//!
//! Everything follows from what is asked for (ids and contents too, unless encrypted), so that what is built here can
//! be kept and compared. Simple where the engine is careful: everything is in memory, nothing is synced.

#![allow(dead_code, unreachable_pub, reason = "several tests share this, and each uses its part")]

pub mod python;
pub mod source;

use imager_image::frame::{Codec, Compression, FrameKind};
use imager_image::keys::{Encryption, MasterKey, Slot, SlotKind};
use imager_image::manifest::{
    Consistency, Cost, Disk, Header, Kind, Manifest, Map, Mode, RawSectors, Role, Root, Run, Segment, System,
    Table, Truth, Volume,
};
use imager_image::node::{Child, Content, Entry, Location, Node, root_level};
use imager_image::pack::{FrameSpan, Item, PackBuilder, PackKind};
use imager_image::repository::{Description, encode_json};
use imager_image::{BLOCK_BYTES, BlockId, CaptureId, Keys, Mask, NODE_FANOUT, RepositoryId, names};
use source::{Block, Source};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// When everything here was made.
pub const CREATED: &str = "2026-11-21T03:15:00Z";
/// The same in names.
pub const CREATED_COMPACT: &str = "20261121T031500Z";

/// How a repository is built.
#[derive(Clone, Copy)]
pub struct Style {
    /// What opens it; `None` for a plain one.
    pub password: Option<&'static [u8]>,
    /// A pack is closed once its frames have so many bytes.
    pub pack_bytes: usize,
    /// So many blocks go into a frame at most.
    pub frame_blocks: usize,
}

impl Style {
    /// A plain repository of small packs.
    pub const PLAIN: Self = Self { password: None, pack_bytes: 300_000, frame_blocks: 4 };
    /// The same, encrypted.
    pub const ENCRYPTED: Self = Self { password: Some(b"correct horse"), ..Self::PLAIN };
}

/// A repository being built.
pub struct Builder {
    folder: PathBuf,
    style: Style,
    keys: Keys,
    blocks: HashMap<[u8; 32], Location>,
    nodes: HashMap<[u8; 32], Location>,
}

type Stored = Vec<([u8; 32], Vec<u8>)>;

impl Builder {
    /// Starts a repository in `folder`.
    pub fn create(folder: &Path, style: Style) -> Result<Self> {
        let id = RepositoryId(*b"halfhour example");
        let (master, encryption) = match style.password {
            None => (MasterKey::public(id), Encryption::None),
            Some(_) => (MasterKey::random()?, Encryption::XChaCha20Poly1305),
        };
        let keys = Keys::new(id, &master, encryption);
        let description = Description::new(&keys, id, CREATED.to_owned()).encode()?;
        let (blocks, nodes) = (HashMap::new(), HashMap::new());
        let builder = Self { folder: folder.to_owned(), style, keys, blocks, nodes };
        if let Some(password) = style.password {
            // One that does not open comes first or second: a reader tries all.
            for secret in [b"another".as_slice(), password] {
                let label = "made for a test".to_owned();
                let slot = Slot::wrap(id, &master, secret, SlotKind::Passphrase, label, CREATED.to_owned())?;
                builder.put(&names::slot(slot.id), &encode_json(&slot)?)?;
            }
        }
        builder.put(names::DESCRIPTION, &description)?;
        Ok(builder)
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Where a name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes an object.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().ok_or("a name without a folder")?)?;
        Ok(std::fs::write(path, bytes)?)
    }

    /// A codec with the repository's keys.
    pub fn codec(&self) -> Result<Codec<'_>> {
        Ok(Codec::new(&self.keys, Compression::Fast)?)
    }

    /// Stores a source and the block map over it.
    pub fn map(&mut self, source: &Source) -> Result<Map> {
        self.store_blocks(source)?;
        let blocks = source.size().div_ceil(BLOCK_BYTES as u64);
        let mut children = self.leaves(source, blocks)?;
        for level in 1..=root_level(blocks) {
            let nodes = children.chunks(NODE_FANOUT).map(|part| match uniform(part) {
                Some(child) => Ok(Pending::Known(child)),
                None => {
                    Ok(Pending::New(Node::Inner(level, part.to_vec()).encode(source.unit(), BLOCK_BYTES)?))
                }
            });
            let nodes = nodes.collect::<Result<Vec<_>>>()?;
            children = self.store_nodes(nodes)?;
        }
        let root = children.first().map_or(Root::Unused, |root| Root::from(*root));
        Ok(Map { size_bytes: source.size(), mask_unit_bytes: source.unit().bytes() as u64, root })
    }

    /// Where the block with these masked bytes lies.
    pub fn place(&self, masked: &[u8]) -> Option<Location> {
        self.blocks.get(&self.keys.block_id(masked).0).copied()
    }

    /// Where the nodes lie.
    pub fn node_places(&self) -> impl Iterator<Item = Location> {
        self.nodes.values().copied()
    }

    /// Writes a manifest.
    pub fn capture(&self, manifest: &Manifest) -> Result<String> {
        let name = names::manifest(&manifest.header.machine, CREATED_COMPACT, manifest.header.id);
        self.put(&name, &manifest.encode(&mut self.codec()?)?)?;
        Ok(name)
    }

    fn store_blocks(&mut self, source: &Source) -> Result<()> {
        let mut frames: Vec<Stored> = Vec::new();
        let mut last = None;
        for number in source.touched() {
            let Block::Data(masked, ..) = source.block(number) else { continue };
            let id = self.keys.block_id(&masked).0;
            if self.blocks.contains_key(&id) || frames.iter().flatten().any(|(known, _)| *known == id) {
                continue;
            }
            let follows = last == number.checked_sub(1) && last.is_some();
            match frames.last_mut() {
                Some(frame) if follows && frame.len() < self.style.frame_blocks => frame.push((id, masked)),
                _ => frames.push(vec![(id, masked)]),
            }
            last = Some(number);
        }
        let stored = self.store(PackKind::Data, frames)?;
        self.blocks.extend(stored);
        Ok(())
    }

    fn leaves(&mut self, source: &Source, blocks: u64) -> Result<Vec<Child>> {
        let mut nodes = Vec::new();
        for first in (0..blocks).step_by(NODE_FANOUT) {
            let numbers = first..blocks.min(first + NODE_FANOUT as u64);
            let last_len = source.block_len(numbers.end - 1);
            if source.is_untouched(numbers.clone()) {
                nodes.push(Pending::Known(Child::Unused));
                continue;
            }
            let entries: Vec<Entry> =
                numbers.clone().map(|n| self.entry(source, n)).collect::<Result<_>>()?;
            let zero = |n| Entry::zero(source.unit().full(source.block_len(n)));
            nodes.push(if entries.iter().all(|e| *e == Entry::UNUSED) {
                Pending::Known(Child::Unused)
            } else if numbers.zip(&entries).all(|(n, e)| *e == zero(n)) {
                Pending::Known(Child::Zero)
            } else {
                Pending::New(Node::Leaf(entries).encode(source.unit(), last_len)?)
            });
        }
        self.store_nodes(nodes)
    }

    fn entry(&self, source: &Source, number: u64) -> Result<Entry> {
        Ok(match source.block(number) {
            Block::Unused => Entry::UNUSED,
            Block::Unreadable(unreadable) => {
                Entry { content: Content::Unreadable, mask: Mask::NONE, unreadable }
            }
            Block::Zero(mask, unreadable) => Entry { unreadable, ..Entry::zero(mask) },
            Block::Data(masked, mask, unreadable) => {
                let id = self.keys.block_id(&masked);
                let location = self.blocks.get(&id.0).ok_or("a block that was not stored")?;
                Entry { content: Content::Data(BlockId(id.0), *location), mask, unreadable }
            }
        })
    }

    fn store_nodes(&mut self, nodes: Vec<Pending>) -> Result<Vec<Child>> {
        let ids: Vec<_> = nodes.iter().map(|node| node.id(&self.keys)).collect();
        let new = nodes.into_iter().zip(&ids).filter_map(|(node, id)| match (node, id) {
            (Pending::New(encoded), Err(id)) if !self.nodes.contains_key(&id.0) => Some((id.0, encoded)),
            _ => None,
        });
        let unique: HashMap<_, _> = new.collect();
        let mut unique: Vec<_> = unique.into_iter().collect();
        unique.sort();
        let stored = self.store(PackKind::Map, unique.into_iter().map(|node| vec![node]).collect())?;
        self.nodes.extend(stored);
        let child = |id| match id {
            Ok(known) => Ok(known),
            Err(id @ imager_image::NodeId(key)) => {
                Ok(Child::Node(id, *self.nodes.get(&key).ok_or("a node that was not stored")?))
            }
        };
        ids.into_iter().map(child).collect()
    }

    /// Seals frames, fills packs with them, and says where each item went.
    fn store(&self, kind: PackKind, frames: Vec<Stored>) -> Result<HashMap<[u8; 32], Location>> {
        let mut codec = self.codec()?;
        let mut places = HashMap::new();
        let mut open = PackBuilder::new(kind);
        let mut waiting: Vec<([u8; 32], FrameSpan, u32)> = Vec::new();
        let count = frames.len();
        for (index, frame) in frames.into_iter().enumerate() {
            let (mut raw, mut items, mut starts) = (Vec::new(), Vec::new(), Vec::new());
            for (id, bytes) in frame {
                starts.push((id, u32::try_from(raw.len())?));
                items.push(Item { id, len: u32::try_from(bytes.len())? });
                raw.extend(bytes);
            }
            let span = open.push(&codec.seal(kind.frames(), &raw)?, items)?;
            waiting.extend(starts.into_iter().map(|(id, at)| (id, span, at)));
            if open.len() >= self.style.pack_bytes || index + 1 == count {
                let (pack, bytes, _) =
                    std::mem::replace(&mut open, PackBuilder::new(kind)).finish(&mut codec)?;
                self.put(&names::pack(pack.id), &bytes)?;
                places.extend(waiting.drain(..).map(|(id, frame, at)| (id, Location { pack, frame, at })));
            }
        }
        Ok(places)
    }
}

/// A node that has its place, or has yet to get one.
enum Pending {
    Known(Child),
    New(Vec<u8>),
}

impl Pending {
    fn id(&self, keys: &Keys) -> Result<Child, imager_image::NodeId> {
        match self {
            Self::Known(child) => Ok(*child),
            Self::New(encoded) => Err(keys.node_id(encoded)),
        }
    }
}

fn uniform(children: &[Child]) -> Option<Child> {
    [Child::Unused, Child::Zero].into_iter().find(|wanted| children.iter().all(|child| child == wanted))
}

/// The clear part of a manifest.
pub fn header(machine: &str, sequence: u64, id: CaptureId) -> Header {
    let (machine, time) = (machine.to_owned(), CREATED.to_owned());
    Header { machine, time, kind: Kind::Full, id, sequence, previous: None, revoked: false }
}

/// A manifest of these disks and volumes.
pub fn manifest(header: Header, disks: Vec<Disk>, volumes: Vec<Volume>) -> Manifest {
    Manifest {
        header,
        agent: "golden".to_owned(),
        parent: None,
        consistency: Consistency::Offline,
        system: System::default(),
        disks,
        volumes,
        warnings: Vec::new(),
        problems: Vec::new(),
        not_captured: Vec::new(),
        schedule: None,
        elapsed_seconds: 0.5,
        running: None,
    }
}

/// A disk without an identity whose table has these sectors.
pub fn disk(number: u32, remainder: Map, table: &[(u64, Vec<u8>)]) -> Disk {
    use base64::Engine;
    let base64 = |bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
    let raw =
        table.iter().map(|(start_byte, bytes)| RawSectors { start_byte: *start_byte, base64: base64(bytes) });
    Disk {
        number,
        path: format!("/dev/example{number}"),
        size_bytes: remainder.size_bytes,
        logical_sector_bytes: 512,
        physical_sector_bytes: 512,
        model: None,
        serial: None,
        wwn: None,
        table: Table {
            kind: if table.is_empty() { "none" } else { "gpt" }.to_owned(),
            id: None,
            sfdisk: String::new(),
            raw: raw.collect(),
        },
        remainder,
        remainder_cost: Cost::default(),
    }
}

/// An operating system's volume in these pieces, all of it captured if it has a map.
pub fn volume(key: &str, segments: &[(u32, u64, u64)], map: Option<Map>) -> Volume {
    let piece = |&(disk, start_byte, len_bytes)| Segment { disk, start_byte, len_bytes };
    Volume {
        disk: segments.first().map_or(1, |segment| segment.0),
        key: key.to_owned(),
        name: key.to_owned(),
        role: Role::Os,
        filesystem: None,
        uuid: None,
        label: None,
        block_bytes: None,
        clean: None,
        partition: None,
        segments: segments.iter().map(piece).collect(),
        size_bytes: segments.iter().map(|segment| segment.2).sum(),
        mode: if map.is_some() { Mode::Used } else { Mode::None },
        whole_because: None,
        truth: Truth::Scan,
        consistency: None,
        head: vec![Run(0, 4096)],
        stack: None,
        skeleton: None,
        map,
        cost: Cost::default(),
    }
}

/// What a place in a pack is opened as: for looking at what was built.
pub fn open(builder: &Builder, kind: FrameKind, place: &Location) -> Result<Vec<u8>> {
    let pack = std::fs::read(builder.path(&names::pack(place.pack.id)))?;
    let start = usize::try_from(place.frame.offset)?;
    let frame = pack.get(start..start + usize::try_from(place.frame.len)?).ok_or("outside its pack")?;
    Ok(builder.codec()?.open(kind, frame)?)
}
