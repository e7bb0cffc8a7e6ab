//! NTFS: any boot sector, file records, index blocks and log pages.
//!
//! The input's first 96 bytes become the boot sector. Behind it stand pieces: in which KiB one lies, how long it is (two
//! bytes each), and its bytes. Everything else is ones: an empty log, a bitmap with everything in use. The fuzzer
//! cannot keep the ends of sectors in step with the mark that says they were written together, nor two copies of the
//! first records the same, so both are put right.

#![no_main]

mod volume;

use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteOffset, SectorSize};
use imager_volume::ntfs::Ntfs;
use libfuzzer_sys::fuzz_target;

const SIZE: usize = (2 << 20) + 512;

/// Puts the mark at the end of every 512 bytes of a structure of `len` bytes.
fn protect(bytes: &mut [u8], at: usize, len: usize) {
    let Some(block) = bytes.get_mut(at..at + len) else { return };
    let array = usize::from(u16::from_le_bytes([block[4], block[5]]));
    if array + 2 <= 510 {
        let mark = [block[array], block[array + 1]];
        (1..=len / 512).for_each(|n| block[n * 512 - 2..n * 512].copy_from_slice(&mark));
    }
}

fn lay(bytes: &mut [u8], mut pieces: &[u8]) {
    while let Some(([at, at_high, len, len_high], rest)) = pieces.split_first_chunk::<4>() {
        let at = usize::from(u16::from_le_bytes([*at, *at_high])) * 1024;
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*len, *len_high]))));
        pieces = rest;
        let Some(room) = bytes.get_mut(at..at + piece.len()) else { continue };
        room.copy_from_slice(piece);
        match piece {
            [b'F', b'I', b'L', b'E', ..] => protect(bytes, at, 1024),
            [b'I', b'N', b'D', b'X', ..] | [b'R', b'S', b'T', b'R', ..] | [b'C', b'H', b'K', b'D', ..] => {
                protect(bytes, at, 4096);
            }
            _ => {}
        }
    }
}

fn mirror(bytes: &mut [u8]) {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let sector = u64::from(u16::from_le_bytes([bytes[11], bytes[12]]));
    let cluster = sector * u64::from(bytes[13]);
    let place = |at| usize::try_from(number(at).saturating_mul(cluster)).unwrap_or(usize::MAX);
    let (from, to) = (place(0x30), place(0x38));
    if from.max(to) < SIZE - 4096 {
        bytes.copy_within(from..from + 4096, to);
    }
}

fuzz_target!(|data: &[u8]| {
    let (boot, pieces) = data.split_at(data.len().min(96));
    let mut bytes = vec![0xFF; SIZE];
    bytes[..boot.len()].copy_from_slice(boot);
    bytes[3..11].copy_from_slice(b"NTFS    ");
    lay(&mut bytes, pieces);
    mirror(&mut bytes);
    let disk = MemoryDisk::from_bytes(&bytes, SectorSize::B512);
    disk.write_all_at(ByteOffset::new(510), &[0x55, 0xAA]).expect("it fits");
    volume::check(&disk, &Ntfs);
});
