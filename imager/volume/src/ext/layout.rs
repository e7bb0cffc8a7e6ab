//! Where an ext filesystem's fixed structures lie, from a superblock whose numbers were checked against each other.
//!
//! The formulas are the kernel's (fs/ext4/super.c `descriptor_loc`, fs/ext4/balloc.c `ext4_bg_has_super`,
//! `ext4_num_base_meta_clusters`) and agree with libext2fs (`ext2fs_super_and_bgd_loc2`). Block and group numbers are
//! 64-bit throughout. A `Layout` exists only if the filesystem lies inside its volume, so no position derived from it
//! overflows; the saturating arithmetic below never saturates.

use super::features::{
    COMPAT_SPARSE_SUPER2, INCOMPAT_64BIT, INCOMPAT_META_BG, RO_COMPAT_BIGALLOC, RO_COMPAT_SPARSE_SUPER,
};
use super::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

const EXT4_MIN_DESC_SIZE: u64 = 32;
const EXT4_MIN_DESC_SIZE_64BIT: u64 = 64;
const EXT4_MAX_DESC_SIZE: u64 = 1024;
const EXT4_MAX_CLUSTER_LOG_SIZE: u32 = 20;
const EXT4_MAX_SUPP_REV: u32 = 1;

/// The geometry of one filesystem; numbers are blocks unless they say otherwise.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) block_bytes: u64,
    /// Blocks in a cluster, the unit of the bitmaps: 1 without `bigalloc`.
    pub(super) cluster_blocks: u64,
    pub(super) blocks: u64,
    pub(super) first_data_block: u64,
    pub(super) group_blocks: u64,
    pub(super) groups: u64,
    pub(super) group_clusters: u64,
    pub(super) inode_table_blocks: u64,
    pub(super) desc_bytes: u64,
    pub(super) descs_per_block: u64,
    /// How many blocks one copy of all group descriptors takes.
    pub(super) desc_blocks: u64,
    reserved_gdt_blocks: u64,
    /// From this descriptor block on, descriptors lie in their own meta group.
    first_meta_bg: u64,
    sparse: Sparse,
}

/// Which groups hold a copy of the superblock.
#[derive(Debug)]
enum Sparse {
    All,
    Powers,
    Listed([u32; 2]),
}

fn ensure(sound: bool, otherwise: &str) -> Result<()> {
    if sound { Ok(()) } else { Err(Error::corrupt(format!("superblock: {otherwise}"))) }
}

impl Layout {
    /// Derives the layout of a filesystem on a volume of `size`.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` when the superblock's numbers contradict each other or the volume.
    pub(super) fn new(sb: &Superblock, size: ByteLen) -> Result<Self> {
        if sb.s_rev_level > EXT4_MAX_SUPP_REV {
            return Err(Error::unsupported(format!("unknown revision {}", sb.s_rev_level)));
        }
        let block_bytes = 1024_u64.checked_shl(sb.s_log_block_size).unwrap_or(u64::MAX);
        let cluster_blocks = cluster_blocks(sb)?;
        let blocks = sb.s_blocks_count;
        let end = blocks.checked_mul(block_bytes);
        ensure(end.is_some_and(|end| end <= size.get()), "the filesystem is longer than its volume")?;
        let first_data_block = u64::from(sb.s_first_data_block);
        let one = u64::from(block_bytes == 1024 && cluster_blocks == 1);
        ensure(first_data_block == one, "the first data block is not where it must be")?;
        ensure(blocks > first_data_block, "it has no blocks")?;
        let group_blocks = u64::from(sb.s_blocks_per_group);
        let group_clusters = group_blocks.checked_div(cluster_blocks).unwrap_or_default();
        let bitmap_bits = block_bytes.saturating_mul(8);
        ensure((1..=bitmap_bits).contains(&group_clusters), "blocks per group do not fit a bitmap")?;
        ensure(
            cluster_blocks == 1 || group_clusters == u64::from(sb.s_clusters_per_group),
            "clusters per group do not match blocks per group",
        )?;
        let groups = blocks.saturating_sub(first_data_block).div_ceil(group_blocks);
        ensure(groups <= u64::from(u32::MAX), "more groups than there can be")?;
        let desc_bytes = desc_bytes(sb)?;
        let descs_per_block = block_bytes.checked_div(desc_bytes).unwrap_or(1);
        let desc_blocks = groups.div_ceil(descs_per_block);
        Ok(Self {
            block_bytes,
            cluster_blocks,
            blocks,
            first_data_block,
            group_blocks,
            groups,
            group_clusters,
            inode_table_blocks: inode_table_blocks(sb, block_bytes, groups)?,
            desc_bytes,
            descs_per_block,
            desc_blocks,
            reserved_gdt_blocks: reserved_gdt_blocks(sb, block_bytes)?,
            first_meta_bg: first_meta_bg(sb, desc_blocks)?,
            sparse: sparse(sb),
        })
    }

