//! Where things lie: allocation groups of equal length, one after the other, the last perhaps shorter.

use super::superblock::Superblock;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

/// `XFS_MIN_BLOCKSIZE_LOG`, `XFS_MAX_BLOCKSIZE_LOG`.
const BLOCK_LOGS: std::ops::RangeInclusive<u8> = 9..=16;
/// `XFS_MIN_SECTORSIZE_LOG`, `XFS_MAX_SECTORSIZE_LOG`.
const SECTOR_LOGS: std::ops::RangeInclusive<u8> = 9..=15;
/// `XFS_MIN_AG_BLOCKS`.
const LEAST_GROUP_BLOCKS: u64 = 64;
/// `XFS_AG_MIN_BYTES` of mkfs.xfs. Smaller groups are made for tests only, and few of them.
const LEAST_GROUP_BYTES: u64 = 16 << 20;
const FEW_GROUPS: u64 = 64;
/// `XFS_AG_MAX_BYTES`.
const MOST_GROUP_BYTES: u64 = 1 << 40;
/// Superblock, AGF, AGI, AGFL: a sector each at the start of every group.
const HEADER_SECTORS: u64 = 4;

/// The geometry of a filesystem that lies wholly inside its volume.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) block_bytes: u64,
    pub(super) sector_bytes: u64,
    pub(super) blocks: u64,
    pub(super) group_blocks: u64,
    pub(super) groups: u64,
    /// The log, inside one group; empty where it is on another device.
    pub(super) log: Extent,
}

impl Layout {
    /// # Errors
    /// `Corrupt` when the superblock's numbers contradict each other or the volume.
    pub(super) fn new(sb: &Superblock, size: ByteLen) -> Result<Self> {
        let (block_bytes, sector_bytes) = units(sb)?;
        let (blocks, group_blocks) = (sb.sb_dblocks, u64::from(sb.sb_agblocks));
        let groups = u64::from(sb.sb_agcount);
        let bytes = blocks.checked_mul(block_bytes);
        if bytes.is_none_or(|bytes| bytes > size.get()) {
            return Err(Error::corrupt("the filesystem is longer than its volume"));
        }
        let group_bytes = group_blocks.saturating_mul(block_bytes);
        let last = blocks.checked_sub(groups.saturating_sub(1).saturating_mul(group_blocks));
        let sound = groups > 0
            && (LEAST_GROUP_BLOCKS..).contains(&group_blocks)
            && (groups <= FEW_GROUPS || group_bytes >= LEAST_GROUP_BYTES)
            && group_bytes <= MOST_GROUP_BYTES
            && last.is_some_and(|last| (LEAST_GROUP_BLOCKS..=group_blocks).contains(&last))
            && u32::from(sb.sb_agblklog) == group_blocks.next_power_of_two().trailing_zeros();
        if !sound {
            let what = format!("{groups} allocation groups of {group_blocks} blocks do not make {blocks}");
            return Err(Error::corrupt(what));
        }
        let mut layout =
            Self { block_bytes, sector_bytes, blocks, group_blocks, groups, log: Extent::default() };
        layout.log = layout.log_of(sb)?;
        Ok(layout)
    }

    fn log_of(&self, sb: &Superblock) -> Result<Extent> {
        if sb.sb_logstart == 0 {
            return Ok(Extent::default());
        }
        // A block's number is that of its group, shifted, and its place there (XFS_FSB_TO_AGNO).
        let number = sb.sb_logstart.checked_shr(u32::from(sb.sb_agblklog)).unwrap_or(u64::MAX);
        let group = number.checked_shl(u32::from(sb.sb_agblklog)).unwrap_or(0);
        let from = sb.sb_logstart.saturating_sub(group);
        let to = from.saturating_add(u64::from(sb.sb_logblocks));
        let sound =
            number < self.groups && from >= self.header_blocks() && from < to && to <= self.blocks_of(number);
        match sound {
            true => Ok(self.extent(number, from, to)),
            false => Err(Error::corrupt("its log lies outside of its allocation group")),
        }
    }

    pub(super) fn block(&self) -> ByteLen {
        ByteLen::new(self.block_bytes)
    }

    /// How many blocks group `number` has.
    pub(super) fn blocks_of(&self, number: u64) -> u64 {
        self.blocks.saturating_sub(number.saturating_mul(self.group_blocks)).min(self.group_blocks)
    }

    /// How many blocks at the start of every group its headers take.
    pub(super) fn header_blocks(&self) -> u64 {
        self.sector_bytes.saturating_mul(HEADER_SECTORS).div_ceil(self.block_bytes)
    }

    /// The headers of group `number`.
    pub(super) fn headers(&self, number: u64) -> Extent {
        let start = self.extent(number, 0, 1).start();
        let len = ByteLen::new(self.sector_bytes.saturating_mul(HEADER_SECTORS));
        Extent::between(start, start.saturating_add(len))
    }

    /// Blocks `from..to` of group `number`.
    pub(super) fn extent(&self, number: u64, from: u64, to: u64) -> Extent {
        let first = number.saturating_mul(self.group_blocks);
        let at = |block: u64| ByteOffset::new(first.saturating_add(block).saturating_mul(self.block_bytes));
        Extent::between(at(from), at(to))
    }

    /// The first byte behind the filesystem.
    pub(super) fn end(&self) -> ByteOffset {
        ByteOffset::new(self.blocks.saturating_mul(self.block_bytes))
    }
}

fn units(sb: &Superblock) -> Result<(u64, u64)> {
    let power = |log: u8| 1_u64.checked_shl(u32::from(log)).unwrap_or(0);
    let (block, sector) = (power(sb.sb_blocklog), power(sb.sb_sectlog));
    let sound = BLOCK_LOGS.contains(&sb.sb_blocklog)
        && SECTOR_LOGS.contains(&sb.sb_sectlog)
        && block == u64::from(sb.sb_blocksize)
        && sector == u64::from(sb.sb_sectsize)
        && sector <= block;
    if !sound {
        let (blocks, sectors) = (sb.sb_blocksize, sb.sb_sectsize);
        return Err(Error::corrupt(format!("blocks of {blocks} and sectors of {sectors} bytes")));
    }
    Ok((block, sector))
}
