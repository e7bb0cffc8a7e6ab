//! Disks in memory with the boot code of GRUB (the offsets of 2.06's `boot.img` and `diskboot.img`) and of others.

use super::{Finding, look};
use crate::firmware::Kind;
use imager_disk::{MemoryDisk, WriteAt};
use imager_image::manifest::{BootEntry, BootPartition, Uefi};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use std::process::Command;

const SECTOR: u64 = 512;
const DISK_SECTORS: u64 = 40_960;
const FIRST: u32 = 2048;

/// An MBR disk with one partition.
struct Recipe {
    status: u8,
    type_code: u8,
    code: Vec<u8>,
}

fn put(disk: &MemoryDisk, sector: u64, at: u64, bytes: &[u8]) {
    disk.write_all_at(ByteOffset::new(sector * SECTOR + at), bytes).unwrap();
}

impl Recipe {
    fn make(&self) -> MemoryDisk {
        let disk = MemoryDisk::new(ByteLen::new(DISK_SECTORS * SECTOR), SectorSize::B512);
        put(&disk, 0, 0, &self.code);
        put(&disk, 0, 440, &0xc0ff_ee00_u32.to_le_bytes());
        let size = u32::try_from(DISK_SECTORS).unwrap() - FIRST;
        let mut entry = vec![self.status, 0, 0, 0, self.type_code, 0, 0, 0];
        entry.extend(FIRST.to_le_bytes());
        entry.extend(size.to_le_bytes());
        put(&disk, 0, 446, &entry);
        put(&disk, 0, 510, &[0x55, 0xaa]);
        disk
    }
}

/// A disk with GRUB, whose core lies in sectors 1 to 61.
fn grub() -> MemoryDisk {
    let mut code = vec![0; 440];
    code[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
    code[0x5a..0x64].copy_from_slice(&[0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0]);
    code[0x180..0x185].copy_from_slice(b"GRUB ");
    let disk = Recipe { status: 0, type_code: 0x83, code }.make();
    for sector in 1..62 {
        put(&disk, sector, 0, &[0xfa; 400]);
    }
    // Two runs: 2 to 31 and 32 to 61.
    put(&disk, 1, 0x1f4, &[2, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0x20, 8]);
    put(&disk, 1, 0x1e8, &[32, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0xe0, 0xb]);
    put(&disk, 1, 0x1dc, &[0; 12]);
    disk
}

fn told(found: &[Finding]) -> Vec<(&'static str, bool)> {
    found.iter().map(|finding| (finding.check, finding.ok)).collect()
}

#[test]
fn grub_is_followed_to_the_last_sector_of_its_core() {
    assert_eq!(told(&look(&grub(), None)), [("boot code", true), ("GRUB core", true)]);
    type Damage = fn(&MemoryDisk);
    let cases: [(&str, Damage); 6] = [
        ("is blank", |disk| (32..62).for_each(|sector| put(disk, sector, 0, &[0; 512]))),
        ("no core of GRUB", |disk| put(disk, 1, 0, &[0; 512])),
        ("no core of GRUB", |disk| put(disk, 0, 0x5c, &u64::MAX.to_le_bytes())),
        ("no core of GRUB", |disk| put(disk, 1, 0x1fe, &[0, 7])),
        ("beyond the end", |disk| put(disk, 1, 0x1e8, &(DISK_SECTORS - 3).to_le_bytes())),
        ("across the edge", |disk| put(disk, 1, 0x1e8, &u64::from(FIRST - 5).to_le_bytes())),
    ];
    for (why, damage) in cases {
        let disk = grub();
        damage(&disk);
        let found = look(&disk, None);
        assert_eq!(told(&found), [("boot code", true), ("GRUB core", false)], "{why}");
        assert!(found[1].message.contains(why), "{why}: {}", found[1].message);
    }
}

#[test]
fn a_list_of_blocks_without_an_end_is_none() {
    let disk = grub();
    for at in (0..=0x1f4).rev().step_by(12) {
        put(&disk, 1, at, &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x20, 8]);
    }
    assert_eq!(told(&look(&disk, None)), [("boot code", true), ("GRUB core", false)]);
}

