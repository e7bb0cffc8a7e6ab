//! XFS: any superblock, header, trees and log; any inodes behind the trees.
//!
//! The input is cut into pieces that lie where a small filesystem of version 4 or 5 (the first byte says which) has its
//! structures: superblock, the first group's header, blocks of its trees, the log. The fuzzer cannot guess magics, places
//! and checksums, so they are put right; the second byte says which kinds of block are left as they are.

#![no_main]

mod volume;

use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::xfs::{Files, Xfs};
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;
/// Tree blocks 4 to 19 of the group, then its log.
const TREE_BLOCKS: usize = 16;
const LOG_AT: usize = 24;
const LOG_BLOCKS: usize = 64;
const UUID: [u8; 16] = [7; 16];

/// CRC-32C, a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ 0x82F6_3B78 * (sum & 1))
    })
}

fn seal(block: &mut [u8], at: usize) {
    block[at..at + 4].fill(0);
    let sum = crc32c(block);
    block[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A filesystem of one group of 256 blocks of 512 bytes.
fn superblock(sb: &mut [u8], is_checked: bool, is_free: bool) {
    put(sb, 0, b"XFSB");
    if !is_free {
        for (at, value) in [(4, BLOCK), (84, 256), (88, 1), (96, LOG_BLOCKS)] {
            put(sb, at, &u32::try_from(value).unwrap_or(0).to_be_bytes());
        }
        for (at, value) in [(8, 256_u64), (16, 0), (48, 24)] {
            put(sb, at, &value.to_be_bytes());
        }
        put(sb, 100, &[0xB4, if is_checked { 0xA5 } else { 0xA4 }, 2, 0]);
        put(sb, 120, &[9, 9, 8, 1, 8, 0, 0]);
        put(sb, 200, &[0, 0, 1, 0x8A, 0, 0, 0, 0]);
        put(sb, 212, &[0; 12]);
    }
    put(sb, 32, &UUID);
    seal(sb, 224);
}

fn header(agf: &mut [u8], is_free: bool) {
    put(agf, 0, b"XAGF\0\0\0\x01\0\0\0\0\0\0\x01\0");
    if !is_free {
        put(agf, 16, &[0, 0, 0, 4, 0, 0, 0, 5]);
    }
    put(agf, 64, &UUID);
    seal(agf, 216);
}

fn tree(block: &mut [u8], number: usize, is_checked: bool) {
    let order = if block[0] & 1 == 0 { b'B' } else { b'C' };
    put(block, 0, &[b'A', b'B', if is_checked { b'3' } else { b'T' }, order]);
    if is_checked {
        put(block, 16, &u64::try_from(number).unwrap_or(0).to_be_bytes());
        put(block, 32, &UUID);
        put(block, 48, &[0; 4]);
        seal(block, 52);
    }
}

/// Every block is of turn 2 up to the head that the first byte names, and of turn 1 behind it; blocks whose second byte
/// is odd begin a record.
fn log(log: &mut [u8]) {
    let head = usize::from(log[0]) % LOG_BLOCKS + 1;
    for (number, block) in log.chunks_mut(BLOCK).enumerate() {
        let turn = if number < head { [0, 0, 0, 2] } else { [0, 0, 0, 1] };
        if block[1] & 1 == 0 {
            put(block, 0, &turn);
            continue;
        }
        put(block, 0, &[0xFE, 0xED, 0xBA, 0xBE]);
        put(block, 4, &turn);
        put(block, 8, &[0, 0, 0, 2]);
        put(block, 16, &turn);
        put(block, 20, &[0, 0, 0, u8::try_from(number).unwrap_or(0)]);
        put(block, 32, &[0; 4]);
        put(block, 300, &[0, 0, 0, 1]);
        put(block, 304, &UUID);
    }
}

fuzz_target!(|data: &[u8]| {
    let (&[kind, left, ..], Some(rest)) = (data, data.get(2..)) else { return };
    let (is_checked, is_left) = (kind & 1 == 1, |bit: u8| left >> bit & 1 == 1);
    let mut bytes = rest.to_vec();
    bytes.resize((LOG_AT + LOG_BLOCKS) * BLOCK, 0);
    let (head, ring) = bytes.split_at_mut(LOG_AT * BLOCK);
    for (number, block) in head.chunks_mut(BLOCK).enumerate() {
        match number {
            0 => superblock(block, is_checked, is_left(0)),
            1 => header(block, is_left(1)),
            4.. if number < 4 + TREE_BLOCKS && !is_left(2) => tree(block, number, is_checked),
            _ => {}
        }
    }
    if !is_left(3) {
        log(ring);
    }
    let disk = MemoryDisk::new(ByteLen::new(256 * 512 + 777), SectorSize::B512);
    disk.write_all_at(ByteOffset::new(0), &bytes).expect("it fits");
    volume::check(&disk, &Xfs);
    if let Ok(Some(files)) = Files::open(&disk) {
        volume::check_files(&|path, most| files.read(path, most));
    }
});