    /// Its block as a length.
    pub(super) fn block(&self) -> ByteLen {
        ByteLen::new(self.block_bytes)
    }

    /// Its cluster as a length; without `bigalloc` its block.
    pub(super) fn cluster(&self) -> ByteLen {
        ByteLen::new(self.block_bytes.saturating_mul(self.cluster_blocks))
    }

    /// The bytes of blocks `from..to`, cut to the filesystem.
    pub(super) fn extent(&self, from: u64, to: u64) -> Extent {
        let at = |block: u64| ByteOffset::new(block.min(self.blocks).saturating_mul(self.block_bytes));
        Extent::between(at(from), at(to))
    }

    /// The first block of `group`.
    pub(super) fn first_block(&self, group: u64) -> u64 {
        self.first_data_block.saturating_add(group.saturating_mul(self.group_blocks))
    }

    /// The first block behind `group`.
    pub(super) fn end_block(&self, group: u64) -> u64 {
        self.first_block(group.saturating_add(1)).min(self.blocks)
    }

    /// How many clusters `group` has; the last group may have fewer.
    pub(super) fn clusters_of(&self, group: u64) -> u64 {
        self.end_block(group).saturating_sub(self.first_block(group)).div_ceil(self.cluster_blocks)
    }

    /// The block of the primary superblock.
    fn superblock_block(&self) -> u64 {
        u64::from(self.block_bytes == SUPERBLOCK_OFFSET)
    }

    /// Whether `group` begins with a copy of the superblock (`ext4_bg_has_super`).
    pub(super) fn has_super(&self, group: u64) -> bool {
        match self.sparse {
            _ if group == 0 => true,
            Sparse::All => true,
            Sparse::Listed(groups) => groups.iter().any(|&listed| u64::from(listed) == group),
            Sparse::Powers => group == 1 || [3, 5, 7].iter().any(|&base| is_power(group, base)),
        }
    }

    /// How many blocks at the start of `group` the superblock, the group descriptors and the room reserved for more
    /// of them take (`ext4_num_base_meta_clusters`), before its bitmaps.
    pub(super) fn base_blocks(&self, group: u64) -> u64 {
        let has_super = self.has_super(group);
        let meta_group = group.checked_div(self.descs_per_block).unwrap_or_default();
        let blocks = if meta_group < self.first_meta_bg {
            let descs = self.desc_blocks.min(self.first_meta_bg).saturating_add(self.reserved_gdt_blocks);
            if has_super { descs.saturating_add(1) } else { 0 }
        } else {
            let place = group.checked_rem(self.descs_per_block).unwrap_or_default();
            let last = self.descs_per_block.saturating_sub(1);
            let descs = u64::from(place == 0 || place == 1 || place == last);
            descs.saturating_add(u64::from(has_super))
        };
        blocks.saturating_add(self.boot_block(group))
    }

    /// With blocks of 1 KiB in larger clusters, group 0 starts at block 0 and the superblock still lies in block 1.
    fn boot_block(&self, group: u64) -> u64 {
        u64::from(group == 0 && self.superblock_block() == 1 && self.first_data_block == 0)
    }

    /// The block of descriptor block `index` (`descriptor_loc`), the copy that the kernel uses.
    pub(super) fn desc_block(&self, index: u64) -> u64 {
        if index < self.first_meta_bg {
            return self.superblock_block().saturating_add(1).saturating_add(index);
        }
        let group = index.saturating_mul(self.descs_per_block);
        let behind = u64::from(self.has_super(group)).saturating_add(self.boot_block(group));
        self.first_block(group).saturating_add(behind)
    }

