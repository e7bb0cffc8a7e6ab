//! XFS: `mkfs.xfs` (fs/xfs/libxfs/xfs_format.h, `struct xfs_dsb`; everything is big-endian).

use super::{DEVICE, Recipe, Step, words};
use crate::bytes::Bytes;
use crate::read::read_if_inside;
use imager_disk::ReadAt;
use imager_units::{Error, Result};
use std::collections::BTreeMap;

const SUPERBLOCK_BYTES: u64 = 512;
/// What `mkfs.xfs` makes smaller than this only when told so.
const SMALL_BYTES: u64 = 300 << 20;
const SMALL_LOG_BYTES: u64 = 64 << 20;
/// Bits of `sb_versionnum`.
const QUOTA: u16 = 0x40;
const ALIGN: u16 = 0x80;
const FIXED: u16 = 0x2000 | 0x8000;
/// `ascii-ci`.
const CASELESS: u16 = 0x4000;
/// Bits of `sb_features2`, before version 5.
const LAZY_COUNT: u32 = 0x2;
const ATTR2: u32 = 0x8;
const PROJID32: u32 = 0x80;
const FTYPE_OF_4: u32 = 0x200;
/// Features of version 5.
const RO_COMPAT: [(u32, &str); 4] = [(0x1, "finobt"), (0x2, "rmapbt"), (0x4, "reflink"), (0x8, "inobtcount")];
const FTYPE: u32 = 0x1;
const SPARSE: u32 = 0x2;
const META_UUID: u32 = 0x4;
const BIGTIME: u32 = 0x8;
const NREXT64: u32 = 0x20;
const EXCHANGE: u32 = 0x40;
const PARENT: u32 = 0x80;
const INCOMPAT: u32 = FTYPE | SPARSE | META_UUID | BIGTIME | NREXT64 | EXCHANGE | PARENT;
/// Kinds of quota in `sb_qflags`: what is counted, what is enforced beside, and the mount options of both.
const QUOTAS: [(u16, u16, &str, &str); 3] = [
    (0x1, 0x2, "uquota", "uqnoenforce"),
    (0x40, 0x80, "gquota", "gqnoenforce"),
    (0x8, 0x200, "pquota", "pqnoenforce"),
];

/// What is read of a superblock.
struct Super<'a> {
    b: Bytes<'a>,
    version: u16,
    features2: u32,
    ro_compat: u32,
    incompat: u32,
}

pub(super) fn recipe(volume: &dyn ReadAt) -> Result<Recipe> {
    let bytes = read_if_inside(volume, 0, SUPERBLOCK_BYTES)?.unwrap_or_default();
    let found = Super::parse(&bytes)?;
    let mut finish = Vec::new();
    if found.incompat & META_UUID != 0 {
        let command = format!("uuid {}", found.b.uuid(32).unwrap_or_default());
        let arguments = words(["-f", "-x", "-c", &command, DEVICE]);
        finish.push(Step::new("xfs_db", arguments));
    }
    let mut mount = vec!["nouuid"];
    mount.extend(found.quota_options());
    Ok(Recipe {
        kind: "xfs",
        package: "xfsprogs",
        steps: vec![Step::new("mkfs.xfs", found.make().ok_or_else(too_short)?)],
        mount,
        finish,
        check: Step::new("xfs_repair", words(["-n", "-f", DEVICE])),
        look: &["norecovery", "nouuid"],
        look_all: &[],
        parameters: found.parameters().ok_or_else(too_short)?,
    })
}

fn too_short() -> Error {
    Error::corrupt("an XFS superblock that ends too early")
}

