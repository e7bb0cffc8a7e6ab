//! ext2/3/4: any superblock, descriptors and bitmaps.
//!
//! The input's first KiB becomes the superblock, the rest lies behind it and again where 4 KiB blocks would have it.
//! The fuzzer cannot guess magic and checksum, so they are put right.

#![no_main]

mod volume;

use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::ext::Ext;
use libfuzzer_sys::fuzz_target;

/// CRC-32C without the final inversion, a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ 0x82F6_3B78 * (sum & 1))
    })
}

fuzz_target!(|data: &[u8]| {
    let (superblock, rest) = data.split_at(data.len().min(1024));
    let mut superblock = superblock.to_vec();
    superblock.resize(1024, 0);
    superblock[0x38..0x3A].copy_from_slice(&[0x53, 0xEF]);
    superblock[0x175] = 1;
    let sum = crc32c(&superblock[..0x3FC]);
    superblock[0x3FC..].copy_from_slice(&sum.to_le_bytes());
    let disk = MemoryDisk::new(ByteLen::new((8 << 20) + 777), SectorSize::B512);
    for (at, bytes) in [(1024, &superblock[..]), (4096, rest), (2048, rest)] {
        let bytes = &bytes[..bytes.len().min(1 << 20)];
        disk.write_all_at(ByteOffset::new(at), bytes).expect("it fits");
    }
    volume::check(&disk, &Ext);
});
