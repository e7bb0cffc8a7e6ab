//! ext2, ext3 and ext4: `mke2fs`, and `debugfs` for what it cannot set (fs/ext4/ext4.h, `struct ext4_super_block`).

use super::{DEVICE, Recipe, Step, words};
use crate::bytes::Bytes;
use crate::read::read_if_inside;
use imager_disk::ReadAt;
use imager_units::{Error, Result};
use std::collections::BTreeMap;

const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_BYTES: u64 = 1024;

/// Bits of the compatible features, by the names of mke2fs; those of no name are not made any more.
const COMPAT: [(u32, &str); 8] = [
    (0x4, "has_journal"),
    (0x8, "ext_attr"),
    (0x10, "resize_inode"),
    (0x20, "dir_index"),
    (0x200, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (0x1000, "orphan_file"),
];
const INCOMPAT: [(u32, &str); 12] = [
    (0x2, "filetype"),
    (0x10, "meta_bg"),
    (0x40, "extent"),
    (0x80, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
const RO_COMPAT: [(u32, &str); 11] = [
    (0x1, "sparse_super"),
    (0x2, "large_file"),
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x100, "quota"),
    (0x200, "bigalloc"),
    (0x400, "metadata_csum"),
    (0x2000, "project"),
    (0x8000, "verity"),
];
/// A log to be replayed, and orphans to be cleaned up: states, not features.
const STATES: [u32; 3] = [0, 0x4, 0x1_0000];

/// What is read of a superblock.
struct Super<'a> {
    bytes: Bytes<'a>,
    features: Vec<&'static str>,
}

pub(super) fn recipe(volume: &dyn ReadAt) -> Result<Recipe> {
    let bytes = read_if_inside(volume, SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)?.unwrap_or_default();
    let found = Super::parse(&bytes)?;
    let parameters = found.parameters().ok_or_else(too_short)?;
    let mut steps = vec![Step::new("mke2fs", found.make().ok_or_else(too_short)?)];
    let settings = found.settings().ok_or_else(too_short)?;
    steps.push(Step { input: Some(settings), ..Step::new("debugfs", words(["-w", "-f", "-", DEVICE])) });
    let has_log = found.has("has_journal");
    Ok(Recipe {
        // It mounts all three, and kernels may have no other.
        kind: "ext4",
        package: "e2fsprogs",
        steps,
        // Tables that read as zeros need not be written by the kernel.
        mount: if has_log { vec!["noinit_itable"] } else { Vec::new() },
        finish: Vec::new(),
        check: Step::new("e2fsck", words(["-f", "-n", DEVICE])),
        look: if has_log { &["noload"] } else { &[] },
        look_all: &[],
        parameters,
    })
}

fn too_short() -> Error {
    Error::corrupt("an ext superblock that ends too early")
}

impl<'a> Super<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let bytes = Bytes(bytes);
        let word = |at| bytes.le32(at).ok_or_else(too_short);
        if word(0x4C)? == 0 {
            return Err(Error::unsupported("it is of the first revision, which is not made any more"));
        }
        let mut features = Vec::new();
        for (number, (at, names)) in
            [(0x5C, &COMPAT[..]), (0x60, &INCOMPAT[..]), (0x64, &RO_COMPAT[..])].into_iter().enumerate()
        {
            let set = word(at)?;
            let known =
                names.iter().fold(STATES.get(number).copied().unwrap_or(0), |all, (bit, _)| all | bit);
            if set & !known != 0 {
                let what =
                    format!("it has features that mke2fs does not make ({:#x} at {at:#x})", set & !known);
                return Err(Error::unsupported(what));
            }
            features.extend(names.iter().filter(|(bit, _)| set & bit != 0).map(|(_, name)| *name));
        }
        let found = Self { bytes, features };
        if found.has("has_journal") && word(0xE0)? == 0 {
            return Err(Error::unsupported("its journal is on another device"));
        }
        Ok(found)
    }

    fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }

    fn block_bytes(&self) -> Option<u64> {
        1024_u64.checked_shl(self.bytes.le32(0x18)?)
    }

    fn blocks(&self) -> Option<u64> {
        let high = if self.has("64bit") { self.bytes.le32(0x150)? } else { 0 };
        Some(u64::from(high) << 32 | u64::from(self.bytes.le32(0x4)?))
    }

    fn reserved_blocks(&self) -> Option<u64> {
        let high = if self.has("64bit") { self.bytes.le32(0x154)? } else { 0 };
        Some(u64::from(high) << 32 | u64::from(self.bytes.le32(0x8)?))
    }

    /// The size of the journal; the superblock has a copy of its inode.
    fn journal_bytes(&self) -> Option<u64> {
        let high = self.bytes.le32(0x148)?;
        Some(u64::from(high) << 32 | u64::from(self.bytes.le32(0x14C)?)).filter(|_| self.has("has_journal"))
    }

    /// How far the room for more group descriptors lets it grow, in blocks, as `mke2fs -E resize` counts.
    fn resize_blocks(&self) -> Option<u64> {
        let reserved = u64::from(self.bytes.le16(0xCE)?);
        let descriptor = if self.has("64bit") { u64::from(self.bytes.le16(0xFE)?.max(32)) } else { 32 };
        let per_block = self.block_bytes()?.checked_div(descriptor)?;
        // Of clusters mke2fs reckons by the groups that there would be of blocks.
        let per_group = match self.has("bigalloc") {
            true => self.block_bytes()?.checked_mul(8)?,
            false => u64::from(self.bytes.le32(0x20)?),
        };
        let groups =
            self.blocks()?.checked_sub(u64::from(self.bytes.le32(0x14)?))?.div_ceil(per_group.max(1));
        let blocks = groups.div_ceil(per_block.max(1)).checked_add(reserved)?;
        blocks.checked_mul(per_block)?.checked_mul(per_group).filter(|_| reserved > 0)
    }

    fn text(&self, at: usize, len: usize) -> Option<String> {
        let field = self.bytes.slice(at, len)?.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(field).into_owned())
    }

    /// The kinds of quota that it keeps.
    fn quotas(&self) -> Option<Vec<&'static str>> {
        let kinds = [(0x240, "usrquota"), (0x244, "grpquota"), (0x26C, "prjquota")];
        let mut found = Vec::new();
        for (at, kind) in kinds {
            if self.has("quota") && self.bytes.le32(at)? != 0 {
                found.push(kind);
            }
        }
        Some(found)
    }

    /// The arguments of mke2fs.
    fn make(&self) -> Option<Vec<String>> {
        let features = std::iter::once("none").chain(self.features.iter().copied()).collect::<Vec<_>>();
        let mut arguments = words(["-q", "-F", "-O"]);
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        arguments_of_size(self, &mut add)?;
        add("-U", self.bytes.uuid(0x68).unwrap_or_else(|| "clear".to_owned()));
        add("-L", self.text(0x78, 16)?);
        add("-M", self.text(0x88, 64)?);
        add("-m", "0".to_owned());
        if let Some(bytes) = self.journal_bytes() {
            add("-J", format!("size={}", bytes >> 20));
        }
        add("-E", self.extended()?.join(","));
        arguments.insert(3, features.join(","));
        arguments.extend([DEVICE.to_owned(), self.blocks()?.to_string()]);
        Some(arguments)
    }

    /// What mke2fs takes behind `-E`.
    fn extended(&self) -> Option<Vec<String>> {
        // What reads as zeros is not written. What was discarded would count as cleared, and so would have to be put back.
        let mut extended = words(["lazy_itable_init=1", "lazy_journal_init=1", "nodiscard"]);
        if self.has("resize_inode") {
            extended.extend(self.resize_blocks().map(|blocks| format!("resize={blocks}")));
        }
        extended.extend(self.bytes.uuid(0xEC).map(|seed| format!("hash_seed={seed}")));
        for (at, name) in [(0x164, "stride"), (0x170, "stripe_width")] {
            let value = if at == 0x164 { u32::from(self.bytes.le16(at)?) } else { self.bytes.le32(at)? };
            if value > 0 {
                extended.push(format!("{name}={value}"));
            }
        }
        if self.has("mmp") {
            extended.push(format!("mmp_update_interval={}", self.bytes.le16(0x166)?));
        }
        if self.has("sparse_super2") {
            let copies =
                [0x24C, 0x250].iter().filter(|at| self.bytes.le32(**at).is_some_and(|group| group > 0));
            extended.push(format!("num_backup_sb={}", copies.count()));
        }
        if self.has("casefold") {
            extended.push("encoding=utf8".to_owned());
            if self.bytes.le16(0x27E)? & 1 != 0 {
                extended.push("encoding_flags=strict".to_owned());
            }
        }
        let quotas = self.quotas()?;
        if !quotas.is_empty() {
            extended.push(format!("quotatype={}", quotas.join(":")));
        }
        Some(extended)
    }

    /// What debugfs sets.
    fn settings(&self) -> Option<String> {
        let b = self.bytes;
        let numbers = [
            ("r_blocks_count", self.reserved_blocks()?),
            ("max_mnt_count", u64::from(b.le16(0x36)?)),
            ("errors", u64::from(b.le16(0x3C)?)),
            ("checkinterval", u64::from(b.le32(0x44)?)),
            ("def_resuid", u64::from(b.le16(0x50)?)),
            ("def_resgid", u64::from(b.le16(0x52)?)),
            ("def_hash_version", u64::from(b.byte(0xFC)?)),
            ("default_mount_opts", u64::from(b.le32(0x100)?)),
            ("min_extra_isize", u64::from(b.le16(0x15C)?)),
            ("want_extra_isize", u64::from(b.le16(0x15E)?)),
            ("flags", u64::from(b.le32(0x160)?)),
        ];
        let mut text: String = numbers.iter().map(|(name, value)| format!("ssv {name} {value}\n")).collect();
        text.push_str(&format!("ssv mkfs_time @{}\n", b.le32(0x108)?));
        let options = self.text(0x200, 64)?;
        if !options.is_empty() {
            text.push_str(&format!("ssv mount_opts {options}\n"));
        }
        Some(text)
    }

    fn parameters(&self) -> Option<BTreeMap<&'static str, String>> {
        let b = self.bytes;
        let mut all: BTreeMap<&'static str, String> = BTreeMap::new();
        let bits = |at, states: u32| Some(format!("{:#x}", b.le32(at)? & !states));
        all.insert("features", self.features.join(" "));
        all.insert("uuid", b.uuid(0x68).unwrap_or_default());
        all.insert("label", self.text(0x78, 16)?);
        all.insert("last mounted on", self.text(0x88, 64)?);
        all.insert("blocks", self.blocks()?.to_string());
        all.insert("reserved blocks", self.reserved_blocks()?.to_string());
        all.insert("journal bytes", self.journal_bytes().unwrap_or(0).to_string());
        all.insert("hash seed", b.uuid(0xEC).unwrap_or_default());
        all.insert("mount options", self.text(0x200, 64)?);
        all.insert("default mount options", bits(0x100, 0)?);
        all.insert("flags", bits(0x160, 0)?);
        all.insert("quotas", self.quotas()?.join(" "));
        all.insert("features compat", bits(0x5C, 0)?);
        all.insert("features incompat", bits(0x60, 0x4)?);
        all.insert("features ro_compat", bits(0x64, 0x1_0000)?);
        let longs = [
            ("inodes", 0x0),
            ("first data block", 0x14),
            ("block size (2^(10+n))", 0x18),
            ("cluster size (2^(10+n))", 0x1C),
            ("blocks per group", 0x20),
            ("clusters per group", 0x24),
            ("inodes per group", 0x28),
            ("check interval", 0x44),
            ("creator", 0x48),
            ("revision", 0x4C),
            ("first inode", 0x54),
            ("first meta group", 0x104),
            ("made at", 0x108),
            ("stripe width", 0x170),
            ("checksum seed", 0x270),
        ];
        for (name, at) in longs {
            all.insert(name, b.le32(at)?.to_string());
        }
        let shorts = [
            ("most mounts", 0x36),
            ("on errors", 0x3C),
            ("reserved for user", 0x50),
            ("reserved for group", 0x52),
            ("inode size", 0x58),
            ("reserved group descriptors", 0xCE),
            ("group descriptor size", 0xFE),
            ("least extra inode size", 0x15C),
            ("wanted extra inode size", 0x15E),
            ("stride", 0x164),
            ("update interval of mmp", 0x166),
            ("encoding", 0x27C),
            ("encoding flags", 0x27E),
        ];
        for (name, at) in shorts {
            all.insert(name, b.le16(at)?.to_string());
        }
        all.insert("hash version", b.byte(0xFC)?.to_string());
        all.insert("groups per flex (2^n)", b.byte(0x174)?.to_string());
        Some(all)
    }
}

/// What says how large everything is.
fn arguments_of_size(found: &Super<'_>, add: &mut impl FnMut(&str, String)) -> Option<()> {
    let b = found.bytes;
    let block = found.block_bytes()?;
    add("-b", block.to_string());
    if found.has("bigalloc") {
        add("-C", 1024_u64.checked_shl(b.le32(0x1C)?)?.to_string());
    } else if u64::from(b.le32(0x20)?) != block.checked_mul(8)? {
        add("-g", b.le32(0x20)?.to_string());
    }
    if found.has("flex_bg") && b.byte(0x174)? > 0 {
        add("-G", 1_u64.checked_shl(b.byte(0x174)?.into())?.to_string());
    }
    add("-I", b.le16(0x58)?.to_string());
    add("-N", b.le32(0x0)?.to_string());
    Some(())
}
