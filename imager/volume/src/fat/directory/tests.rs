//! Volumes as mtools and dosfstools make them, one of each width, and damaged ones.

use super::{File, find};
use imager_disk::{MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, SectorSize};
use proptest::prelude::{any, prop, proptest};
use std::path::Path;
use std::process::Command;

const LOADER: &str = "\\EFI\\debian\\shimx64.efi";

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .status()
        .is_ok_and(|status| status.success())
}

/// A volume of `kib` with a loader of three and a half clusters in a folder with many long names; `None`, with the
/// reason printed, without the tools.
fn volume(kib: u32, options: &[&str]) -> Option<MemoryDisk> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let image = at("image");
    let size = kib.to_string();
    if !run("mkfs.vfat", &[options, &["-C", &image, &size]].concat()) {
        assert!(std::env::var_os("CI").is_none(), "mkfs.vfat and mtools are needed");
        println!("skipped: needs mkfs.vfat and mtools");
        return None;
    }
    std::fs::write(at("loader"), loader()).unwrap();
    assert!(run("mmd", &["-i", &image, "::EFI", "::EFI/debian", "::EFI/BOOT"]));
    for number in 0..40 {
        let name = format!("::EFI/debian/a rather long name of a file {number}.cfg");
        assert!(run("mcopy", &["-i", &image, "/dev/null", &name]));
    }
    for name in ["::EFI/debian/shimx64.efi", "::EFI/BOOT/BOOTX64.EFI", "::EFI/debian/A long loader.efi"] {
        assert!(run("mcopy", &["-i", &image, &at("loader"), name]));
    }
    Some(disk(Path::new(&image)))
}

fn disk(image: &Path) -> MemoryDisk {
    let bytes = std::fs::read(image).unwrap();
    let disk = MemoryDisk::new(ByteLen::of(&bytes), SectorSize::B512);
    disk.write_all_at(ByteOffset::ZERO, &bytes).unwrap();
    disk
}

fn loader() -> Vec<u8> {
    (0..14_500_u32).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

fn content(volume: &MemoryDisk, file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    for extent in &file.extents {
        let mut part = vec![0; extent.len().to_usize().unwrap()];
        volume.read_exact_at(extent.start(), &mut part).unwrap();
        bytes.extend(part);
    }
    bytes.truncate(file.size.to_usize().unwrap());
    bytes
}

#[test]
fn a_loader_is_found_on_each_kind_of_volume_by_any_spelling() {
    for (kib, options) in [(2048, &["-F", "12"][..]), (16_384, &["-F", "16"]), (40_960, &["-F", "32"])] {
        let Some(volume) = volume(kib, options) else { return };
        for path in [
            LOADER,
            "/efi/DEBIAN/SHIMX64.EFI",
            "\\EFI\\BOOT\\BOOTX64.EFI",
            "\\EFI\\debian\\a LONG loader.efi",
        ] {
            let file = find(&volume, path).unwrap().unwrap_or_else(|| panic!("{path} on {options:?}"));
            assert_eq!(content(&volume, &file), loader(), "{path} on {options:?}");
        }
        let last = find(&volume, "\\EFI\\debian\\a rather long name of a file 39.cfg").unwrap().unwrap();
        assert_eq!((last.size, last.extents.len()), (ByteLen::ZERO, 0));
        for none in [
            "",
            "\\",
            "\\EFI",
            "\\EFI\\debian",
            "\\EFI\\none\\shimx64.efi",
            "\\EFI\\debian\\shimx64.efi\\x",
            "\\shimx64.efi",
        ] {
            assert_eq!(find(&volume, none).unwrap(), None, "{none} on {options:?}");
        }
    }
}

#[test]
fn a_file_whose_clusters_are_gone_is_damage() {
    let Some(volume) = volume(16_384, &["-F", "16"]) else { return };
    // Everything in the first table from the second sector on.
    let sector = 512;
    let mut boot = vec![0; sector];
    volume.read_exact_at(ByteOffset::ZERO, &mut boot).unwrap();
    let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
    volume.write_all_at(ByteOffset::new(reserved * 512 + 8), &vec![0; 4096]).unwrap();
    assert_eq!(find(&volume, LOADER).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_chain_that_runs_in_a_circle_ends() {
    let Some(volume) = volume(16_384, &["-F", "16"]) else { return };
    let mut boot = vec![0; 512];
    volume.read_exact_at(ByteOffset::ZERO, &mut boot).unwrap();
    let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
    // Every cluster is followed by the third.
    let circle: Vec<u8> = (0..2000).flat_map(|_| [3, 0]).collect();
    volume.write_all_at(ByteOffset::new(reserved * 512 + 4), &circle).unwrap();
    let _found = find(&volume, LOADER);
    let _found = find(&volume, "\\EFI\\debian\\none");
}

proptest! {
    #[test]
    fn no_damage_panics(at in prop::collection::vec((0_u64..65_536, any::<u8>()), 1..40)) {
        static VOLUME: std::sync::OnceLock<Option<Vec<u8>>> = std::sync::OnceLock::new();
        let made = VOLUME.get_or_init(|| {
            let volume = volume(2048, &["-F", "12"])?;
            let mut bytes = vec![0; volume.geometry().size.to_usize().unwrap()];
            volume.read_exact_at(ByteOffset::ZERO, &mut bytes).unwrap();
            Some(bytes)
        });
        let Some(bytes) = made else { return Ok(()) };
        let volume = MemoryDisk::new(ByteLen::of(bytes), SectorSize::B512);
        volume.write_all_at(ByteOffset::ZERO, bytes).unwrap();
        for (at, byte) in at {
            volume.write_all_at(ByteOffset::new(at), &[byte]).unwrap();
        }
        if let Ok(Some(file)) = find(&volume, LOADER) {
            assert!(file.extents.iter().all(|extent| volume.geometry().extent().contains(*extent)));
        }
    }
}
