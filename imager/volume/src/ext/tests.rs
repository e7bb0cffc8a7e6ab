//! Small filesystems made here, hostile ones made of them, and one of twenty tebibytes. Real ones: tests/oracle.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen here, put into narrow fields")]

use super::checksum::crc32c;
use super::features::{
    INCOMPAT_64BIT, INCOMPAT_FLEX_BG, INCOMPAT_META_BG, RO_COMPAT_METADATA_CSUM, RO_COMPAT_SPARSE_SUPER,
};
use super::layout::Layout;
use super::superblock::Superblock;
use super::{Ext, superblock};
use crate::{Certainty, State, UsedBlocks, UsedMap};
use imager_disk::{Fault, FaultyDisk, MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
use proptest::prelude::{any, prop_assert, proptest};

/// What to make.
#[derive(Clone, Copy)]
struct Recipe {
    log_block: u32,
    blocks: u64,
    group_blocks: u64,
    inodes: u32,
    incompat: u32,
    ro_compat: u32,
}

/// Two groups of 256 blocks of 1 KiB, and a tail of three sectors.
const SMALL: Recipe =
    Recipe { log_block: 0, blocks: 512, group_blocks: 256, inodes: 16, incompat: 0, ro_compat: 0 };
const CHECKED: Recipe = Recipe { incompat: INCOMPAT_64BIT, ro_compat: RO_COMPAT_METADATA_CSUM, ..SMALL };
const TAIL_BYTES: u64 = 3 * 512;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl Recipe {
    fn block_bytes(self) -> u64 {
        1024 << self.log_block
    }

    fn size(self) -> ByteLen {
        ByteLen::new(self.blocks * self.block_bytes() + TAIL_BYTES)
    }

    fn is_checked(self) -> bool {
        self.ro_compat & RO_COMPAT_METADATA_CSUM != 0
    }

    fn superblock(self, free: u64) -> Vec<u8> {
        let first = u64::from(self.log_block == 0);
        let groups = (self.blocks - first).div_ceil(self.group_blocks) as u32;
        let mut sb = vec![0; 1024];
        for (at, value) in [
            (0x00, self.inodes * groups),
            (0x04, self.blocks as u32),
            (0x0C, free as u32),
            (0x14, first as u32),
            (0x18, self.log_block),
            (0x1C, self.log_block),
            (0x20, self.group_blocks as u32),
            (0x24, self.group_blocks as u32),
            (0x28, self.inodes),
            (0x4C, 1),
            (0x60, self.incompat),
            (0x64, self.ro_compat),
            (0x150, (self.blocks >> 32) as u32),
            (0x158, (free >> 32) as u32),
        ] {
            put(&mut sb, at, &value.to_le_bytes());
        }
        put(&mut sb, 0x38, &0xEF53_u16.to_le_bytes());
        put(&mut sb, 0x3A, &[1, 0]);
        put(&mut sb, 0x58, &128_u16.to_le_bytes());
        put(&mut sb, 0x68, &[7; 16]);
        put(&mut sb, 0x78, b"small");
        put(&mut sb, 0xFE, &64_u16.to_le_bytes());
        sb[0x175] = 1;
        if self.is_checked() {
            let sum = crc32c(!0, &[&sb[..0x3FC]]);
            put(&mut sb, 0x3FC, &sum.to_le_bytes());
        }
        sb
    }

    /// A filesystem whose groups hold their own structures, and in the last one also its last block. All bitmaps but
    /// the last are left unwritten where checksums allow that.
    fn make(self) -> MemoryDisk {
        let disk = MemoryDisk::new(self.size(), SectorSize::B512);
        let sb = Superblock::parse(&self.superblock(0)).unwrap();
        let layout = Layout::new(&sb, self.size()).unwrap();
        let mut free = 0;
        let write = |block: u64, at: u64, bytes: &[u8]| {
            disk.write_all_at(ByteOffset::new(block * self.block_bytes() + at), bytes).unwrap();
        };
        for group in 0..layout.groups {
            let first = layout.first_block(group);
            let structures = layout.base_blocks(group) + 2 + layout.inode_table_blocks;
            let bitmap_block = first + layout.base_blocks(group);
            let is_last = group + 1 == layout.groups;
            let mut used: Vec<u64> = (0..structures).collect();
            let mut bitmap = vec![0_u8; layout.block_bytes as usize];
            if is_last {
                used.push(layout.clusters_of(group) - 1);
            }
            let uninit = self.is_checked() && !is_last;
            for &bit in &used {
                bitmap[bit as usize / 8] |= 1 << (bit % 8);
            }
            let group_free = layout.clusters_of(group) - used.len() as u64;
            free += group_free;
            if uninit {
                bitmap.fill(0xA5);
            }
            write(bitmap_block, 0, &bitmap);
            let desc = self.descriptor(&sb, &layout, group, group_free, uninit, &bitmap);
            let (index, place) = (group / layout.descs_per_block, group % layout.descs_per_block);
            write(layout.desc_block(index), place * layout.desc_bytes, &desc);
        }
        disk.write_all_at(ByteOffset::new(1024), &self.superblock(free)).unwrap();
        disk
    }

    fn descriptor(
        self,
        sb: &Superblock,
        layout: &Layout,
        group: u64,
        free: u64,
        uninit: bool,
        bitmap: &[u8],
    ) -> Vec<u8> {
        let mut desc = vec![0; layout.desc_bytes as usize];
        let bitmap_block = layout.first_block(group) + layout.base_blocks(group);
        for (place, block) in [bitmap_block, bitmap_block + 1, bitmap_block + 2].into_iter().enumerate() {
            put(&mut desc, place * 4, &(block as u32).to_le_bytes());
            if desc.len() > 32 {
                put(&mut desc, 0x20 + place * 4, &((block >> 32) as u32).to_le_bytes());
            }
        }
        put(&mut desc, 0x0C, &(free as u16).to_le_bytes());
        if self.is_checked() {
            desc[0x12] = if uninit { 2 } else { 0 };
            let sum = crc32c(sb.csum_seed, &[&bitmap[..layout.group_clusters as usize / 8]]).to_le_bytes();
            put(&mut desc, 0x18, &sum[..2]);
            put(&mut desc, 0x38, &sum[2..]);
            let sum = crc32c(sb.csum_seed, &[&(group as u32).to_le_bytes(), &desc]).to_le_bytes();
            put(&mut desc, 0x1E, &sum[..2]);
        }
        desc
    }
}

fn block(number: u64, recipe: Recipe) -> Extent {
    let bytes = recipe.block_bytes();
    Extent::between(ByteOffset::new(number * bytes), ByteOffset::new((number + 1) * bytes))
}

#[test]
fn structures_and_the_tail_are_in_and_free_blocks_are_not() {
    for recipe in [SMALL, CHECKED] {
        let disk = recipe.make();
        let found = Ext.probe(&disk).unwrap().unwrap();
        assert_eq!((found.label.as_deref(), &found.state), (Some("small"), &State::Clean));
        let map = Ext.used(&disk).unwrap();
        assert_eq!((map.certainty, map.unit.get()), (Certainty::Exact, 1024));
        // Boot block; superblock, descriptors, bitmaps and two blocks of inodes twice; the last block with the tail.
        let expected = [Extent::first(ByteLen::new(7 * 1024)), {
            let (from, to) = (block(257, recipe), block(262, recipe));
            Extent::between(from.start(), to.end())
        }];
        assert_eq!(map.extents.iter().take(2).collect::<Vec<_>>(), expected);
        let last = Extent::between(block(511, recipe).start(), ByteOffset::new(recipe.size().get()));
        assert_eq!(map.extents.iter().skip(2).collect::<Vec<_>>(), [last]);
        assert_eq!(
            found.head.iter().collect::<Vec<_>>(),
            [Extent::first(ByteLen::new(2048)), block(257, recipe)]
        );
    }
}

#[test]
fn twenty_tebibytes_are_mapped_without_32_bit_arithmetic() {
    let recipe = Recipe {
        log_block: 2,
        blocks: 20 << 28,
        group_blocks: 32_768,
        inodes: 64,
        incompat: INCOMPAT_64BIT | INCOMPAT_FLEX_BG | INCOMPAT_META_BG,
        ro_compat: RO_COMPAT_METADATA_CSUM | RO_COMPAT_SPARSE_SUPER,
    };
    let disk = recipe.make();
    let map = Ext.used(&disk).unwrap();
    let layout = Layout::new(&superblock(&disk).unwrap().unwrap(), recipe.size()).unwrap();
    assert_eq!(layout.groups, 163_840);
    let structures: u64 = (0..layout.groups).map(|group| layout.base_blocks(group) + 4).sum();
    assert_eq!(map.extents.total().get(), (structures + 1) * 4096 + TAIL_BYTES);
    assert!(map.extents.contains(block(recipe.blocks - 1, recipe)));
    assert!(!map.extents.overlaps(block(recipe.blocks - 2, recipe)));
    let copies = Ext.probe(&disk).unwrap().unwrap().head;
    assert!(copies.contains(block(7_u64.pow(6) * 32_768, recipe)), "the copy in group 7^6");
}

type Fields = &'static [(usize, &'static [u8])];

