//! Partition tables built byte by byte, on disks in memory of 4096 sectors of 512 bytes.

use imager_disk::table::{self, Table};
use imager_disk::{MemoryDisk, ReadAt, WriteAt as _};
use imager_units::{ByteLen, ByteOffset, SectorSize};

pub(crate) const SECTORS: u64 = 4096;
pub(crate) const LAST: u64 = SECTORS - 1;
pub(crate) const BACKUP_ARRAY: u64 = LAST - 32;

pub(crate) fn blank() -> MemoryDisk {
    MemoryDisk::new(ByteLen::new(SECTORS * 512), SectorSize::B512)
}

pub(crate) fn put(disk: &MemoryDisk, at: u64, bytes: &[u8]) {
    disk.write_all_at(ByteOffset::new(at), bytes).unwrap();
}

pub(crate) fn get<const N: usize>(disk: &dyn ReadAt, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    disk.read_exact_at(ByteOffset::new(at), &mut bytes).unwrap();
    bytes
}

/// An MBR or EBR entry in a sector, which thereby becomes one.
pub(crate) fn slot(disk: &MemoryDisk, sector: u64, index: u64, type_code: u8, start: u64, sectors: u64) {
    let at = sector * 512 + 446 + 16 * index;
    put(disk, at + 4, &[type_code]);
    put(disk, at + 8, &u32::try_from(start).unwrap().to_le_bytes());
    put(disk, at + 12, &u32::try_from(sectors).unwrap().to_le_bytes());
    put(disk, sector * 512 + 510, &[0x55, 0xaa]);
}

/// A GPT entry in both arrays; the headers do not know of it before [`seal`].
pub(crate) fn entry(disk: &MemoryDisk, number: u8, start: u64, end: u64) {
    let mut stored = [0; 128];
    stored[..32].fill(number);
    stored[32..40].copy_from_slice(&start.to_le_bytes());
    stored[40..48].copy_from_slice(&end.to_le_bytes());
    for array in [2, BACKUP_ARRAY] {
        put(disk, array * 512 + 128 * u64::from(number - 1), &stored);
    }
}

/// A protective MBR and both headers, without entries.
pub(crate) fn empty_gpt() -> MemoryDisk {
    let disk = blank();
    slot(&disk, 0, 0, 0xee, 1, LAST);
    for (me, other, array) in [(1, LAST, 2), (LAST, 1, BACKUP_ARRAY)] {
        put(&disk, me * 512, b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (at, value) in [(24, me), (32, other), (40, 34), (48, BACKUP_ARRAY - 1), (72, array)] {
            put(&disk, me * 512 + at, &u64::to_le_bytes(value));
        }
        put(&disk, me * 512 + 80, &[128, 0, 0, 0, 128, 0, 0, 0]);
        seal(&disk, me);
    }
    disk
}

/// Three entries of 512 KiB: slots 1, 2 and 3.
pub(crate) fn usual_gpt() -> MemoryDisk {
    let disk = empty_gpt();
    (1..4).for_each(|number| entry(&disk, number, 1024 * u64::from(number), 1024 * u64::from(number) + 899));
    both_sealed(disk)
}

pub(crate) fn both_sealed(disk: MemoryDisk) -> MemoryDisk {
    seal(&disk, 1);
    seal(&disk, LAST);
    disk
}

/// Makes both checksums of a header right, whatever else it says.
pub(crate) fn seal(disk: &MemoryDisk, header: u64) {
    let field = |at| u64::from(u32::from_le_bytes(get(disk, header * 512 + at)));
    let array = u64::from_le_bytes(get(disk, header * 512 + 72)).saturating_mul(512);
    let mut entries = vec![0; usize::try_from((field(80) * field(84)).min(1 << 21)).unwrap()];
    if disk.read_exact_at(ByteOffset::new(array), &mut entries).is_ok() {
        put(disk, header * 512 + 88, &crc32fast::hash(&entries).to_le_bytes());
    }
    put(disk, header * 512 + 16, &[0; 4]);
    let covered: [u8; 512] = get(disk, header * 512);
    let size = usize::try_from(field(12).min(512)).unwrap();
    put(disk, header * 512 + 16, &crc32fast::hash(&covered[..size]).to_le_bytes());
}

pub(crate) fn numbers(table: &Table) -> Vec<(u32, u64, u64)> {
    let row = |entry: &table::Entry| {
        (entry.number, entry.extent.start().get() / 512, entry.extent.len().get() / 512)
    };
    table.volumes().map(row).collect()
}
