//! Btrfs on one device: `mkfs.btrfs` (fs/btrfs/fs.h, `struct btrfs_super_block`).
//!
//! The kernel takes two devices with one UUID for parts of one filesystem. So it is made with another, and is given the
//! volume's by `btrfstune` when it is not mounted any more.

use super::{DEVICE, Recipe, Step, words};
use crate::btrfs::chunk_kinds;
use crate::bytes::Bytes;
use crate::read::read_if_inside;
use imager_disk::ReadAt;
use imager_units::{Error, Result};
use std::collections::BTreeMap;

const SUPERBLOCK_OFFSET: u64 = 65_536;
const SUPERBLOCK_BYTES: u64 = 4096;
/// Kinds of chunks, and profiles of one device.
const DATA: u64 = 1;
const METADATA: u64 = 4;
const DUP: u64 = 1 << 5;
const ONE_DEVICE: u64 = 0x7 | DUP;
/// Incompatible features: those that come with use, or are always on; those that are chosen; those of one device's.
const LATE: u64 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20;
const MIXED: u64 = 0x4;
const CHOSEN: [(u64, &str); 3] = [(0x40, "extref"), (0x100, "skinny-metadata"), (0x200, "no-holes")];
const METADATA_UUID: u64 = 0x400;
/// Features without which it is not written: the tree of free space (and that it is valid), one of block groups.
const FREE_SPACE_TREE: u64 = 0x3;
const VERITY: u64 = 0x4;
const BLOCK_GROUP_TREE: u64 = 0x8;
const CHECKSUMS: [&str; 4] = ["crc32c", "xxhash", "sha256", "blake2"];

/// What is read of a superblock.
struct Super<'a> {
    b: Bytes<'a>,
    incompat: u64,
    ro_compat: u64,
    data: u64,
    metadata: u64,
}

pub(super) fn recipe(volume: &dyn ReadAt) -> Result<Recipe> {
    let bytes = read_if_inside(volume, SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)?.unwrap_or_default();
    let found = Super::parse(&bytes, volume)?;
    let uuid = |at| found.b.uuid(at).unwrap_or_default();
    let tune = |flag: &str, uuid: String| Step::new("btrfstune", words(["-f", flag, &uuid, DEVICE]));
    let mut finish = Vec::new();
    if found.incompat & METADATA_UUID != 0 {
        finish.push(tune("-U", uuid(0x23B)));
        finish.push(tune("-M", uuid(0x20)));
    } else {
        finish.push(tune("-U", uuid(0x20)));
    }
    Ok(Recipe {
        kind: "btrfs",
        package: "btrfs-progs",
        steps: vec![Step::new("mkfs.btrfs", found.make().ok_or_else(too_short)?)],
        mount: vec!["subvolid=5"],
        finish,
        check: Step::new("btrfs", words(["check", "--readonly", DEVICE])),
        look: &["rescue=nologreplay"],
        look_all: &["subvolid=5"],
        parameters: found.parameters().ok_or_else(too_short)?,
    })
}

fn too_short() -> Error {
    Error::corrupt("a Btrfs superblock that ends too early")
}

impl<'a> Super<'a> {
    fn parse(bytes: &'a [u8], volume: &dyn ReadAt) -> Result<Self> {
        let b = Bytes(bytes);
        let word = |at| b.le64(at).ok_or_else(too_short);
        let (incompat, ro_compat) = (word(0xBC)?, word(0xB4)?);
        let known = CHOSEN.iter().fold(LATE | MIXED | METADATA_UUID, |all, (bit, _)| all | bit);
        let (strange, strange_ro) =
            (incompat & !known, ro_compat & !(FREE_SPACE_TREE | VERITY | BLOCK_GROUP_TREE));
        if strange != 0 || strange_ro != 0 {
            let what = format!(
                "it has features that mkfs.btrfs does not make on one device ({strange:#x}, {strange_ro:#x})"
            );
            return Err(Error::unsupported(what));
        }
        let (mut data, mut metadata) = (0, 0);
        for kind in chunk_kinds(volume)? {
            if kind & !ONE_DEVICE != 0 {
                return Err(Error::unsupported("it has chunks of a profile for several devices"));
            }
            data |= if kind & DATA != 0 { kind & DUP } else { 0 };
            metadata |= if kind & METADATA != 0 { kind & DUP } else { 0 };
        }
        Ok(Self { b, incompat, ro_compat, data, metadata })
    }

    fn label(&self) -> Option<String> {
        let field = self.b.slice(0x12B, 256)?.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(field).into_owned())
    }

    fn make(&self) -> Option<Vec<String>> {
        let b = self.b;
        let mut arguments = words(["-q", "-f", "-K"]);
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("-b", b.le64(0x70)?.to_string());
        add("-s", b.le32(0x90)?.to_string());
        add("-n", b.le32(0x94)?.to_string());
        add("--csum", (*CHECKSUMS.get(usize::from(b.le16(0xC4)?))?).to_owned());
        let profile = |bits: u64| if bits & DUP != 0 { "dup" } else { "single" }.to_owned();
        add("-d", profile(self.data));
        add("-m", profile(self.metadata));
        let sign = |set: bool| if set { "" } else { "^" };
        let chosen = CHOSEN.iter().map(|(bit, name)| format!("{}{name}", sign(self.incompat & bit != 0)));
        let mut chosen: Vec<_> = chosen.collect();
        if self.ro_compat & BLOCK_GROUP_TREE != 0 {
            chosen.push("block-group-tree".to_owned());
        }
        add("-O", chosen.join(","));
        add("-R", format!("{}free-space-tree", sign(self.ro_compat & FREE_SPACE_TREE != 0)));
        let label = self.label()?;
        if !label.is_empty() {
            add("-L", label);
        }
        if self.incompat & MIXED != 0 {
            arguments.push("--mixed".to_owned());
        }
        arguments.push(DEVICE.to_owned());
        Some(arguments)
    }

    fn parameters(&self) -> Option<BTreeMap<&'static str, String>> {
        let b = self.b;
        let mut all = BTreeMap::new();
        all.insert("uuid", b.uuid(0x20).unwrap_or_default());
        all.insert("label", self.label()?);
        all.insert("size", b.le64(0x70)?.to_string());
        all.insert("sector size", b.le32(0x90)?.to_string());
        all.insert("node size", b.le32(0x94)?.to_string());
        all.insert("checksum", b.le16(0xC4)?.to_string());
        all.insert("features incompat", format!("{:#x}", self.incompat & !LATE));
        all.insert("features ro_compat", format!("{:#x}", self.ro_compat & !VERITY));
        all.insert("profile of data", format!("{:#x}", self.data));
        all.insert("profile of metadata", format!("{:#x}", self.metadata));
        Some(all)
    }
}
