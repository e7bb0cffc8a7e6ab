//! An allocation group's header of free space (fs/xfs/libxfs/xfs_format.h, `struct xfs_agf`).

use super::checksum;
use super::layout::Layout;
use super::superblock::Superblock;
use crate::bytes::Bytes;
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{Error, Result};

const XFS_AGF_MAGIC: &[u8] = b"XAGF";
const XFS_AGF_VERSION: u32 = 1;
const AGF_UUID_OFFSET: usize = 64;
const AGF_CRC_OFFSET: usize = 216;
/// More levels than any tree of a group can have (`XFS_BTREE_MAXLEVELS`).
const MOST_LEVELS: u32 = 9;

/// One group: where its trees of free space begin, and what they must add up to.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) number: u64,
    pub(super) blocks: u64,
    pub(super) by_block: Root,
    pub(super) by_count: Root,
    /// Blocks of the group's own reserve.
    pub(super) agf_flcount: u64,
    pub(super) agf_freeblks: u64,
    pub(super) agf_longest: u64,
    /// Blocks of the trees of free space and of the reverse map, without their roots.
    pub(super) agf_btreeblks: u64,
    pub(super) agf_rmap_blocks: u64,
}

/// Where a tree begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) block: u32,
    pub(super) levels: u32,
}

impl Group {
    /// Reads the header of group `number`.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when its checksum is wrong or it contradicts the superblock.
    pub(super) fn read(volume: &dyn ReadAt, sb: &Superblock, layout: &Layout, number: u64) -> Result<Self> {
        let headers = read(volume, layout.headers(number))?;
        let len = usize::try_from(layout.sector_bytes).unwrap_or(usize::MAX);
        let agf = headers.chunks_exact(len).nth(1).unwrap_or_default();
        let wrong = |what: &str| Error::corrupt(format!("allocation group {number}: {what}"));
        let b = Bytes(agf);
        if !b.is(0, XFS_AGF_MAGIC) || b.be32(4) != Some(XFS_AGF_VERSION) {
            return Err(wrong("there is no header of its free space"));
        }
        if sb.features.has_crc() {
            if !checksum::is_right(agf, AGF_CRC_OFFSET) {
                return Err(wrong("the checksum of its header of free space is wrong"));
            }
            if b.array(AGF_UUID_OFFSET) != Some(sb.meta_uuid) {
                return Err(wrong("its header of free space is another filesystem's"));
            }
        }
        let group = fields(number, b, sb).filter(|group| b.be32(8).map(u64::from) == Some(group.number));
        let group = group.filter(|group| group.is_sound(layout));
        group.ok_or_else(|| wrong("its header of free space contradicts the superblock"))
    }

    fn is_sound(&self, layout: &Layout) -> bool {
        let inside = |root: Root| {
            (layout.header_blocks()..self.blocks).contains(&u64::from(root.block))
                && (1..=MOST_LEVELS).contains(&root.levels)
        };
        self.blocks == layout.blocks_of(self.number)
            && inside(self.by_block)
            && inside(self.by_count)
            && [self.agf_flcount, self.agf_freeblks, self.agf_longest, self.agf_btreeblks]
                .iter()
                .all(|&count| count <= self.blocks)
    }
}

fn fields(number: u64, b: Bytes<'_>, sb: &Superblock) -> Option<Group> {
    let count = |at| b.be32(at).map(u64::from);
    Some(Group {
        number,
        blocks: count(12)?,
        by_block: Root { block: b.be32(16)?, levels: b.be32(28)? },
        by_count: Root { block: b.be32(20)?, levels: b.be32(32)? },
        agf_flcount: count(48)?,
        agf_freeblks: count(52)?,
        agf_longest: count(56)?,
        agf_btreeblks: count(60)?,
        agf_rmap_blocks: if sb.features.has_rmapbt() { count(80)? } else { 0 },
    })
}
