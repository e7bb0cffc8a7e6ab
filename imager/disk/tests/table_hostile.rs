//! Tables that nobody's tool would make: built byte by byte and damaged in every place that a check looks at.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod table_support;

use imager_disk::table::{self, EntryKind, Table, TableKind};
use imager_disk::{Geometry, MemoryDisk, ReadAt};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Result, SectorSize};
use std::error::Error as _;
use table_support::{
    LAST, SECTORS, blank, both_sealed, empty_gpt, entry, numbers, put, seal, slot, usual_gpt,
};

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

/// The message of the error that reading gives, which must blame the data.
fn corrupt(disk: &MemoryDisk) -> String {
    let error = table::read(disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    chain(&error)
}

// ---- GPT -----------------------------------------------------------------------------------------------------------

#[test]
fn every_flaw_of_the_primary_header_leaves_the_backup() {
    let flaws: [(u64, &[u8], &str); 15] = [
        (0, b"x", "signature"),
        (12, &[91], "header size is 91"),
        (12, &[1, 2], "header size is 513"),
        (24, &[2], "says that it is sector 2"),
        (40, &[0, 0xff], "usable sectors"),
        (48, &[0xff, 0xff], "usable sectors"),
        (72, &[1], "entries are in 32 sectors from sector 1"),
        (72, &[0], "entries are in 32 sectors from sector 0"),
        (72, &[0xff; 8], "entries are in 32 sectors from sector 18446744073709551615"),
        (72, &[0xf0, 0x0f], "entries are in 32 sectors from sector 4080"),
        (80, &[0], "room for 0 entries"),
        (80, &[0xff; 4], "room for 4294967295 entries"),
        (84, &[0], "0 bytes each"),
        (84, &[192], "192 bytes each"),
        (84, &[0, 32], "8192 bytes each"),
    ];
    for (at, bytes, says) in flaws {
        let disk = usual_gpt();
        put(&disk, 512 + at, bytes);
        seal(&disk, 1);
        let table = table::read(&disk).unwrap();
        assert_eq!(numbers(&table).len(), 3);
        assert!(table.warnings.iter().any(|warning| warning.contains(says)), "{says}: {:?}", table.warnings);
        let whole = table::read(&usual_gpt()).unwrap();
        assert_eq!(table.moved_to(whole.size).unwrap().raw, whole.raw, "the primary is not what it was");
    }
}

#[test]
fn a_damaged_backup_comes_back_as_it_was() {
    for at in [0, 16, 24, 60, 88] {
        let disk = usual_gpt();
        put(&disk, LAST * 512 + at, &[0xa5]);
        let table = table::read(&disk).unwrap();
        assert!(table.warnings.iter().any(|warning| warning.contains("backup GPT is damaged")));
        let whole = table::read(&usual_gpt()).unwrap();
        assert_eq!(table.moved_to(whole.size).unwrap().raw, whole.raw);
    }
}

#[test]
fn a_promised_gpt_without_a_sound_copy_is_an_error_that_says_why() {
    let disk = usual_gpt();
    put(&disk, 512 + 56, &[0xa5]);
    put(&disk, LAST * 512, &[0xa5]);
    let said = corrupt(&disk);
    assert!(said.contains("in the primary (sector 1), its checksum is"), "{said}");
    assert!(said.contains("in the backup, sector 4095: it has no GPT signature"), "{said}");

    let disk = blank();
    slot(&disk, 0, 2, 0xee, 1, LAST);
    assert!(corrupt(&disk).contains("says that there is a GPT"));
}

#[test]
fn a_table_for_other_sectors_is_named_in_the_error() {
    let disk = usual_gpt();
    let moved = MemoryDisk::from_bytes(&disk.to_vec(), SectorSize::B4096);
    let said = corrupt(&moved);
    assert!(said.contains("there is one for sectors of 512 bytes, the disk has 4096"), "{said}");
    assert_eq!(table::guess_sector_size(&moved).unwrap(), Some(SectorSize::B512));
}

#[test]
fn an_entry_off_the_disk_is_an_error_with_its_number_and_sectors() {
    for (start, end) in
        [(3000, SECTORS), (SECTORS, SECTORS + 8), (3000, 2999), (1, 8), (0, 0), (u64::MAX, u64::MAX)]
    {
        let disk = usual_gpt();
        entry(&disk, 3, start, end);
        let said = corrupt(&both_sealed(disk));
        assert!(said.contains(&format!("GPT entry 3 is sectors {start} to {end} ({start:#x}")), "{said}");
    }
}

#[test]
fn entries_that_overlap_each_other_or_the_table_are_named() {
    let disk = usual_gpt();
    entry(&disk, 3, 1923, 2500);
    let said = corrupt(&both_sealed(disk));
    assert!(said.contains("entry 1 at 0x80000 up to 0xf0800 overlaps entry 3 at 0xf0600"), "{said}");

    let disk = usual_gpt();
    entry(&disk, 2, 33, 40);
    let said = corrupt(&both_sealed(disk));
    assert!(said.contains("entry 2 at 0x4200 up to 0x5200 overlaps the table's own sectors"), "{said}");
}

#[test]
fn a_backup_inside_a_volume_is_not_believed() {
    let disk = usual_gpt();
    entry(&disk, 3, 3072, LAST);
    let disk = both_sealed(disk);
    let table = table::read(&disk).unwrap();
    assert!(
        table.warnings.iter().any(|warning| warning.contains("lie inside entry 3")),
        "{:?}",
        table.warnings
    );
    assert_eq!(Table::rebuild(&table.raw, table.sector, table.size).unwrap().entries, table.entries);
    let error = table.moved_to(table.size).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace);
    assert!(table.moved_to(ByteLen::new((SECTORS + 33) * 512)).is_ok());
}

