//! Recipes of superblocks made here; what real programs make of them is compared in tests/tests/e2e_skeleton.rs.

use super::recipe;
use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, SectorSize};
use proptest::prelude::{ProptestConfig, any, proptest};

fn disk(at: u64, bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new(ByteLen::new(1 << 20), SectorSize::B512);
    disk.write_all_at(ByteOffset::new(at), bytes).unwrap();
    disk
}

fn put(bytes: &mut [u8], places: &[(usize, &[u8])]) {
    for (at, value) in places {
        bytes[*at..at + value.len()].copy_from_slice(value);
    }
}

fn ext() -> Vec<u8> {
    let mut sb = vec![0; 1024];
    let places: [(usize, &[u8]); 14] = [
        (0x00, &4096_u32.to_le_bytes()),
        (0x04, &65_536_u32.to_le_bytes()),
        (0x08, &3000_u32.to_le_bytes()),
        (0x18, &2_u32.to_le_bytes()),
        (0x1C, &2_u32.to_le_bytes()),
        (0x20, &32_768_u32.to_le_bytes()),
        (0x4C, &[1]),
        (0x58, &256_u16.to_le_bytes()),
        (0x5C, &(0x4_u32 | 0x10).to_le_bytes()),
        (0x60, &(0x2_u32 | 0x40 | 0x80).to_le_bytes()),
        (0x78, b"a label"),
        (0xCE, &15_u16.to_le_bytes()),
        (0xE0, &[8]),
        (0xFE, &64_u16.to_le_bytes()),
    ];
    put(&mut sb, &places);
    put(&mut sb, &[(0x14C, &(16_u32 << 20).to_le_bytes()), (0x68, &[0x11; 16])]);
    sb
}

#[test]
fn every_number_of_a_superblock_is_an_argument() {
    let found = recipe("ext4", &disk(1024, &ext())).unwrap();
    let [make, set] = found.steps.as_slice() else { panic!("two steps") };
    // 2 groups in one block of 64 descriptors, and room for 15 blocks more.
    assert_eq!(
        make.arguments.join(" "),
        "-q -F -O none,has_journal,resize_inode,filetype,extent,64bit -b 4096 -I 256 -N 4096 -U \
         11111111-1111-1111-1111-111111111111 -L a label -M  -m 0 -J size=16 -E \
         lazy_itable_init=1,lazy_journal_init=1,nodiscard,resize=33554432 DEVICE 65536"
    );
    assert!(set.input.as_deref().unwrap().starts_with("ssv r_blocks_count 3000\n"));
    assert!(found.differences(&found).is_empty());
    let mut other = ext();
    put(&mut other, &[(0x78, b"another")]);
    let other = recipe("ext4", &disk(1024, &other)).unwrap();
    assert_eq!(found.differences(&other), ["label is \"another\" and not \"a label\""]);
}

#[test]
fn what_nobody_makes_any_more_or_lies_elsewhere_has_no_recipe() {
    for (at, value, why) in [
        (0x4C, 0_u32, "first revision"),
        (0x60, 0x1000, "0x1000"),
        (0xE0, 0, "another device"),
        (0x64, 0x80, "0x80"),
    ] {
        let mut sb = ext();
        put(&mut sb, &[(at, &value.to_le_bytes())]);
        let error = recipe("ext4", &disk(1024, &sb)).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(why), "{error}");
    }
    for kind in ["ntfs", "LVM2_member", "crypto_LUKS"] {
        assert_eq!(recipe(kind, &disk(0, &[])).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_superblock_has_a_recipe_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 4096), small in any::<bool>()) {
        // Features that are all known come seldom by chance.
        let mut bytes = bytes;
        if small {
            put(&mut bytes, &[(0x5C, &[0; 12]), (100, &[0xB4, 0xA5]), (212, &[0; 8]), (0xB4, &[0; 16]), (16, &[0; 8])]);
        }
        for (kind, at) in [("ext4", 1024), ("xfs", 0), ("btrfs", 65_536)] {
            let _either = recipe(kind, &disk(at, &bytes));
        }
    }
}