/// A filesystem that was grown past its reserved descriptor blocks keeps the first ones where they were.
#[test]
fn descriptors_move_to_their_meta_group_from_the_first_one_on() {
    let recipe = Recipe { blocks: 64 * 256, incompat: INCOMPAT_META_BG, ..SMALL };
    let mut sb = Superblock::parse(&recipe.superblock(0)).unwrap();
    sb.s_first_meta_bg = 1;
    sb.features.s_feature_ro_compat |= RO_COMPAT_SPARSE_SUPER;
    let layout = Layout::new(&sb, recipe.size()).unwrap();
    assert_eq!((layout.groups, layout.descs_per_block, layout.desc_blocks), (64, 32, 2));
    assert_eq!(layout.desc_block(0), 2);
    assert_eq!(layout.desc_block(1), 1 + 32 * 256);
    let base: Vec<u64> = [0, 1, 2, 27, 32, 33, 49, 50, 63].map(|group| layout.base_blocks(group)).into();
    assert_eq!(base, [2, 2, 0, 2, 1, 1, 1, 0, 1]);
    assert_eq!(layout.super_groups(), [0, 1, 3, 5, 7, 9, 25, 27, 49]);
}

/// Fields of the superblock, and what they must lead to.
const HOSTILE: [(&str, Fields, ErrorKind); 18] = [
    ("no blocks", &[(0x04, &[0, 0, 0, 0])], ErrorKind::Corrupt),
    ("more blocks than the volume", &[(0x04, &[9, 2, 0, 0])], ErrorKind::Corrupt),
    ("first data block", &[(0x14, &[0xFF, 0xFF, 0xFF, 0xFF])], ErrorKind::Corrupt),
    ("block size of 2^50", &[(0x18, &[40])], ErrorKind::Corrupt),
    ("blocks per group 0", &[(0x20, &[0, 0, 0, 0])], ErrorKind::Corrupt),
    ("blocks per group too many", &[(0x20, &[0, 0, 1, 0])], ErrorKind::Corrupt),
    ("inodes per group 0", &[(0x28, &[0, 0])], ErrorKind::Corrupt),
    ("inode size 0", &[(0x58, &[0, 0])], ErrorKind::Corrupt),
    ("inode size 96", &[(0x58, &[96, 0])], ErrorKind::Corrupt),
    ("revision 2", &[(0x4C, &[2])], ErrorKind::Unsupported),
    ("descriptor size 0 with 64bit", &[(0x60, &[0x80]), (0xFE, &[0, 0])], ErrorKind::Corrupt),
    ("unknown incompatible bit", &[(0x62, &[0x40])], ErrorKind::Unsupported),
    ("unknown read-only bit", &[(0x66, &[0x40])], ErrorKind::Unsupported),
    ("clusters of 2^50", &[(0x64, &[0, 2]), (0x1C, &[40])], ErrorKind::Corrupt),
    ("clusters smaller than blocks", &[(0x64, &[0, 2]), (0x18, &[1])], ErrorKind::Corrupt),
    ("journal to be replayed", &[(0x60, &[4])], ErrorKind::Corrupt),
    ("reserved descriptors beyond measure", &[(0xCE, &[0xFF, 0xFF])], ErrorKind::Corrupt),
    ("error state", &[(0x3A, &[3])], ErrorKind::Corrupt),
];