#[test]
fn entries_of_256_bytes_are_read() {
    let disk = empty_gpt();
    for header in [1, LAST] {
        put(&disk, header * 512 + 80, &[64, 0, 0, 0, 0, 1, 0, 0]);
    }
    // The second stored half-size entry is then the tail of the first.
    entry(&disk, 1, 64, 127);
    entry(&disk, 3, 128, 255);
    assert_eq!(numbers(&table::read(&both_sealed(disk)).unwrap()), [(1, 64, 64), (2, 128, 128)]);
}

#[test]
fn an_unreadable_copy_counts_as_damaged_and_an_unreadable_sector_0_does_not() {
    for (sector, says) in
        [(1, "primary GPT (sector 1) is damaged: reading sector 1: broken"), (LAST, "backup GPT")]
    {
        let table = table::read(&Broken { disk: usual_gpt(), sector }).unwrap();
        assert_eq!(numbers(&table).len(), 3);
        assert!(table.warnings.iter().any(|warning| warning.contains(says)), "{:?}", table.warnings);
        assert_eq!(table.moved_to(table.size).unwrap().raw, table::read(&usual_gpt()).unwrap().raw);
    }
    let error = table::read(&Broken { disk: usual_gpt(), sector: 0 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_smaller_disk_must_hold_every_entry_and_the_backup() {
    let table = table::read(&usual_gpt()).unwrap();
    let end = 3072 + 900;
    assert!(table.moved_to(ByteLen::new((end + 33) * 512)).is_ok());
    let disk = empty_gpt();
    entry(&disk, 1, 1024, 2047);
    let table = table::read(&both_sealed(disk)).unwrap();
    let moved = table.moved_to(ByteLen::new((2048 + 33) * 512)).unwrap();
    assert_eq!(moved.entries, table.entries);
    assert!(moved.warnings.is_empty(), "{:?}", moved.warnings);
    let error = table.moved_to(ByteLen::new((2048 + 32) * 512)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace);
    assert!(chain(&error).contains("entry 1 ends at sector 2048"), "{}", chain(&error));
    assert_eq!(table.moved_to(ByteLen::ZERO).unwrap_err().kind(), ErrorKind::OutOfSpace);
}

#[test]
fn a_filesystem_whose_text_looks_like_a_protective_entry_has_no_table() {
    let disk = usual_gpt();
    put(&disk, 446, b"BOOT\xee more text");
    assert_eq!(table::read(&disk).unwrap().kind, TableKind::None);
}

// ---- MBR -----------------------------------------------------------------------------------------------------------

/// An extended entry 1 from sector 100 to 3000.
fn container() -> MemoryDisk {
    let disk = blank();
    slot(&disk, 0, 0, 0x0f, 100, 2900);
    disk
}

#[test]
fn a_chain_that_leads_back_or_off_the_disk_is_an_error() {
    for (next, says) in [(0, "leads back to sector 100"), (5000, "leads to sector 5100 (0x13ec)")] {
        let disk = container();
        slot(&disk, 100, 0, 0x83, 10, 10);
        slot(&disk, 100, 1, 5, next, 100);
        assert!(corrupt(&disk).contains(says), "{}", corrupt(&disk));
    }
    let disk = container();
    (100..600).for_each(|link| slot(&disk, link, 1, 5, link - 99, 1));
    assert!(corrupt(&disk).contains("more than 256 links"));
}

#[test]
fn links_without_volume_take_no_number_and_garbage_in_the_last_slots_none_either() {
    let disk = container();
    slot(&disk, 100, 1, 5, 500, 100);
    slot(&disk, 600, 0, 0x83, 10, 20);
    slot(&disk, 600, 1, 0x85, 300, 100);
    slot(&disk, 600, 2, 0x83, 0xffff, 0xffff);
    slot(&disk, 400, 0, 5, 900, 100);
    slot(&disk, 400, 1, 0x82, 1, 9);
    slot(&disk, 400, 3, 0x83, 50, 9);
    let table = table::read(&disk).unwrap();
    assert_eq!(numbers(&table), [(5, 610, 20), (6, 401, 9), (7, 450, 9)]);
    assert_eq!(
        table.warnings,
        ["the chain of extended entry 1 ends at sector 1000, which has no boot signature"]
    );
    assert_eq!(Table::rebuild(&table.raw, table.sector, table.size).unwrap().entries, table.entries);
}

#[test]
fn a_second_container_is_walked_as_linux_does() {
    let disk = container();
    slot(&disk, 0, 2, 5, 3000, 500);
    slot(&disk, 100, 0, 0x83, 10, 20);
    slot(&disk, 3000, 0, 0x83, 10, 20);
    let table = table::read(&disk).unwrap();
    assert_eq!(numbers(&table), [(5, 110, 20), (6, 3010, 20)]);
    assert!(table.warnings[0].contains("2 extended entries"));
    assert_eq!(table.entries.iter().filter(|entry| entry.kind == EntryKind::Extended).count(), 2);
}

#[test]
fn mbr_volumes_off_the_disk_or_over_each_other_are_errors() {
    let disk = blank();
    slot(&disk, 0, 3, 0x83, 4000, 97);
    assert!(
        corrupt(&disk)
            .contains("MBR entry 4 is 97 sectors from sector 4000 (0x61 from 0xfa0) on a disk of 4096")
    );

    slot(&disk, 0, 3, 0x83, 0xffff_ffff, 0xffff_ffff);
    assert!(corrupt(&disk).contains("MBR entry 4"));

    slot(&disk, 0, 3, 0x83, 4000, 96);
    slot(&disk, 0, 0, 0x83, 1, 4000);
    assert!(
        corrupt(&disk).contains("entry 1 at 0x200 up to 0x1f4200 overlaps entry 4"),
        "{}",
        corrupt(&disk)
    );

    let disk = container();
    slot(&disk, 100, 0, 0x83, 0, 20);
    assert!(corrupt(&disk).contains("logical entry 5 at 0xc800 up to 0xf000 overlaps the table's own"));
}

#[test]
fn a_mbr_goes_to_any_disk_that_holds_it() {
    let disk = container();
    slot(&disk, 100, 0, 0x83, 10, 20);
    let table = table::read(&disk).unwrap();
    assert_eq!(table.moved_to(ByteLen::new(130 * 512)).unwrap().raw, table.raw);
    assert_eq!(table.moved_to(ByteLen::new(129 * 512)).unwrap_err().kind(), ErrorKind::OutOfSpace);
}

#[test]
fn a_container_may_end_behind_the_disk_but_a_volume_may_not() {
    let disk = blank();
    slot(&disk, 0, 0, 5, 100, 9000);
    slot(&disk, 100, 0, 0x83, 10, SECTORS - 110);
    put(&disk, 3, b"NTFS    ");
    let table = table::read(&disk).unwrap();
    assert_eq!(numbers(&table), [(5, 110, SECTORS - 110)]);
    assert!(
        table.warnings.iter().any(|warning| warning.contains("ends at sector 9100, behind the disk's end"))
    );
    slot(&disk, 100, 0, 0x83, 10, SECTORS - 109);
    assert!(corrupt(&disk).contains("MBR entry 5"));
}

#[test]
fn boot_sectors_of_filesystems_are_no_tables() {
    let fat = b"\xeb\x3c\x90mkfs.fat\0\x02\x04\x01\0\x02\0\x02\0\x40\xf8";
    let ntfs = b"\xeb\x52\x90NTFS    \0\x02";
    let exfat = b"\xeb\x76\x90EXFAT   ";
    for boot in [&fat[..], ntfs, exfat] {
        let disk = blank();
        put(&disk, 0, boot);
        put(&disk, 510, &[0x55, 0xaa]);
        assert_eq!(table::read(&disk).unwrap().kind, TableKind::None);
        put(&disk, 446, b"Remove disks or other media.");
        assert_eq!(table::read(&disk).unwrap().kind, TableKind::None);
        // Plausible entries mean a boot loader that kept somebody's parameter block.
        put(&disk, 446, &[0; 64]);
        slot(&disk, 0, 0, 0x83, 2048, 2048);
        let table = table::read(&disk).unwrap();
        assert_eq!(numbers(&table), [(1, 2048, 2048)]);
        assert!(table.warnings[0].contains("also looks like a bare"));
    }
}

#[test]
fn boot_code_without_entries_is_an_empty_table_and_text_is_none() {
    let disk = blank();
    put(&disk, 0, &[0x90; 440]);
    put(&disk, 510, &[0x55, 0xaa]);
    assert_eq!(table::read(&disk).unwrap().kind, TableKind::Mbr);
    put(&disk, 446, b"x");
    assert_eq!(table::read(&disk).unwrap().kind, TableKind::None);
}

#[test]
fn a_disk_smaller_than_a_sector_has_no_table() {
    for len in [0, 1, 511] {
        let disk = MemoryDisk::from_bytes(&vec![0xaa; len], SectorSize::B512);
        assert_eq!(table::read(&disk).unwrap().kind, TableKind::None);
        assert_eq!(table::guess_sector_size(&disk).unwrap(), None);
    }
}

/// A disk with one sector that cannot be read.
struct Broken {
    disk: MemoryDisk,
    sector: u64,
}

impl ReadAt for Broken {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let first = offset.get() / 512;
        if (first..first + buf.len().div_ceil(512) as u64).contains(&self.sector) {
            return Err(Error::new(ErrorKind::Io, "broken"));
        }
        self.disk.read_exact_at(offset, buf)
    }
}
