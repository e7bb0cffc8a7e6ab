//! LVM: any metadata, and any label and metadata area.
//!
//! The input is metadata; and its first 992 bytes become a label and the header of an area in which the rest lies.
//! The fuzzer cannot guess magics and checksums, so they are put right.

#![no_main]

use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::lvm::{self, Group, Shape};
use libfuzzer_sys::fuzz_target;

/// LVM's CRC-32, a bit at a time.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xF597_A6CF, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ 0xEDB8_8320 * (sum & 1))
    })
}

/// What was understood keeps apart what is a volume's own.
fn check(group: &Group) {
    for (number, physical) in group.physical.iter().enumerate() {
        let size = physical.extents.end().saturating_since(ByteOffset::ZERO);
        let used = group.used(number, size).expect("it is as long as it must be");
        for logical in &group.logical {
            for piece in logical.pieces.iter().filter(|piece| piece.physical == number) {
                assert!(physical.extents.contains(piece.extent));
                assert_eq!(used.contains(piece.extent), logical.shape != Shape::Plain);
                assert_eq!(used.overlaps(piece.extent), logical.shape != Shape::Plain);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(group) = str::from_utf8(data).map_err(drop).and_then(|text| Group::parse(text).map_err(drop)) {
        check(&group);
    }
    let (label, rest) = data.split_at(data.len().min(480));
    let (header, text) = rest.split_at(rest.len().min(512));
    let disk = MemoryDisk::new(ByteLen::new(1 << 20), SectorSize::B512);
    let mut sector = [0; 512];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8] = 1;
    sector[20] = 32;
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..32 + label.len()].copy_from_slice(label);
    let sum = checksum(&sector[20..]);
    sector[16..20].copy_from_slice(&sum.to_le_bytes());
    let mut area = [0; 512];
    area[..header.len()].copy_from_slice(header);
    area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    let (offset, size) = (512_u64, text.len().min(1 << 19));
    area[40..48].copy_from_slice(&offset.to_le_bytes());
    area[48..56].copy_from_slice(&(size as u64).to_le_bytes());
    area[56..60].copy_from_slice(&checksum(&text[..size]).to_le_bytes());
    let sum = checksum(&area[4..]);
    area[..4].copy_from_slice(&sum.to_le_bytes());
    for (at, bytes) in [(512, &sector[..]), (4096, &area[..]), (4608, &text[..size])] {
        disk.write_all_at(ByteOffset::new(at), bytes).expect("it fits");
    }
    if let Ok(member) = lvm::read(&disk) {
        assert!(member.head.end().get() <= 1 << 20);
    }
});