#[test]
fn contradictions_are_refused_with_a_reason() {
    for (what, fields, kind) in HOSTILE {
        let disk = SMALL.make();
        for &(at, bytes) in fields {
            disk.write_all_at(ByteOffset::new(1024 + at as u64), bytes).unwrap();
        }
        match Ext.used(&disk) {
            Ok(map) => panic!("{what}: {map:?}"),
            Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
        }
        if let Some(found) = Ext.probe(&disk).unwrap() {
            let known = found.state == State::Clean && kind == ErrorKind::Unsupported;
            assert!(known || matches!(found.state, State::Dirty(_)), "{what}");
        }
        assert!(matches!(crate::used(&disk).unwrap().certainty, Certainty::Whole(_)), "{what}");
    }
}

#[test]
fn unknown_bits_are_named_in_hex() {
    let disk = SMALL.make();
    disk.write_all_at(ByteOffset::new(1024 + 0x62), &[0x40]).unwrap();
    assert!(Ext.used(&disk).unwrap_err().to_string().contains("0x400000"));
}

#[test]
fn a_block_freed_behind_the_counters_back_is_noticed() {
    for recipe in [SMALL, CHECKED] {
        let disk = recipe.make();
        let bitmap = block(259, recipe).start();
        let mut byte = [0];
        disk.read_exact_at(bitmap, &mut byte).unwrap();
        disk.write_all_at(bitmap, &[byte[0] & !2]).unwrap();
        assert_eq!(Ext.used(&disk).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn every_failing_read_is_an_error_or_changes_nothing() {
    let right = Ext.used(&CHECKED.make()).unwrap();
    for nth in 1..40 {
        let disk = FaultyDisk::new(CHECKED.make(), [Fault::Once { nth }]);
        match crate::used(&disk) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            Ok(map) => assert!(right.extents.difference(&map.extents).is_empty()),
        }
    }
}

fn stays_inside(disk: &dyn ReadAt) -> UsedMap {
    let size = ByteOffset::new(disk.geometry().size.get());
    if let Some(found) = Ext.probe(disk).unwrap() {
        assert!(found.head.end() <= size);
    }
    let map = crate::used(disk).unwrap();
    assert!(map.extents.end() <= size);
    assert_eq!(map.extents.align_out(map.unit, size), map.extents);
    map
}

proptest! {
    /// Everything that decides is under a checksum: a flipped bit is noticed or did not matter.
    #[test]
    fn a_flipped_bit_never_makes_a_checked_map_smaller(at in 1024..8192_u64, group in any::<bool>(), bit in 0..8_u8) {
        let disk = CHECKED.make();
        let right = Ext.used(&disk).unwrap();
        let at = ByteOffset::new(at + if group { 256 * 1024 } else { 0 });
        let mut byte = [0];
        disk.read_exact_at(at, &mut byte).unwrap();
        disk.write_all_at(at, &[byte[0] ^ 1 << bit]).unwrap();
        let map = stays_inside(&disk);
        prop_assert!(right.extents.difference(&map.extents).is_empty());
    }

    #[test]
    fn bytes_without_a_checksum_may_say_anything(changes in proptest::collection::vec((0..3072_u64, any::<u8>()), 1..6)) {
        let disk = SMALL.make();
        for (at, value) in changes {
            disk.write_all_at(ByteOffset::new(1024 + at), &[value]).unwrap();
        }
        stays_inside(&disk);
    }

    #[test]
    fn random_superblocks_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 4096..20_000)) {
        put(&mut bytes, 1024 + 0x38, &0xEF53_u16.to_le_bytes());
        put(&mut bytes, 1024 + 0x18, &[0, 0, 0, 0]);
        stays_inside(&MemoryDisk::from_bytes(&bytes, SectorSize::B512));
    }
}
