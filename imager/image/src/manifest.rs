//! Manifests: one object a capture, whose presence is the commit.
//!
//! A small clear header (who, when, which), so that a share can be listed without a key, and a sealed body with
//! everything else: the disks and their tables, the volumes and the roots of their maps, and what an administrator
//! would need to rebuild the machine by hand. The body repeats the header, so the clear one cannot be exchanged. A
//! digest over the whole object tells damage without a key.

mod firmware;
mod running;
mod stack;

pub use firmware::{BootEntry, BootPartition, Uefi};
pub use running::{Freeze, Pass, Running};
pub use stack::Stack;

use crate::cursor::{Cursor, narrow};
use crate::frame::{Codec, FrameKind};
use crate::id::CaptureId;
use crate::node::{Child, Location};
use crate::pack::{FrameSpan, PackRef};
use crate::repository::decode_json;
use crate::{FORMAT_VERSION, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};
use serde::{Deserialize, Serialize};

/// First 8 bytes of BLAKE3("halfhour manifest, format 1").
pub const MANIFEST_MAGIC: [u8; 8] = [0x50, 0x56, 0xc8, 0x5d, 0xe8, 0x4b, 0x84, 0x88];
/// A clear header is no longer than this.
const MOST_HEADER_BYTES: u32 = 65_536;
const DIGEST_BYTES: usize = 32;

/// What is compared and which cursor moves; never what is restorable: every capture is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything is read.
    Full,
    /// Compared with the last capture.
    Incremental,
    /// Compared with the last full one.
    Differential,
    /// Compared with the last capture; moves no cursor.
    Copy,
}

/// How far a capture is the image of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Nothing was using the source.
    Offline,
    /// The filesystems were frozen.
    Frozen,
    /// A filesystem that cannot be frozen was seen to be quiet.
    Stable,
    /// Taken from under a running system, on demand; never `@latest`.
    Inconsistent,
}

/// What a volume is for, which decides whether a restore touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the machine boots from.
    Boot,
    /// Operating system and applications.
    Os,
    /// What an OS restore must not touch.
    Data,
    /// Swap space.
    Swap,
    /// Not captured, not touched.
    Ignore,
}

/// How much of a volume is in the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The bytes its filesystem uses.
    Used,
    /// All of it.
    Raw,
    /// Its structure without its data.
    Skeleton,
    /// The header that makes it recognisable.
    Signature,
    /// Nothing.
    None,
}

/// How the capture knew what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// There was nothing to compare with.
    Scan,
    /// Ids of all used blocks were compared.
    Compare,
    /// The change journal said so.
    Journal,
}

/// The clear part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Whose capture.
    pub machine: String,
    /// When it began, RFC 3339 UTC; the source is as of an instant not before.
    pub time: String,
    /// Full, incremental, …
    pub kind: Kind,
    /// Its id.
    pub id: CaptureId,
    /// Its place among the machine's captures; the highest is the newest, whatever the clocks said.
    pub sequence: u64,
    /// The capture with the next lower sequence, as this one saw it.
    pub previous: Option<CaptureId>,
    /// Set on a document that only takes a manifest's name, so that the capture it would have been never appears.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// A run of bytes, `[start, len]` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run(pub u64, pub u64);

/// A piece of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The disk's number, from 1.
    pub disk: u32,
    /// Where on the disk.
    pub start_byte: u64,
    /// How much of it.
    pub len_bytes: u64,
}

/// Sectors of a partition table, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawSectors {
    /// Where on the disk.
    pub start_byte: u64,
    /// The bytes, base64.
    pub base64: String,
}

/// A disk's partition table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// `gpt`, `mbr` or `none`.
    pub kind: String,
    /// Disk GUID or signature.
    pub id: Option<String>,
    /// As `sfdisk --dump` prints it.
    pub sfdisk: String,
    /// Its sectors.
    pub raw: Vec<RawSectors>,
}

/// Where a block map starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// How many bytes the volume has.
    pub size_bytes: u64,
    /// The grain of its masks.
    pub mask_unit_bytes: u64,
    /// Its root.
    pub root: Root,
}

/// The root of a block map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "content")]
pub enum Root {
    /// Nothing counts.
    Unused,
    /// Everything counts and is zero.
    Zero,
    /// A node.
    Node {
        /// Its id.
        id: crate::NodeId,
        /// The pack it is in.
        pack: crate::PackId,
        /// That pack's length.
        pack_bytes: u32,
        /// Its frame in the pack.
        offset: u32,
        /// The frame's length.
        len: u32,
        /// Where it starts in the opened frame.
        at: u32,
    },
}

