//! Feature bits (fs/ext4/ext4.h, `EXT4_FEATURE_*`), and which of them this map is right for.
//!
//! The kernel's rule is that unknown *incompatible* bits forbid reading and unknown *read-only* bits forbid writing.
//! Ours is stricter: `bigalloc` is a read-only bit and changes what a bitmap's bits mean, so an unknown bit of either
//! sort makes the volume whole. Unknown *compatible* bits are harmless by definition.

pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x0004;
pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x0200;

pub(super) const INCOMPAT_FILETYPE: u32 = 0x0002;
pub(super) const INCOMPAT_RECOVER: u32 = 0x0004;
pub(super) const INCOMPAT_JOURNAL_DEV: u32 = 0x0008;
pub(super) const INCOMPAT_META_BG: u32 = 0x0010;
pub(super) const INCOMPAT_EXTENTS: u32 = 0x0040;
pub(super) const INCOMPAT_64BIT: u32 = 0x0080;
pub(super) const INCOMPAT_MMP: u32 = 0x0100;
pub(super) const INCOMPAT_FLEX_BG: u32 = 0x0200;
pub(super) const INCOMPAT_EA_INODE: u32 = 0x0400;
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
pub(super) const INCOMPAT_LARGEDIR: u32 = 0x4000;
pub(super) const INCOMPAT_INLINE_DATA: u32 = 0x8000;
pub(super) const INCOMPAT_ENCRYPT: u32 = 0x1_0000;
pub(super) const INCOMPAT_CASEFOLD: u32 = 0x2_0000;

pub(super) const RO_COMPAT_SPARSE_SUPER: u32 = 0x0001;
pub(super) const RO_COMPAT_LARGE_FILE: u32 = 0x0002;
pub(super) const RO_COMPAT_BTREE_DIR: u32 = 0x0004;
pub(super) const RO_COMPAT_HUGE_FILE: u32 = 0x0008;
pub(super) const RO_COMPAT_GDT_CSUM: u32 = 0x0010;
pub(super) const RO_COMPAT_DIR_NLINK: u32 = 0x0020;
pub(super) const RO_COMPAT_EXTRA_ISIZE: u32 = 0x0040;
pub(super) const RO_COMPAT_QUOTA: u32 = 0x0100;
pub(super) const RO_COMPAT_BIGALLOC: u32 = 0x0200;
pub(super) const RO_COMPAT_METADATA_CSUM: u32 = 0x0400;
pub(super) const RO_COMPAT_READONLY: u32 = 0x1000;
pub(super) const RO_COMPAT_PROJECT: u32 = 0x2000;
pub(super) const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;
pub(super) const RO_COMPAT_VERITY: u32 = 0x8000;
pub(super) const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// Incompatible bits under which the map is right, or (`RECOVER`, `JOURNAL_DEV`) that are answered on their own.
pub(super) const KNOWN_INCOMPAT: u32 = INCOMPAT_FILETYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_JOURNAL_DEV
    | INCOMPAT_META_BG
    | INCOMPAT_EXTENTS
    | INCOMPAT_64BIT
    | INCOMPAT_MMP
    | INCOMPAT_FLEX_BG
    | INCOMPAT_EA_INODE
    | INCOMPAT_CSUM_SEED
    | INCOMPAT_LARGEDIR
    | INCOMPAT_INLINE_DATA
    | INCOMPAT_ENCRYPT
    | INCOMPAT_CASEFOLD;

/// Read-only bits under which the map is right. Not among them: snapshots (0x80) and replicas (0x800), which no
/// mainline kernel or e2fsprogs ever made.
pub(super) const KNOWN_RO_COMPAT: u32 = RO_COMPAT_SPARSE_SUPER
    | RO_COMPAT_LARGE_FILE
    | RO_COMPAT_BTREE_DIR
    | RO_COMPAT_HUGE_FILE
    | RO_COMPAT_GDT_CSUM
    | RO_COMPAT_DIR_NLINK
    | RO_COMPAT_EXTRA_ISIZE
    | RO_COMPAT_QUOTA
    | RO_COMPAT_BIGALLOC
    | RO_COMPAT_METADATA_CSUM
    | RO_COMPAT_READONLY
    | RO_COMPAT_PROJECT
    | RO_COMPAT_SHARED_BLOCKS
    | RO_COMPAT_VERITY
    | RO_COMPAT_ORPHAN_PRESENT;

/// What an ext2 driver understands; more makes it ext3 or ext4 (libblkid, src/superblocks/ext.c).
const EXT2_INCOMPAT: u32 = INCOMPAT_FILETYPE | INCOMPAT_META_BG;
const EXT3_INCOMPAT: u32 = EXT2_INCOMPAT | INCOMPAT_RECOVER;
const EXT3_RO_COMPAT: u32 = RO_COMPAT_SPARSE_SUPER | RO_COMPAT_LARGE_FILE | RO_COMPAT_BTREE_DIR;

/// The three words of feature bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Features {
    pub(super) s_feature_compat: u32,
    pub(super) s_feature_incompat: u32,
    pub(super) s_feature_ro_compat: u32,
}

impl Features {
    pub(super) fn compat(self, bit: u32) -> bool {
        self.s_feature_compat & bit != 0
    }

    pub(super) fn incompat(self, bit: u32) -> bool {
        self.s_feature_incompat & bit != 0
    }

    pub(super) fn ro_compat(self, bit: u32) -> bool {
        self.s_feature_ro_compat & bit != 0
    }

    /// Whether group descriptors carry a checksum; only then do their flags mean anything.
    pub(super) fn has_group_desc_csum(self) -> bool {
        self.ro_compat(RO_COMPAT_GDT_CSUM | RO_COMPAT_METADATA_CSUM)
    }

    /// Which bits are not known, as a reason; `None` when all are.
    pub(super) fn unknown(self) -> Option<String> {
        let incompat = self.s_feature_incompat & !KNOWN_INCOMPAT;
        let ro_compat = self.s_feature_ro_compat & !KNOWN_RO_COMPAT;
        match (incompat, ro_compat) {
            (0, 0) => None,
            (bits, 0) => Some(format!("unknown incompatible feature bits {bits:#x}")),
            (0, bits) => Some(format!("unknown read-only feature bits {bits:#x}")),
            (a, b) => Some(format!("unknown feature bits, incompatible {a:#x} and read-only {b:#x}")),
        }
    }

    /// The name that `blkid` gives it.
    pub(super) fn kind(self) -> &'static str {
        let journal = self.compat(COMPAT_HAS_JOURNAL);
        if self.incompat(INCOMPAT_JOURNAL_DEV) {
            "jbd"
        } else if self.s_feature_incompat & !EXT3_INCOMPAT != 0
            || self.s_feature_ro_compat & !EXT3_RO_COMPAT != 0
        {
            "ext4"
        } else if journal {
            "ext3"
        } else {
            "ext2"
        }
    }
}
