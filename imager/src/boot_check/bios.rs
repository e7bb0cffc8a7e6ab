//! What a BIOS needs of a disk: code in sector 0 that ends in 55 AA, and where that code goes on.
//!
//! GRUB is followed further, by the offsets of its own sources (include/grub/i386/pc/boot.h, grub-core/boot/i386/pc):
//! `boot.img` in sector 0 names the first sector of the core, whose own first sector lists where the rest of it lies. Any
//! other code is taken to do what the standard one does, which is to start the active partition of an MBR.

use super::Finding;
use crate::firmware::Kind;
use imager_disk::ReadAt;
use imager_disk::table::{Entry, EntryKind, Table, TableKind};
use imager_units::{ByteLen, ByteOffset, Extent, Lba, Result, SectorSize};

/// The check of sector 0.
pub(super) const CODE: &str = "boot code";
/// A boot sector, whatever the disk's sectors are: BIOS knows no others.
const BOOT_SECTOR_BYTES: usize = 512;
/// The code in sector 0, before the disk's signature.
const CODE_BYTES: usize = 440;
/// `GRUB_BOOT_MACHINE_KERNEL_ADDRESS` and what stands there.
const KERNEL_ADDRESS_AT: usize = 0x5a;
const KERNEL_ADDRESS: [u8; 2] = [0x00, 0x80];
/// `GRUB_BOOT_MACHINE_KERNEL_SECTOR`.
const KERNEL_SECTOR_AT: usize = 0x5c;
/// The first entry of the list of blocks; the next ones lie before it.
const BLOCK_LIST_AT: usize = 0x1f4;
const BLOCK_LIST_ENTRY_BYTES: usize = 12;
/// Where the first run of blocks is loaded to, `GRUB_BOOT_MACHINE_KERNEL_SEG + 0x20`.
const FIRST_SEGMENT: u16 = 0x820;
/// A core lies in the gap of a megabyte behind an MBR, or in a partition made for it: it is no longer than this.
const MOST_CORE_SECTORS: u64 = 16_384;

/// What a BIOS would find.
pub(super) fn look(disk: &dyn ReadAt, table: &Table) -> Vec<Finding> {
    let sector = match boot_sector(disk, ByteOffset::ZERO) {
        Ok(sector) => sector,
        Err(error) => return vec![Finding::unreadable(Kind::Bios, CODE, "", &error)],
    };
    let finding = |ok, message: &str| Finding::new(Kind::Bios, CODE, "", ok, message.to_owned());
    if !is_bootable(&sector) {
        return vec![finding(false, "sector 0 holds no boot code")];
    }
    if let Some(core) = grub(&sector) {
        return vec![finding(true, "sector 0 holds GRUB's boot code"), grub_core(disk, table, core)];
    }
    let mut found = vec![finding(true, "sector 0 holds boot code")];
    if table.kind == TableKind::Mbr {
        found.push(active_partition(disk, table));
    }
    found
}

fn boot_sector(disk: &dyn ReadAt, at: ByteOffset) -> Result<Vec<u8>> {
    let mut sector = vec![0; BOOT_SECTOR_BYTES];
    disk.read_exact_at(at, &mut sector)?;
    Ok(sector)
}

fn is_bootable(sector: &[u8]) -> bool {
    let has_code = sector.iter().take(CODE_BYTES).any(|byte| *byte != 0);
    has_code && sector.get(510..) == Some(&[0x55, 0xaa])
}

/// Where GRUB's core begins, if the code is GRUB's.
fn grub(sector: &[u8]) -> Option<Lba> {
    let is_grub = sector.get(KERNEL_ADDRESS_AT..)?.starts_with(&KERNEL_ADDRESS)
        && sector.get(..CODE_BYTES)?.windows(4).any(|word| word == b"GRUB");
    let lba = sector.get(KERNEL_SECTOR_AT..)?.first_chunk()?;
    is_grub.then(|| Lba::new(u64::from_le_bytes(*lba)))
}