impl<'a> Super<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let b = Bytes(bytes);
        let read = || {
            let version = b.be16(100)?;
            // Before version 5 there is nothing behind the second word of features.
            let five = version & 0xF == 5;
            let word = |at| if five { b.be32(at) } else { Some(0) };
            Some(Self { b, version, features2: b.be32(200)?, ro_compat: word(212)?, incompat: word(216)? })
        };
        let found = read().ok_or_else(too_short)?;
        let known = RO_COMPAT.iter().fold(0, |all, (bit, _)| all | bit);
        let (ro_compat, incompat) = (found.ro_compat & !known, found.incompat & !INCOMPAT);
        if ro_compat != 0 || incompat != 0 {
            let what = format!("it has features that are not known ({ro_compat:#x}, {incompat:#x})");
            return Err(Error::unsupported(what));
        }
        if found.version & 0xF < 4 {
            return Err(Error::unsupported("it is of a version that is not made any more"));
        }
        if b.be64(48) == Some(0) {
            return Err(Error::unsupported("its log is on another device"));
        }
        if b.be64(16) != Some(0) {
            return Err(Error::unsupported("it has a realtime part on another device"));
        }
        Ok(found)
    }

    fn is_five(&self) -> bool {
        self.version & 0xF == 5
    }

    fn has_ftype(&self) -> bool {
        if self.is_five() { self.incompat & FTYPE != 0 } else { self.features2 & FTYPE_OF_4 != 0 }
    }

    fn label(&self) -> Option<String> {
        let field = self.b.slice(108, 12)?.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(field).into_owned())
    }

    /// The UUID that all metadata carries.
    fn metadata_uuid(&self) -> String {
        let at = if self.incompat & META_UUID != 0 { 248 } else { 32 };
        self.b.uuid(at).unwrap_or_default()
    }

    fn quota_options(&self) -> Vec<&'static str> {
        let flags =
            if self.version & QUOTA != 0 || self.is_five() { self.b.be16(176).unwrap_or(0) } else { 0 };
        let chosen = QUOTAS.iter().filter(|(counted, ..)| flags & counted != 0);
        chosen
            .map(|(_, enforced, both, counted)| if flags & enforced != 0 { *both } else { *counted })
            .collect()
    }

    /// Whether it is smaller than what is made nowadays without asking for it.
    fn is_small(&self) -> Option<bool> {
        let bytes = |blocks: u64| blocks.checked_mul(u64::from(self.b.be32(4)?));
        let (all, log) = (bytes(self.b.be64(8)?)?, bytes(self.b.be32(96)?.into())?);
        Some(all < SMALL_BYTES || log < SMALL_LOG_BYTES || self.b.be32(88)? < 2)
    }

    fn make(&self) -> Option<Vec<String>> {
        let b = self.b;
        let block = u64::from(b.be32(4)?);
        let bit = |set: bool| u8::from(set);
        let blocks = |count: u64| count.checked_mul(block);
        let mut arguments = words(["-q", "-f", "-K"]);
        if self.is_small()? {
            arguments.push("--unsupported".to_owned());
        }
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("-b", format!("size={block}"));
        add("-s", format!("size={}", b.be16(102)?));
        let mut metadata = format!("crc={},uuid={}", bit(self.is_five()), self.metadata_uuid());
        if self.is_five() {
            for (flag, name) in RO_COMPAT {
                metadata.push_str(&format!(",{name}={}", bit(self.ro_compat & flag != 0)));
            }
            metadata.push_str(&format!(",bigtime={}", bit(self.incompat & BIGTIME != 0)));
        } else {
            metadata.push_str(",finobt=0");
        }
        add("-m", metadata);
        let mut data = format!("size={},agsize={}", blocks(b.be64(8)?)?, blocks(b.be32(84)?.into())?);
        let (unit, width) = (u64::from(b.be32(184)?), u64::from(b.be32(188)?));
        match blocks(unit)?.checked_div(512)? {
            0 => data.push_str(",noalign"),
            sectors => {
                let width = blocks(width)?.checked_div(512)?;
                data.push_str(&format!(",sunit={sectors},swidth={width}"));
            }
        }
        add("-d", data);
        let mut inodes = format!("size={},maxpct={}", b.be16(104)?, b.byte(127)?);
        inodes.push_str(&format!(",align={}", bit(self.version & ALIGN != 0)));
        if self.is_five() {
            inodes.push_str(&format!(",sparse={}", bit(self.incompat & SPARSE != 0)));
            inodes.push_str(&format!(",nrext64={}", bit(self.incompat & NREXT64 != 0)));
            // Programs that do not make it do not know the word.
            if self.incompat & EXCHANGE != 0 {
                inodes.push_str(",exchange=1");
            }
        } else {
            let attributes = if self.features2 & ATTR2 != 0 { 2 } else { 1 };
            inodes
                .push_str(&format!(",attr={attributes},projid32bit={}", bit(self.features2 & PROJID32 != 0)));
        }
        add("-i", inodes);
        let sector = b.be16(194)?;
        let mut log = format!("internal,size={},version=2", blocks(b.be32(96)?.into())?);
        if sector > 0 {
            log.push_str(&format!(",sectsize={sector}"));
        }
        match b.be32(196)? {
            0 | 1 => {}
            bytes => log.push_str(&format!(",sunit={}", bytes.checked_div(512)?)),
        }
        if !self.is_five() {
            log.push_str(&format!(",lazy-count={}", bit(self.features2 & LAZY_COUNT != 0)));
        }
        add("-l", log);
        let directory = block.checked_shl(b.byte(192)?.into())?;
        let mut names = format!("size={directory}");
        names.push_str(if self.version & CASELESS != 0 { ",version=ci" } else { ",version=2" });
        if !self.is_five() {
            names.push_str(&format!(",ftype={}", bit(self.has_ftype())));
        }
        if self.incompat & PARENT != 0 {
            names.push_str(",parent=1");
        }
        add("-n", names);
        let label = self.label()?;
        if !label.is_empty() {
            add("-L", label);
        }
        arguments.push(DEVICE.to_owned());
        Some(arguments)
    }

    fn parameters(&self) -> Option<BTreeMap<&'static str, String>> {
        let b = self.b;
        let mut all = BTreeMap::new();
        // What the kernel sets when something of the kind first comes to be.
        let late = 0x10 | 0x20 | QUOTA;
        all.insert("version", format!("{:#x}", (self.version | late) & !FIXED));
        all.insert("features2", format!("{:#x}", self.features2 | ATTR2));
        all.insert("features ro_compat", format!("{:#x}", self.ro_compat));
        all.insert("features incompat", format!("{:#x}", self.incompat));
        all.insert("uuid", b.uuid(32).unwrap_or_default());
        all.insert("uuid of metadata", self.metadata_uuid());
        all.insert("label", self.label()?);
        all.insert("blocks", b.be64(8)?.to_string());
        all.insert("quotas", self.quota_options().join(" "));
        let longs = [
            ("block size", 4),
            ("extent size of the realtime part", 80),
            ("blocks per group", 84),
            ("groups", 88),
            ("log blocks", 96),
            ("inode alignment", 180),
            ("stripe unit", 184),
            ("stripe width", 188),
            ("log stripe unit", 196),
        ];
        for (name, at) in longs {
            all.insert(name, b.be32(at)?.to_string());
        }
        for (name, at) in [("sector size", 102), ("inode size", 104), ("log sector size", 194)] {
            all.insert(name, b.be16(at)?.to_string());
        }
        all.insert("most inodes (%)", b.byte(127)?.to_string());
        all.insert("directory block (2^n)", b.byte(192)?.to_string());
        if self.is_five() {
            all.insert("sparse inode alignment", b.be32(228)?.to_string());
        }
        Some(all)
    }
}
