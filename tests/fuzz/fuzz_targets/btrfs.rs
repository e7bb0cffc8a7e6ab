//! Btrfs: any superblock and tree nodes, those of files too.
//!
//! The input's first bytes become the superblock from its 32nd byte on, behind the checksum. Behind them stand nodes of 4 KiB:
//! which one (a byte), how much of its beginning behind the checksum and how much of its end are given (two bytes each), and
//! those. Checksums and the filesystem's id, which the fuzzer cannot guess, are put right.

#![no_main]

mod volume;

use imager_disk::MemoryDisk;
use imager_units::SectorSize;
use imager_volume::btrfs::{Btrfs, Files};
use libfuzzer_sys::fuzz_target;

const SIZE: usize = (2 << 20) + 777;
const SUPER: usize = 64 << 10;
/// How much of a superblock is given: up to the middle of its system chunks.
const SUPER_GIVEN: usize = 0x4E0;
/// Where nodes are.
const NODES: usize = 1 << 20;
const NODE: usize = 4096;

/// CRC-32C, a bit at a time.
fn sum(block: &mut [u8]) {
    let sum = !block[32..].iter().fold(!0, |sum: u32, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ 0x82F6_3B78 * (sum & 1))
    });
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

fn lay(bytes: &mut [u8], mut nodes: &[u8]) {
    let mut fsid = [0; 16];
    fsid.copy_from_slice(&bytes[SUPER + 0x20..SUPER + 0x30]);
    while let Some(([number, a, b, c, d], rest)) = nodes.split_first_chunk::<5>() {
        let (front, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*a, *b]))));
        let (back, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*c, *d]))));
        nodes = rest;
        let at = NODES + usize::from(*number) * NODE;
        let Some(node) = bytes.get_mut(at..at + NODE) else { continue };
        let front = &front[..front.len().min(NODE - 32)];
        node[32..32 + front.len()].copy_from_slice(front);
        let back = &back[..back.len().min(NODE - 101)];
        node[NODE - back.len()..].copy_from_slice(back);
        node[32..48].copy_from_slice(&fsid);
        sum(node);
    }
}

fuzz_target!(|data: &[u8]| {
    let (head, nodes) = data.split_at(data.len().min(SUPER_GIVEN));
    let mut bytes = vec![0; SIZE];
    bytes[SUPER + 32..SUPER + 32 + head.len()].copy_from_slice(head);
    bytes[SUPER + 0x40..SUPER + 0x48].copy_from_slice(b"_BHRfS_M");
    bytes[SUPER + 0xC4..SUPER + 0xC6].fill(0);
    sum(&mut bytes[SUPER..SUPER + 4096]);
    lay(&mut bytes, nodes);
    let disk = MemoryDisk::from_bytes(&bytes, SectorSize::B512);
    volume::check(&disk, &Btrfs);
    if let Ok(Some(files)) = Files::open(&[&disk]) {
        for subvolume in files.subvolumes().unwrap_or_default() {
            volume::check_files(&|path, most| files.read(&subvolume, path, most));
        }
    }
});