    /// The groups that hold a copy of the superblock, in order.
    pub(super) fn super_groups(&self) -> Vec<u64> {
        match &self.sparse {
            // Only filesystems from before 1999 and deliberate ones keep a copy in every group. So many groups were
            // never on one: beyond them the copies are left to the map, which has them all.
            Sparse::All => (0..self.groups.min(1 << 20)).collect(),
            Sparse::Listed(groups) => {
                let mut groups = vec![0, u64::from(groups[0]), u64::from(groups[1])];
                groups.retain(|&group| group < self.groups);
                groups.sort_unstable();
                groups.dedup();
                groups
            }
            Sparse::Powers => {
                let powers = [3_u64, 5, 7].into_iter().flat_map(|base| {
                    std::iter::successors(Some(base), move |power| power.checked_mul(base))
                        .take_while(|&power| power < self.groups)
                });
                let mut groups: Vec<u64> =
                    [0, 1].into_iter().filter(|&g| g < self.groups).chain(powers).collect();
                groups.sort_unstable();
                groups
            }
        }
    }

    /// The bytes up to the end of the block with the primary superblock: the boot block is part of it.
    pub(super) fn primary(&self) -> Extent {
        let end = SUPERBLOCK_OFFSET.saturating_add(SUPERBLOCK_BYTES).max(self.block_bytes);
        Extent::first(ByteLen::new(end))
    }
}

fn is_power(mut number: u64, base: u64) -> bool {
    while number.checked_rem(base) == Some(0) && number > 1 {
        number = number.checked_div(base).unwrap_or_default();
    }
    number == 1
}

fn cluster_blocks(sb: &Superblock) -> Result<u64> {
    if !sb.features.ro_compat(RO_COMPAT_BIGALLOC) {
        return Ok(1);
    }
    ensure(sb.s_log_cluster_size <= EXT4_MAX_CLUSTER_LOG_SIZE, "the cluster size is out of range")?;
    let log = sb.s_log_cluster_size.checked_sub(sb.s_log_block_size);
    let ratio = log.and_then(|log| 1_u64.checked_shl(log));
    ratio.ok_or_else(|| Error::corrupt("superblock: a cluster is smaller than a block"))
}

fn desc_bytes(sb: &Superblock) -> Result<u64> {
    if !sb.features.incompat(INCOMPAT_64BIT) {
        return Ok(EXT4_MIN_DESC_SIZE);
    }
    let bytes = u64::from(sb.s_desc_size);
    let sound = (EXT4_MIN_DESC_SIZE_64BIT..=EXT4_MAX_DESC_SIZE).contains(&bytes) && bytes.is_power_of_two();
    ensure(sound, "the group descriptor size is out of range")?;
    Ok(bytes)
}

fn inode_table_blocks(sb: &Superblock, block_bytes: u64, groups: u64) -> Result<u64> {
    let inode_bytes = u64::from(sb.s_inode_size);
    let sound = (128..=block_bytes).contains(&inode_bytes) && inode_bytes.is_power_of_two();
    ensure(sound, "the inode size is out of range")?;
    let inodes = u64::from(sb.s_inodes_per_group);
    ensure((1..=block_bytes.saturating_mul(8)).contains(&inodes), "inodes per group do not fit a bitmap")?;
    ensure(
        inodes.checked_mul(groups) == Some(u64::from(sb.s_inodes_count)),
        "the number of inodes does not match the number of groups",
    )?;
    Ok(inodes.saturating_mul(inode_bytes).div_ceil(block_bytes))
}

fn reserved_gdt_blocks(sb: &Superblock, block_bytes: u64) -> Result<u64> {
    let blocks = u64::from(sb.s_reserved_gdt_blocks);
    // One indirect block of the resize inode names them all.
    ensure(blocks.saturating_mul(4) <= block_bytes, "too many blocks are reserved for group descriptors")?;
    Ok(blocks)
}

fn first_meta_bg(sb: &Superblock, desc_blocks: u64) -> Result<u64> {
    if !sb.features.incompat(INCOMPAT_META_BG) {
        return Ok(u64::MAX);
    }
    let first = u64::from(sb.s_first_meta_bg);
    ensure(first <= desc_blocks, "the first meta group lies behind the last")?;
    Ok(first)
}

fn sparse(sb: &Superblock) -> Sparse {
    if sb.features.compat(COMPAT_SPARSE_SUPER2) {
        Sparse::Listed(sb.s_backup_bgs)
    } else if sb.features.ro_compat(RO_COMPAT_SPARSE_SUPER) {
        Sparse::Powers
    } else {
        Sparse::All
    }
}