/// What capturing a volume took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes that count.
    pub used_bytes: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes of unchanged blocks read to see whether they are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub audited_bytes: u64,
    /// Bytes of blocks that the repository did not have.
    pub new_bytes: u64,
    /// Bytes these took on the share.
    pub stored_bytes: u64,
    /// How long the filesystem was frozen.
    pub freeze_ms: u64,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its number in this machine, from 1, given at the machine's first capture.
    pub number: u32,
    /// Where it was.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its logical sector.
    pub logical_sector_bytes: u32,
    /// Its physical sector.
    pub physical_sector_bytes: u32,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its world-wide name.
    pub wwn: Option<String>,
    /// Its table.
    pub table: Table,
    /// Everything outside its volumes.
    pub remainder: Map,
    /// What the remainder took.
    pub remainder_cost: Cost,
}

/// The partition a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number in the table.
    pub number: u32,
    /// Its type as `sfdisk` names it.
    pub type_id: String,
    /// Its own GUID.
    pub unique_id: Option<String>,
    /// Its name in a GPT.
    pub name: Option<String>,
}

/// How an empty filesystem like a volume's is made, and what of the volume's tree is in the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skeleton {
    /// The programs that make it, in order; `DEVICE` among their arguments stands for where.
    pub steps: Vec<Step>,
    /// What it was made with, by name.
    pub parameters: std::collections::BTreeMap<String, String>,
    /// How many directories it has, the root among them.
    pub directories: u64,
    /// How many symlinks.
    pub symlinks: u64,
    /// How many files that a person wanted kept.
    pub kept_files: u64,
    /// What those hold.
    pub kept_bytes: u64,
    /// How many files, devices, sockets and pipes of the volume are not in it.
    pub other_files: u64,
}

/// A program that is run to make a filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it gets on its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The disk it starts on.
    pub disk: u32,
    /// How the command line calls it.
    pub key: String,
    /// How a person knows it: label, mount point, partition name or key.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The filesystem on it, as `blkid` calls it.
    pub filesystem: Option<String>,
    /// The filesystem's UUID.
    pub uuid: Option<String>,
    /// The filesystem's label.
    pub label: Option<String>,
    /// The filesystem's allocation unit.
    pub block_bytes: Option<u64>,
    /// Whether it was left in order; `null` when it does not say.
    pub clean: Option<bool>,
    /// Its partition; `null` for a whole disk or a logical volume.
    pub partition: Option<Partition>,
    /// Its pieces in order.
    pub segments: Vec<Segment>,
    /// Its size.
    pub size_bytes: u64,
    /// How much of it is in the capture.
    pub mode: Mode,
    /// Why the whole volume was taken, where a map could not be.
    pub whole_because: Option<String>,
    /// How the capture knew what changed.
    pub truth: Truth,
    /// How it was held still, where the machine was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// Every place at which it is recognisable: cleared first and written last by a restore.
    pub head: Vec<Run>,
    /// What it is a part of, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<Stack>,
    /// How its skeleton was made, where that is what is in the capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skeleton: Option<Skeleton>,
    /// Its block map; `null` when nothing of it is in the capture.
    pub map: Option<Map>,
    /// What it took.
    #[serde(flatten)]
    pub cost: Cost,
}

/// Something asked for that is missing from the capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The volume (or `D:remainder`).
    pub volume: String,
    /// What happened.
    pub message: String,
    /// Where, relative to the volume.
    pub extents: Vec<Run>,
}

/// What an administrator would want to know of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Its host name.
    pub hostname: Option<String>,
    /// The mainboard's UUID, to which the machine's name is bound.
    pub hardware_uuid: Option<String>,
    /// `bios` or `uefi`, where the capturing system is the machine itself.
    pub firmware: Option<String>,
    /// What that firmware was told to start, where it is UEFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi: Option<Uefi>,
    /// Files of the captured system that say how it is put together, by name.
    pub files: std::collections::BTreeMap<String, String>,
}

/// How often a machine is captured by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The time from one capture to the next.
    pub every_seconds: u64,
    /// How often one of them is full: `daily`, `weekly`, `monthly`; or never.
    pub full: Option<String>,
    /// How often one is compared with the last full one.
    pub differential: Option<String>,
}

/// The sealed part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The clear part again.
    pub header: Header,
    /// Who made it: program and version.
    pub agent: String,
    /// The schedule it was made under; none when a person asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The capture it was compared with.
    pub parent: Option<CaptureId>,
    /// How far it is one instant.
    pub consistency: Consistency,
    /// The machine.
    pub system: System,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// What cost space or time only.
    pub warnings: Vec<String>,
    /// What is missing.
    pub problems: Vec<Problem>,
    /// Volumes whose content is not in the capture.
    pub not_captured: Vec<String>,
    /// How long it took.
    pub elapsed_seconds: f64,
    /// How it was taken, where the machine was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Run {
    /// The run as an extent, empty when it would leave 64 bits.
    pub fn extent(self) -> Extent {
        Extent::new(ByteOffset::new(self.0), ByteLen::new(self.1)).unwrap_or_default()
    }
}

impl From<Extent> for Run {
    fn from(extent: Extent) -> Self {
        Self(extent.start().get(), extent.len().get())
    }
}

