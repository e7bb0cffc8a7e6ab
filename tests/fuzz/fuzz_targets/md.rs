//! Members of md arrays: any superblock of either version, with a filesystem as content.
//!
//! The input becomes the superblock. The fuzzer cannot guess magic and checksum, so they are put right.

#![no_main]

mod volume;

use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::md::Md;
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = 4 << 20;

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn checksum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let sum: u64 = words.map(u64::from).sum();
    ((sum & 0xFFFF_FFFF) + (sum >> 32)) as u32
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    let mut superblock = data[..data.len().min(4096)].to_vec();
    superblock.resize(4096, 0);
    put(&mut superblock, 0, 0xA92B_4EFC);
    let at = match mode % 3 {
        0 => SIZE - 65_536,
        1 => 4096,
        _ => SIZE - 8192,
    };
    put(&mut superblock, 4, u32::from(mode % 3 != 0));
    if mode % 3 == 0 {
        put(&mut superblock, 8, 90 + u32::from(mode & 8 != 0));
        put(&mut superblock, 152, 0);
        let sum = checksum(&superblock);
        put(&mut superblock, 152, sum);
    } else {
        superblock[144..152].copy_from_slice(&(at / 512).to_le_bytes());
        put(&mut superblock, 216, 0);
        put(&mut superblock, 220, 128);
        let sum = checksum(&superblock[..512]);
        put(&mut superblock, 216, sum);
    }
    let disk = MemoryDisk::new(ByteLen::new(SIZE), SectorSize::B512);
    for start in [0, 1 << 20] {
        disk.write_all_at(ByteOffset::new(start + 1024), &[1, 0, 0, 0, 99]).expect("it fits");
        disk.write_all_at(ByteOffset::new(start + 4086), b"SWAPSPACE2").expect("it fits");
    }
    disk.write_all_at(ByteOffset::new(at), &superblock).expect("it fits");
    volume::check(&disk, &Md);
});