#[test]
fn other_boot_code_starts_the_active_partition() {
    let disk = |status, with_code: bool| {
        let disk = Recipe { status, type_code: 0x07, code: vec![0x33, 0xc0] }.make();
        if with_code {
            put(&disk, FIRST.into(), 0, &[0xeb, 0x52, 0x90]);
            put(&disk, FIRST.into(), 510, &[0x55, 0xaa]);
        }
        told(&look(&disk, None))
    };
    assert_eq!(disk(0x80, true), [("boot code", true), ("active partition", true)]);
    assert_eq!(disk(0x80, false), [("boot code", true), ("active partition", false)]);
    assert_eq!(disk(0, true), [("boot code", true), ("active partition", false)]);
    let none = Recipe { status: 0x80, type_code: 0x07, code: vec![0] }.make();
    assert_eq!(told(&look(&none, None)), [("boot code", false)]);
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A menu with an entry for a file on the disk's partition.
fn menu(file: &str, id: &str) -> Uefi {
    let partition = BootPartition { number: 1, start_lba: FIRST.into(), sectors: 1, id: id.to_owned() };
    let entry = BootEntry {
        number: 0,
        base64: String::new(),
        description: "debian".to_owned(),
        active: true,
        partition: Some(partition),
        file: Some(file.to_owned()),
    };
    Uefi { secure_boot: None, boot_order: vec![0], entries: vec![entry] }
}

#[test]
fn loaders_are_looked_for_where_entries_say_and_at_the_fallback_path() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let kib = ((DISK_SECTORS - u64::from(FIRST)) / 2).to_string();
    if !run("mkfs.vfat", &["-F", "16", "-C", &at("esp"), &kib]) {
        assert!(std::env::var_os("CI").is_none(), "mkfs.vfat and mtools are needed");
        println!("skipped: needs mkfs.vfat and mtools");
        return;
    }
    std::fs::write(at("program"), b"MZ and more").unwrap();
    std::fs::write(at("text"), b"no program").unwrap();
    assert!(run("mmd", &["-i", &at("esp"), "::EFI", "::EFI/debian", "::EFI/BOOT"]));
    for (from, to) in [("program", "::EFI/debian/shimx64.efi"), ("text", "::EFI/debian/grub.cfg")] {
        assert!(run("mcopy", &["-i", &at("esp"), &at(from), to]));
    }
    let disk = || {
        let disk = Recipe { status: 0, type_code: 0xef, code: Vec::new() }.make();
        put(&disk, FIRST.into(), 0, &std::fs::read(at("esp")).unwrap());
        disk
    };
    let uefi = |disk: &MemoryDisk, menu: &Uefi| {
        let found = look(disk, Some(menu));
        let found: Vec<_> = found.into_iter().filter(|finding| finding.firmware == Kind::Uefi).collect();
        told(&found)
    };
    let id = "0xc0ffee00";
    let right = menu("\\EFI\\DEBIAN\\shimx64.efi", id);
    assert_eq!(uefi(&disk(), &right), [("loader", true), ("fallback loader", false)]);
    for file in ["\\EFI\\debian\\grub.cfg", "\\EFI\\debian\\grubx64.efi"] {
        assert_eq!(uefi(&disk(), &menu(file, id)), [("loader", false), ("fallback loader", false)], "{file}");
    }
    assert_eq!(uefi(&disk(), &menu("\\EFI\\debian\\shimx64.efi", "0x1")), [("fallback loader", false)]);
    assert!(run("mcopy", &["-i", &at("esp"), &at("program"), "::EFI/BOOT/BOOTX64.EFI"]));
    assert_eq!(uefi(&disk(), &right), [("loader", true), ("fallback loader", true)]);
    let wiped = disk();
    put(&wiped, FIRST.into(), 0, &[0; 4096]);
    assert_eq!(uefi(&wiped, &right), [("loader", false), ("fallback loader", false)]);
}