impl Root {
    /// The root as the node above it would refer to it.
    pub fn child(&self) -> Child {
        match *self {
            Self::Unused => Child::Unused,
            Self::Zero => Child::Zero,
            Self::Node { id, pack, pack_bytes, offset, len, at } => {
                let (pack, frame) = (PackRef { id: pack, len: pack_bytes }, FrameSpan { offset, len });
                Child::Node(id, Location { pack, frame, at })
            }
        }
    }
}

impl From<Child> for Root {
    fn from(child: Child) -> Self {
        match child {
            Child::Unused => Self::Unused,
            Child::Zero => Self::Zero,
            Child::Node(id, Location { pack, frame, at }) => {
                let FrameSpan { offset, len } = frame;
                Self::Node { id, pack: pack.id, pack_bytes: pack.len, offset, len, at }
            }
        }
    }
}

impl Map {
    /// The grain of its masks.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub fn mask_unit(&self) -> Result<MaskUnit> {
        MaskUnit::new(self.mask_unit_bytes)
    }

    /// Whether it can be followed without fetching more than a frame.
    fn check(&self) -> Result<()> {
        self.mask_unit()?;
        match self.root.child() {
            Child::Node(_, place) if !place.frame.is_inside(place.pack) || place.at != 0 => {
                Err(Error::corrupt("a manifest with the root of a map outside its pack"))
            }
            _ => Ok(()),
        }
    }
}

impl Manifest {
    /// The object as it lies on the share.
    ///
    /// # Errors
    /// As [`Codec::seal`].
    pub fn encode(&self, codec: &mut Codec<'_>) -> Result<Vec<u8>> {
        let json = |e| Error::with_source(ErrorKind::Invalid, "writing a manifest", e);
        let body = serde_json::to_vec(self).map_err(json)?;
        let frame = codec.seal(FrameKind::Manifest, &body)?;
        self.header.enclose(&frame)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged, cut off or not what its header says; `Unsupported` when of a newer format;
    /// `NotFound` when it is a revocation: there is no such capture and never will be.
    pub fn decode(bytes: &[u8], codec: &mut Codec<'_>) -> Result<Self> {
        let (header, frame) = Header::split(bytes)?;
        if header.revoked {
            return Err(Error::new(ErrorKind::NotFound, format!("capture {} was revoked", header.id)));
        }
        let body = codec.open(FrameKind::Manifest, frame)?;
        let manifest: Self = decode_json(&body, "a manifest's body")?;
        if manifest.header != header {
            return Err(Error::corrupt("a manifest whose header is not its own"));
        }
        let remainders = manifest.disks.iter().map(|disk| &disk.remainder);
        let volumes = manifest.volumes.iter().filter_map(|volume| volume.map.as_ref());
        remainders.chain(volumes).try_for_each(Map::check)?;
        Ok(manifest)
    }
}

impl Header {
    /// A document that takes this header's name for good.
    ///
    /// # Errors
    /// As [`Manifest::encode`].
    pub fn revocation(mut self) -> Result<Vec<u8>> {
        self.revoked = true;
        self.enclose(&[])
    }

    /// The clear header of a manifest.
    ///
    /// # Errors
    /// As [`Manifest::decode`], without needing a key.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::split(bytes).map(|(header, _)| header)
    }

    fn enclose(&self, frame: &[u8]) -> Result<Vec<u8>> {
        let header = serde_json::to_vec(self)
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "writing a manifest's header", e))?;
        let mut out = MANIFEST_MAGIC.to_vec();
        out.extend(FORMAT_VERSION.to_le_bytes());
        out.extend([0, 0]);
        out.extend(narrow::<u32>(header.len(), "a manifest's header")?.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(frame);
        let digest = blake3::hash(&out);
        out.extend_from_slice(digest.as_bytes());
        Ok(out)
    }

    fn split(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let mut cursor = Cursor::new(bytes, "a manifest");
        let signed_len = bytes.len().saturating_sub(DIGEST_BYTES);
        let (signed, digest) = bytes.split_at_checked(signed_len).unwrap_or_default();
        if blake3::hash(signed).as_bytes().as_slice() != digest {
            return cursor.corrupt("its digest does not match its bytes: damaged or cut off");
        }
        if cursor.array::<8>()? != MANIFEST_MAGIC {
            return cursor.corrupt("wrong magic");
        }
        if cursor.u16()? > FORMAT_VERSION || cursor.u16()? != 0 {
            return Err(Error::unsupported("a manifest of a newer format"));
        }
        let len = cursor.u32()?.min(MOST_HEADER_BYTES);
        let header = decode_json(cursor.take(usize::try_from(len).unwrap_or(0))?, "a manifest's header")?;
        let frame = cursor.take(cursor.left().saturating_sub(DIGEST_BYTES))?;
        Ok((header, frame))
    }
}

#[cfg(test)]
mod tests;
