//! exFAT: any boot sector, FAT, bitmap and directories.
//!
//! The input's first 64 bytes become the boot sector's from byte 64 on; the next 256 lie where it says that the FAT is,
//! the rest where it says that the clusters are. The fuzzer cannot guess name and checksum, so they are put right.

#![no_main]

mod volume;

use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::exfat::Exfat;
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = (8 << 20) + 777;
const FAT_BYTES: usize = 256;

fuzz_target!(|data: &[u8]| {
    let (boot, rest) = data.split_at(data.len().min(64));
    let (fat, heap) = rest.split_at(rest.len().min(FAT_BYTES));
    let mut region = vec![0; 12 * 4096];
    region[3..11].copy_from_slice(b"EXFAT   ");
    region[64..64 + boot.len()].copy_from_slice(boot);
    let sector = 1 << region[108].clamp(9, 12);
    let place = |at: usize| {
        let sectors = u32::from_le_bytes([region[at], region[at + 1], region[at + 2], region[at + 3]]);
        u64::from(sectors) * sector as u64 % SIZE
    };
    let places = [(place(80), fat), (place(88), heap)];
    let counted = (0..11 * sector).filter(|at| ![106, 107, 112].contains(at));
    let sum = counted.fold(0_u32, |sum, at| sum.rotate_right(1).wrapping_add(u32::from(region[at])));
    let stored = &mut region[11 * sector..12 * sector];
    stored.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&sum.to_le_bytes()));
    let disk = MemoryDisk::new(ByteLen::new(SIZE), SectorSize::B512);
    disk.write_all_at(ByteOffset::new(0), &region[..12 * sector]).expect("it fits");
    for (at, bytes) in places.into_iter().filter(|(at, _)| *at >= 12 * sector as u64) {
        let room = usize::try_from(SIZE - at).expect("a small disk");
        disk.write_all_at(ByteOffset::new(at), &bytes[..bytes.len().min(room)]).expect("it fits");
    }
    volume::check(&disk, &Exfat);
});
