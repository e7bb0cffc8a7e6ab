//! Tables at random: whatever the bytes, there is no panic, and what is read has its volumes inside the disk, apart
//! from each other and from the table.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod table_support;

use imager_disk::table::{self, Table};
use imager_disk::{MemoryDisk, ReadAt as _};
use imager_units::{ByteLen, SectorSize};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use table_support::{
    BACKUP_ARRAY, LAST, SECTORS, blank, both_sealed, empty_gpt, entry, numbers, put, seal, usual_gpt,
};

/// What holds for every disk whatsoever.
fn check(disk: &MemoryDisk) {
    let _ = table::guess_sector_size(disk);
    let Ok(table) = table::read(disk) else { return };
    let whole = disk.geometry().extent();
    let sum: ByteLen = table.volumes().map(|entry| entry.extent.len()).sum();
    assert!(table.volumes().all(|entry| whole.contains(entry.extent) && !entry.extent.is_empty()));
    assert_eq!(table.covered().total(), sum, "volumes overlap");
    assert!(
        table
            .raw
            .iter()
            .all(|area| whole.contains(area.extent()) && !table.covered().overlaps(area.extent()))
    );
    assert!(table.entries.is_sorted_by(|a, b| a.number < b.number));
    let rebuilt = Table::rebuild(&table.raw, table.sector, table.size).unwrap();
    assert_eq!((&rebuilt.kind, &rebuilt.entries), (&table.kind, &table.entries));
    let _ = table.sfdisk_dump("/dev/sda");
    for size in [0, 512, 40 * 512, table.size.get(), table.size.get() + 4096, 1 << 40, u64::MAX] {
        if let Ok(moved) = table.moved_to(ByteLen::new(size)) {
            assert_eq!(moved.entries, table.entries);
            assert_eq!(
                moved.moved_to(ByteLen::new(size)).unwrap().raw,
                moved.raw,
                "moving again changes something"
            );
        }
    }
}

/// A chain of five volumes, made by the crate `mbrman`.
fn mbrman_chain() -> MemoryDisk {
    let mut bytes = std::io::Cursor::new(blank().to_vec());
    let mut mbr = mbrman::MBR::new_from(&mut bytes, 512, [1, 2, 3, 4]).unwrap();
    mbr.align = 1;
    let empty = mbrman::CHS::empty();
    let part = |sys, starting_lba, sectors| mbrman::MBRPartitionEntry {
        boot: mbrman::BOOT_INACTIVE,
        first_chs: empty,
        sys,
        last_chs: empty,
        starting_lba,
        sectors,
    };
    mbr[1] = part(0x83, 1, 99);
    mbr[2] = part(0x0f, 100, 3900);
    (0..5).for_each(|i| {
        mbr.push(0x83, 200 + i * 500, 300).unwrap();
    });
    mbr.write_into(&mut bytes).unwrap();
    MemoryDisk::from_bytes(bytes.get_ref(), SectorSize::B512)
}

#[test]
fn what_mbrman_makes_is_read() {
    let table = table::read(&mbrman_chain()).unwrap();
    // It counts the link, one sector, as part of the volume's length.
    let logicals = (0..5).map(|i| (5 + i, u64::from(201 + i * 500), 299));
    assert_eq!(numbers(&table), [(1, 1, 99)].into_iter().chain(logicals).collect::<Vec<_>>());
}

/// Where table sectors are on the disks above.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 440..512_u64,
        3 => 512..604_u64,
        4 => 1024..1024 + 3 * 128_u64,
        1 => BACKUP_ARRAY * 512..SECTORS * 512,
        2 => LAST * 512..LAST * 512 + 92,
        2 => 100 * 512 + 446..101 * 512_u64,
        2 => prop::sample::select(vec![200_u64, 700, 1200, 1700]).prop_flat_map(|ebr| ebr * 512 + 446..ebr * 512 + 512),
    ]
}

/// Values that matter more than others.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::collection::vec(any::<u8>(), 1..17),
        prop_oneof![Just(0), Just(1), Just(33), Just(LAST), Just(SECTORS), 0..SECTORS, Just(u64::MAX)]
            .prop_map(|number| number.to_le_bytes().to_vec()),
    ]
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damage_never_panics_and_never_yields_bad_volumes(
        which in 0..3_u8,
        damage in prop::collection::vec((place(), value()), 1..6),
        resealed in any::<(bool, bool)>(),
    ) {
        let disk = match which {
            0 => mbrman_chain(),
            _ => usual_gpt(),
        };
        for (at, bytes) in damage {
            let end = SECTORS * 512 - bytes.len() as u64;
            put(&disk, at.min(end), &bytes);
        }
        if which > 0 && resealed.0 {
            seal(&disk, 1);
        }
        if which > 0 && resealed.1 {
            seal(&disk, LAST);
        }
        check(&disk);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), signed in any::<bool>()) {
        if let (true, Some(end)) = (signed, bytes.get_mut(510..512)) {
            end.copy_from_slice(&[0x55, 0xaa]);
        }
        check(&MemoryDisk::from_bytes(&bytes, SectorSize::B512));
        check(&MemoryDisk::from_bytes(&bytes, SectorSize::B4096));
    }

    #[test]
    fn sound_entries_come_back(lengths in prop::collection::vec((1..40_u64, 0..20_u64), 1..60)) {
        let disk = empty_gpt();
        let (mut at, mut made) = (34, Vec::new());
        for (number, (len, gap)) in (1_u8..).zip(lengths) {
            at += gap;
            entry(&disk, number, at, at + len - 1);
            made.push((u32::from(number), at, len));
            at += len;
        }
        let table = table::read(&both_sealed(disk)).unwrap();
        prop_assert_eq!(numbers(&table), made);
        prop_assert_eq!(&table.warnings, &Vec::<String>::new());
    }
}