fn grub_core(disk: &dyn ReadAt, table: &Table, core: Lba) -> Finding {
    let finding = |ok, message: String| Finding::new(Kind::Bios, "GRUB core", "", ok, message);
    let at = core.get();
    match runs_of_core(disk, table.sector, core) {
        Err(error) => Finding::unreadable(Kind::Bios, "GRUB core", "", &error),
        Ok(None) => {
            finding(false, format!("sector {at}, where GRUB's boot code goes on, holds no core of GRUB"))
        }
        Ok(Some(runs)) => match runs.iter().find_map(|run| trouble(disk, table, *run)) {
            Some(trouble) => finding(false, format!("GRUB's core at sector {at} {trouble}")),
            None => {
                let len: ByteLen = runs.iter().map(|run| run.len()).sum();
                finding(true, format!("GRUB's core of {len} is at sector {at}"))
            }
        },
    }
}

/// The places of the core; `None` where there is none.
fn runs_of_core(disk: &dyn ReadAt, sector: SectorSize, core: Lba) -> Result<Option<Vec<Extent>>> {
    let run = |lba: u64, count: u64| Extent::new(sector.offset_of(Lba::new(lba))?, sector.len_of(count)?);
    let Some(first) = run(core.get(), 1).filter(|first| disk.geometry().extent().contains(*first)) else {
        return Ok(None);
    };
    let list = boot_sector(disk, first.start())?;
    let mut runs = vec![first];
    let mut sectors = 0_u64;
    for at in (0..=BLOCK_LIST_AT).rev().step_by(BLOCK_LIST_ENTRY_BYTES) {
        let entry = list.get(at..).and_then(<[u8]>::first_chunk);
        let Some(&[a, b, c, d, e, f, g, h, low, high, segment_low, segment_high]) = entry else { break };
        let count = u16::from_le_bytes([low, high]);
        let is_first = at == BLOCK_LIST_AT;
        if count == 0 && !is_first {
            return Ok(Some(runs));
        }
        let is_sound =
            count != 0 && (!is_first || u16::from_le_bytes([segment_low, segment_high]) == FIRST_SEGMENT);
        sectors = sectors.saturating_add(count.into());
        match run(u64::from_le_bytes([a, b, c, d, e, f, g, h]), count.into()) {
            Some(run) if is_sound && sectors <= MOST_CORE_SECTORS => runs.push(run),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// What is wrong with a piece of the core, if anything.
fn trouble(disk: &dyn ReadAt, table: &Table, run: Extent) -> Option<&'static str> {
    if !disk.geometry().extent().contains(run) {
        return Some("leads beyond the end of the disk");
    }
    let outside = !table.covered().overlaps(run);
    if !outside && !table.volumes().any(|entry| entry.extent.contains(run)) {
        return Some("lies across the edge of a partition");
    }
    let mut bytes = vec![0; run.len().to_usize()?];
    match disk.read_exact_at(run.start(), &mut bytes) {
        Err(_) => Some("cannot be read"),
        Ok(()) if bytes.iter().all(|byte| *byte == 0) => Some("is blank, at least in part"),
        Ok(()) => None,
    }
}

fn active_partition(disk: &dyn ReadAt, table: &Table) -> Finding {
    let finding = |ok, message: String| Finding::new(Kind::Bios, "active partition", "", ok, message);
    let is_active = |entry: &&Entry| entry.bootable && entry.kind == EntryKind::Primary;
    let Some(entry) = table.entries.iter().find(is_active) else {
        return finding(false, "no partition is marked active".to_owned());
    };
    let number = entry.number;
    match boot_sector(disk, entry.extent.start()) {
        Err(error) => Finding::unreadable(Kind::Bios, "active partition", "", &error),
        Ok(sector) if is_bootable(&sector) => {
            finding(true, format!("partition {number} is active and holds boot code"))
        }
        Ok(_) => finding(false, format!("partition {number} is active, but holds no boot code")),
    }
}
