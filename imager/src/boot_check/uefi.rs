//! What UEFI firmware needs of a disk: a FAT volume of the right type with the file that a boot entry names, or the one
//! that it tries where no entry fits (UEFI 2.10, 3.5.1.1).

use super::Finding;
use crate::firmware::Kind;
use imager_disk::table::{Entry, Table};
use imager_disk::{ReadAt, Window};
use imager_image::manifest::{BootEntry, Uefi};
use imager_units::Result;
use imager_volume::fat::directory::find;

/// The types of an EFI system partition, in a GPT and in an MBR.
const SYSTEM_PARTITION: [&str; 2] = ["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"];
/// What is started without a boot entry.
const FALLBACK: &str = "\\EFI\\BOOT\\BOOTX64.EFI";
/// How every program for the firmware begins (PE/COFF).
const PROGRAM: &[u8; 2] = b"MZ";

/// What UEFI firmware would find on a disk.
pub(super) fn look(disk: &dyn ReadAt, table: &Table, menu: Option<&Uefi>) -> Vec<Finding> {
    let mut found = Vec::new();
    let no_entries = Vec::new();
    let entries = menu.map_or(&no_entries, |menu| &menu.entries);
    for partition in table.volumes() {
        let on_it = |entry: &&BootEntry| starts_from(entry, partition, table);
        let named = entries
            .iter()
            .filter(|entry| entry.active)
            .filter(on_it)
            .filter_map(|entry| entry.file.as_deref());
        for file in named {
            found.push(loader(disk, partition, "loader", file));
        }
        if SYSTEM_PARTITION.contains(&partition.type_id.as_str()) {
            found.push(loader(disk, partition, "fallback loader", FALLBACK));
        }
    }
    found.dedup_by(|a, b| a.subject == b.subject && a.check == b.check);
    found
}

/// Whether a boot entry starts a file on this partition.
fn starts_from(entry: &BootEntry, partition: &Entry, table: &Table) -> bool {
    let Some(from) = &entry.partition else { return false };
    match &partition.unique_id {
        Some(id) => from.id.eq_ignore_ascii_case(id),
        None => {
            from.number == partition.number
                && table.id.as_deref().is_some_and(|id| from.id.eq_ignore_ascii_case(id))
        }
    }
}

fn loader(disk: &dyn ReadAt, partition: &Entry, check: &'static str, file: &str) -> Finding {
    let number = partition.number;
    let subject = format!("{number}:{file}");
    let finding = |ok, how: &str| {
        Finding::new(Kind::Uefi, check, &subject, ok, format!("{file} on partition {number} {how}"))
    };
    match is_program(disk, partition, file) {
        Ok(Some(true)) => finding(true, "is there"),
        Ok(Some(false)) => finding(false, "is no program for the firmware"),
        Ok(None) => finding(false, "is not there"),
        Err(error) => Finding::unreadable(Kind::Uefi, check, &subject, &error),
    }
}

/// Whether a file is a program; `None` where there is none.
fn is_program(disk: &dyn ReadAt, partition: &Entry, file: &str) -> Result<Option<bool>> {
    let volume = Window::part(disk, partition.extent)?;
    let Some(found) = find(&volume, file)? else { return Ok(None) };
    let mut start = [0; PROGRAM.len()];
    match found.extents.first() {
        Some(first) => volume.read_exact_at(first.start(), &mut start)?,
        None => return Ok(Some(false)),
    }
    Ok(Some(start == *PROGRAM))
}
