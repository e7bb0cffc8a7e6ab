//! Partition tables from hostile bytes: no panic, and whatever is read keeps the promises of `imager_disk::table`.
//!
//! Input: a byte of options, a byte for how many sectors of zeros follow, then the sectors of a disk from the first.
//! Checksums can be made right on the way, or the fuzzer would rarely see behind one.

#![no_main]

use imager_disk::table::{self, Table};
use imager_disk::{MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use libfuzzer_sys::fuzz_target;

const LARGE_SECTORS: u8 = 1;
const SEAL_PRIMARY: u8 = 2;
const SEAL_BACKUP: u8 = 4;
const PROTECTIVE: u8 = 8;
const BOOT_SIGNATURE: u8 = 16;

fuzz_target!(|data: &[u8]| {
    let [options, zeros, sectors @ ..] = data else { return };
    check(&disk(*options, *zeros, sectors));
});

fn disk(options: u8, zeros: u8, content: &[u8]) -> MemoryDisk {
    let is = |option: u8| options & option != 0;
    let sector = if is(LARGE_SECTORS) { SectorSize::B4096 } else { SectorSize::B512 };
    let mut bytes = content.to_vec();
    bytes.resize(content.len() + usize::from(zeros) * 512, 0);
    if let Some(boot) = bytes.get_mut(..512) {
        if is(PROTECTIVE) {
            boot[450] = 0xee;
            boot[454..458].copy_from_slice(&[1, 0, 0, 0]);
        }
        if is(BOOT_SIGNATURE | PROTECTIVE) {
            boot[510..].copy_from_slice(&[0x55, 0xaa]);
        }
    }
    let disk = MemoryDisk::from_bytes(&bytes, sector);
    let each = u64::from(sector.get());
    let last = (bytes.len() as u64 / each).saturating_sub(1);
    if is(SEAL_PRIMARY) {
        seal(&disk, each);
    }
    if is(SEAL_BACKUP) {
        seal(&disk, last * each);
    }
    disk
}

/// Gives the header at `at` the signature, a size it may have, its own place and both checksums.
fn seal(disk: &MemoryDisk, at: u64) {
    let mut header = [0; 92];
    if disk.read_exact_at(ByteOffset::new(at), &mut header).is_err() {
        return;
    }
    let each = u64::from(disk.geometry().logical.get());
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
    header[24..32].copy_from_slice(&(at / each).to_le_bytes());
    let number =
        |from: usize| u64::from(u32::from_le_bytes(header[from..from + 4].try_into().expect("four bytes")));
    let array = u64::from_le_bytes(header[72..80].try_into().expect("eight bytes")).saturating_mul(each);
    let mut entries = vec![0; number(80).saturating_mul(number(84)).min(1 << 20) as usize];
    if disk.read_exact_at(ByteOffset::new(array), &mut entries).is_ok() {
        header[88..].copy_from_slice(&crc32(&entries).to_le_bytes());
    }
    header[16..20].fill(0);
    let crc = crc32(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk.write_all_at(ByteOffset::new(at), &header).expect("it was read from there");
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

fn check(disk: &MemoryDisk) {
    let _ = table::guess_sector_size(disk);
    let Ok(table) = table::read(disk) else { return };
    let whole = disk.geometry().extent();
    let sum: ByteLen = table.volumes().map(|entry| entry.extent.len()).sum();
    let covered = table.covered();
    assert!(table.volumes().all(|entry| whole.contains(entry.extent)), "a volume reaches off the disk");
    assert_eq!(covered.total(), sum, "volumes overlap");
    assert!(table.raw.iter().all(|area| !covered.overlaps(area.extent())), "a volume overlaps the table");
    let rebuilt = Table::rebuild(&table.raw, table.sector, table.size).expect("it was read once");
    assert_eq!(rebuilt.entries, table.entries);
    let _ = table.sfdisk_dump("/dev/sda");
    let size = table.size.get();
    for size in [0, size / 2, size, size.saturating_add(512), size.saturating_add(1 << 20), u64::MAX] {
        if let Ok(moved) = table.moved_to(ByteLen::new(size)) {
            assert_eq!(moved.entries, table.entries);
        }
    }
}
