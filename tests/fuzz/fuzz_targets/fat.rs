//! FAT: any boot sector and any tables.
//!
//! The input's first 64 bytes become the start of the boot sector, the rest begins with the second sector, on a
//! volume of 64 MiB: large enough for each width.

#![no_main]

mod volume;

use imager_disk::{MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::fat::{Fat, directory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (boot, rest) = data.split_at(data.len().min(64));
    let disk = MemoryDisk::new(ByteLen::new((64 << 20) + 512), SectorSize::B512);
    let rest = &rest[..rest.len().min(1 << 20)];
    for (at, bytes) in [(0, boot), (510, &[0x55, 0xAA]), (512, rest)] {
        disk.write_all_at(ByteOffset::new(at), bytes).expect("it fits");
    }
    volume::check(&disk, &Fat);
    for path in ["\\EFI\\BOOT\\BOOTX64.EFI", "\\A"] {
        if let Ok(Some(file)) = directory::find(&disk, path) {
            assert!(file.extents.iter().all(|extent| disk.geometry().extent().contains(*extent)));
        }
    }
});
