//! Feature bits (fs/xfs/libxfs/xfs_format.h, `XFS_SB_VERSION_*` and `XFS_SB_FEAT_*`), and which of them the map is
//! right for.
//!
//! Ours is stricter than the kernel's rule: an unknown read-only bit makes the volume whole as well, for such bits
//! (reverse maps, reflinks) brought trees that take space. Unknown *compatible* bits are harmless by definition.

const VERSION_NUMBITS: u16 = 0x000F;
const VERSION_4: u16 = 4;
const VERSION_5: u16 = 5;
/// What version 4 may have: attributes, links, quotas, alignments, log 2, sectors, unwritten extents, directories 2,
/// case folding, and more bits. Not among them: shared (0x0200), which nobody ever wrote.
const VERSION_KNOWN: u16 = VERSION_NUMBITS | 0xFDF0;
const VERSION_MOREBITS: u16 = 0x8000;

const VERSION2_LAZYSBCOUNT: u32 = 0x0002;
const VERSION2_FTYPE: u32 = 0x0200;
/// Lazy counters, attributes 2, parents (only SGI's), 32-bit project numbers, checksums, file types.
const VERSION2_KNOWN: u32 = VERSION2_LAZYSBCOUNT | 0x0008 | 0x0010 | 0x0080 | 0x0100 | VERSION2_FTYPE;

/// Free inodes' tree, reverse maps, reflinks, counts of inode trees.
const RO_COMPAT_KNOWN: u32 = RO_COMPAT_FINOBT | RO_COMPAT_RMAPBT | RO_COMPAT_REFLINK | RO_COMPAT_INOBTCNT;
const RO_COMPAT_FINOBT: u32 = 1;
const RO_COMPAT_RMAPBT: u32 = 2;
const RO_COMPAT_REFLINK: u32 = 4;
const RO_COMPAT_INOBTCNT: u32 = 8;

const INCOMPAT_FTYPE: u32 = 1;
const INCOMPAT_SPINODES: u32 = 2;
const INCOMPAT_META_UUID: u32 = 4;
const INCOMPAT_BIGTIME: u32 = 8;
const INCOMPAT_NEEDSREPAIR: u32 = 0x10;
const INCOMPAT_NREXT64: u32 = 0x20;
const INCOMPAT_EXCHRANGE: u32 = 0x40;
const INCOMPAT_PARENT: u32 = 0x80;
/// Incompatible bits under which the map is right, or (`NEEDSREPAIR`) that are answered on their own. Not among them:
/// metadata directories (0x100) and zones (0x200, 0x400), with which space is governed elsewhere too.
const INCOMPAT_KNOWN: u32 = INCOMPAT_FTYPE
    | INCOMPAT_SPINODES
    | INCOMPAT_META_UUID
    | INCOMPAT_BIGTIME
    | INCOMPAT_NEEDSREPAIR
    | INCOMPAT_NREXT64
    | INCOMPAT_EXCHRANGE
    | INCOMPAT_PARENT;

/// Changes of attributes in the log as intents.
const LOG_INCOMPAT_KNOWN: u32 = 1;

/// The words of feature bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Features {
    pub(super) sb_versionnum: u16,
    pub(super) sb_features2: u32,
    pub(super) sb_bad_features2: u32,
    pub(super) sb_features_ro_compat: u32,
    pub(super) sb_features_incompat: u32,
    pub(super) sb_features_log_incompat: u32,
}

impl Features {
    /// Version 5: checksums, owners and UUIDs in every structure.
    pub(super) fn has_crc(self) -> bool {
        self.version() == VERSION_5
    }

    /// The superblock's counters are right only after a proper unmount, and count the blocks of the free space trees.
    pub(super) fn has_lazy_counters(self) -> bool {
        self.has_crc() || self.features2() & VERSION2_LAZYSBCOUNT != 0
    }

    pub(super) fn has_rmapbt(self) -> bool {
        self.has_crc() && self.sb_features_ro_compat & RO_COMPAT_RMAPBT != 0
    }

    /// The UUID in every structure is not the one that people see.
    pub(super) fn has_meta_uuid(self) -> bool {
        self.has_crc() && self.sb_features_incompat & INCOMPAT_META_UUID != 0
    }

    /// Entries of directories say what they name.
    pub(super) fn has_ftype(self) -> bool {
        match self.has_crc() {
            true => self.sb_features_incompat & INCOMPAT_FTYPE != 0,
            false => self.features2() & VERSION2_FTYPE != 0,
        }
    }

    pub(super) fn needs_repair(self) -> bool {
        self.has_crc() && self.sb_features_incompat & INCOMPAT_NEEDSREPAIR != 0
    }

    /// Which of them are not known, as a reason; `None` when all are.
    pub(super) fn unknown(self) -> Option<String> {
        match self.version() {
            VERSION_4 => self.unknown_in_4(),
            VERSION_5 => self.unknown_in_5(),
            other => Some(format!("version {other} of the format is not known")),
        }
    }

    fn unknown_in_4(self) -> Option<String> {
        let bits = self.sb_versionnum & !VERSION_KNOWN;
        let more = self.features2() & !VERSION2_KNOWN;
        (bits != 0 || more != 0).then(|| format!("unknown version bits {bits:#x} and {more:#x}"))
    }

    fn unknown_in_5(self) -> Option<String> {
        let words = [
            ("incompatible", self.sb_features_incompat & !INCOMPAT_KNOWN),
            ("read-only", self.sb_features_ro_compat & !RO_COMPAT_KNOWN),
            ("log", self.sb_features_log_incompat & !LOG_INCOMPAT_KNOWN),
        ];
        let unknown = words.into_iter().find(|&(_, bits)| bits != 0);
        unknown.map(|(word, bits)| format!("unknown {word} feature bits {bits:#x}"))
    }

    fn version(self) -> u16 {
        self.sb_versionnum & VERSION_NUMBITS
    }

    /// A compiler once put the word four bytes further on: the kernel takes both (`xfs_sb_has_mismatched_features2`).
    fn features2(self) -> u32 {
        match self.sb_versionnum & VERSION_MOREBITS {
            0 => 0,
            _ => self.sb_features2 | self.sb_bad_features2,
        }
    }
}
