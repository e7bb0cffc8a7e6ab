use super::{Level, Md, Superblock, content};
use crate::{Certainty, UsedBlocks, used};
use imager_disk::{MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteOffset, SectorSize};
use proptest::prelude::{any, proptest};

const SIZE: usize = 4 << 20;
/// Where content begins in version 1.2.
const DATA_SECTOR: u64 = 2048;

/// Changes a superblock before its checksum is made.
type Change = fn(&mut Vec<u8>);

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// A member of version 1 with its superblock at `at`, and a swap signature as its content.
fn member(at: usize, data_sector: u64, change: Change) -> MemoryDisk {
    let mut disk = vec![0; SIZE];
    let mut sb = vec![0; 256 + 2 * 128];
    put32(&mut sb, 0, 0xA92B_4EFC);
    put32(&mut sb, 4, 1);
    sb[16..32].fill(0x42);
    sb[32..38].copy_from_slice(b"host:0");
    put32(&mut sb, 72, 1);
    put64(&mut sb, 80, 2048);
    put32(&mut sb, 92, 2);
    put64(&mut sb, 128, data_sector);
    put64(&mut sb, 136, 4096);
    put64(&mut sb, 144, at as u64 / 512);
    put64(&mut sb, 208, u64::MAX);
    put32(&mut sb, 160, 1);
    put32(&mut sb, 220, 128);
    sb[256..].fill(0xFF);
    sb[256..260].copy_from_slice(&[0, 0, 1, 0]);
    change(&mut sb);
    let sum =
        sb.chunks(4).fold(0_u64, |sum, word| sum + u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    put32(&mut sb, 216, u32::try_from((sum & 0xFFFF_FFFF) + (sum >> 32)).unwrap());
    let start = usize::try_from(data_sector).unwrap() * 512;
    disk[start + 1024] = 1;
    disk[start + 1028] = 200;
    disk[start + 4086..start + 4096].copy_from_slice(b"SWAPSPACE2");
    disk[at..at + sb.len()].copy_from_slice(&sb);
    MemoryDisk::from_bytes(&disk, SectorSize::B512)
}

fn reason(disk: &MemoryDisk) -> String {
    match used(disk).unwrap().certainty {
        Certainty::Whole(reason) => reason,
        Certainty::Exact => panic!("a map was made"),
    }
}

#[test]
fn of_a_mirror_what_its_content_uses_and_everything_outside_it_counts() {
    for (at, data) in [(4096, DATA_SECTOR), (0, DATA_SECTOR), (SIZE - 8192, 0)] {
        let disk = member(at, data, |_| {});
        let found = Superblock::read(&disk).unwrap().unwrap();
        assert_eq!((found.level, found.members, found.role), (Level::Mirror, 2, Some(1)));
        assert_eq!(found.id, "42424242-4242-4242-4242-424242424242");
        let map = used(&disk).unwrap();
        assert_eq!(map.certainty, Certainty::Exact);
        // The content is a mebibyte of which the first page counts.
        assert_eq!(map.extents.total().get(), SIZE as u64 - (1 << 20) + 4096);
        let head = Md.probe(&disk).unwrap().unwrap().head;
        let page =
            imager_units::Extent::between(ByteOffset::new(data * 512), ByteOffset::new(data * 512 + 4096));
        assert!(head.contains(page) && map.extents.contains(page));
        assert_eq!(content(&disk).unwrap().unwrap().bytes.geometry().size.get(), 1 << 20);
    }
}

#[test]
fn an_array_that_is_not_a_mirror_in_order_is_copied_whole_with_the_reason() {
    let cases: [(Change, &str); 9] = [
        (|sb| put32(sb, 72, 5), "RAID5"),
        (|sb| put32(sb, 72, 0), "RAID0"),
        (|sb| put64(sb, 208, 0), "not stopped in order"),
        (|sb| put32(sb, 8, 2), "being rebuilt"),
        (|sb| put32(sb, 8, 8), "bad blocks"),
        (|sb| put32(sb, 8, 1 << 20), "not known"),
        (|sb| put32(sb, 160, 5), "a spare"),
        (|sb| sb[258] = 0xFE, "a spare"),
        (|sb| put64(sb, 80, 1 << 40), "lies outside"),
    ];
    for (change, said) in cases {
        let reason = reason(&member(4096, DATA_SECTOR, change));
        assert!(reason.contains(said), "{reason:?} does not say {said:?}");
    }
    let damaged = member(4096, DATA_SECTOR, |_| {});
    damaged.write_all_at(ByteOffset::new(4096 + 92), &[9]).unwrap();
    assert!(reason(&damaged).contains("damaged"));
}

#[test]
fn what_lies_in_the_array_of_a_container_is_not_looked_into() {
    let disk = member(4096, DATA_SECTOR, |_| {});
    disk.write_all_at(ByteOffset::new(DATA_SECTOR * 512 + 512), b"LABELONE").unwrap();
    disk.write_all_at(ByteOffset::new(DATA_SECTOR * 512 + 536), b"LVM2 001").unwrap();
    assert!(reason(&disk).contains("LVM2_member"));
}

proptest! {
    #[test]
    fn no_superblock_makes_it_fall_over(at in 0..512_usize, value in any::<u64>()) {
        let disk = member(4096, DATA_SECTOR, |_| {});
        disk.write_all_at(ByteOffset::new(4096 + at as u64), &value.to_le_bytes()).unwrap();
        used(&disk).unwrap();
    }
}
