//! F2FS: any superblock, checkpoints and segment table.
//!
//! The input's first 128 bytes become the start of both superblocks, the next 512 that of the first checkpoint, the next
//! 600 a block of summaries, the rest the segment table's first block. Magic, version and checksums are put right.

#![no_main]

mod volume;

use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::f2fs::F2fs;
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = (64 << 20) + 777;
const MAGIC: u32 = 0xF2F5_2010;

/// CRC-32 as F2FS has it, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(MAGIC, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ 0xEDB8_8320 * (sum & 1))
    })
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).into()
}

fuzz_target!(|data: &[u8]| {
    let (superblock, rest) = data.split_at(data.len().min(128));
    let (checkpoint, rest) = rest.split_at(rest.len().min(512));
    let (summary, table) = rest.split_at(rest.len().min(600));
    let disk = MemoryDisk::new(ByteLen::new(SIZE), SectorSize::B512);
    let put = |at: u64, bytes: &[u8]| {
        let at = at % SIZE;
        let room = usize::try_from(SIZE - at).expect("a small disk");
        disk.write_all_at(ByteOffset::new(at), &bytes[..bytes.len().min(room)]).expect("it fits");
    };
    let mut sb = vec![0; 3072];
    sb[..superblock.len()].copy_from_slice(superblock);
    sb[..4].copy_from_slice(&MAGIC.to_le_bytes());
    sb[16..24].copy_from_slice(&[12, 0, 0, 0, 9, 0, 0, 0]);
    let mut cp = vec![0; 4096];
    cp[..checkpoint.len()].copy_from_slice(checkpoint);
    cp[164..168].copy_from_slice(&4092_u32.to_le_bytes());
    let sum = crc32(&cp[..4092]);
    cp[4092..].copy_from_slice(&sum.to_le_bytes());
    let start = long(&sb, 76) * 4096;
    put(long(&sb, 80) * 4096, &table[..table.len().min(4096)]);
    put(start + long(&cp, 140) * 4096, &[0; 507]);
    put(start + long(&cp, 140) * 4096 + 507, summary);
    put(start, &cp);
    put(start + (long(&cp, 136).max(1) - 1) * 4096, &cp);
    put(1024, &sb);
    put(1024 + 4096, &sb);
    volume::check(&disk, &F2fs);
});
