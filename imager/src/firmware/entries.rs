//! The boot menu after a restore: entries that started a restored partition, written again.
//!
//! An entry that is there already stays as it is; one that is not gets a free number. They come first in the boot
//! order, as they did when they were captured, and everything else keeps its place behind them: nothing is removed. What
//! cannot be written is a warning with the command that does it by hand, since a disk that holds the fallback loader
//! (`\EFI\BOOT\BOOTX64.EFI`, UEFI 2.10, 3.5.1.1) boots all the same.

use super::device_path::{self, HardDrive, Signature};
use super::load_option::LoadOption;
use super::variables::{Variables, entry_name};
use crate::restore::plan::Plan;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use imager_image::manifest::Uefi;
use imager_units::{Context, Error, ErrorKind, Result, SectorSize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A partition that a restore puts back.
#[derive(Clone, Debug)]
pub struct Restored {
    /// How the firmware will know it.
    pub drive: HardDrive,
    /// The disk it is on.
    pub disk: PathBuf,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is there already.
    Keep,
    /// It is written.
    Write,
}

/// An entry of the menu to be.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number from now on.
    pub number: u16,
    /// What becomes of it.
    pub action: Action,
    /// What the menu shows.
    pub description: String,
    /// The file it starts.
    pub file: String,
    disk: PathBuf,
    partition: u32,
    value: Vec<u8>,
}

/// The menu to be.
#[derive(Clone, Debug, Default)]
pub struct Menu {
    /// The captured entries that start restored partitions.
    pub entries: Vec<Entry>,
    /// Those of them that the firmware tries by itself, in order.
    first: Vec<u16>,
}

/// The partitions that a plan puts back.
pub fn restored(plan: &Plan) -> Vec<Restored> {
    let mut restored = Vec::new();
    for disk in &plan.disks {
        let Ok(sector) = SectorSize::new(disk.disk.logical_sector_bytes) else { continue };
        for planned in &disk.volumes {
            let Some(partition) = &planned.volume.partition else { continue };
            let id = partition.unique_id.as_deref().or(disk.disk.table.id.as_deref());
            // A signature of zero, as of a disk that never was with Windows, tells nothing.
            let known = |signature: &Signature| !matches!(signature, Signature::None | Signature::Mbr(0));
            let Some(signature) = id.and_then(|id| Signature::parse(id).ok()).filter(known) else { continue };
            let (start, sectors) =
                (sector.lba_of(planned.extent.start()), sector.sectors_in(planned.extent.len()));
            let drive = HardDrive { number: partition.number, start, sectors, signature };
            restored.push(Restored { drive, disk: disk.target.path.clone() });
        }
    }
    restored
}

/// What the menu is to be when these partitions are restored.
///
/// # Errors
/// `Denied`, `Io` from the firmware; `Corrupt` when a captured entry is none.
pub fn plan(captured: &Uefi, restored: &[Restored], variables: &Variables) -> Result<Menu> {
    let mut there = BTreeMap::new();
    for number in variables.boot_entries()? {
        // An entry that cannot be read keeps its number.
        there.insert(number, variables.get(&entry_name(number)).ok().flatten().unwrap_or_default());
    }
    let mut menu = Menu::default();
    let mut numbers = BTreeMap::new();
    for entry in &captured.entries {
        let say = || format!("the captured boot entry {}", entry_name(entry.number));
        let bytes = STANDARD.decode(&entry.base64);
        let bytes = bytes.map_err(|e| Error::with_source(ErrorKind::Corrupt, say(), e))?;
        let option = LoadOption::parse(&bytes).context(say)?;
        let Some((option, on)) = moved(option, restored).context(say)? else { continue };
        let same =
            |value: &Vec<u8>| LoadOption::parse(value).and_then(short).is_ok_and(|there| there == option);
        let (number, action) = match there.iter().find(|(_, value)| same(value)) {
            Some((number, _)) => (*number, Action::Keep),
            None => (free(&there, entry.number)?, Action::Write),
        };
        let value = option.encode()?;
        there.insert(number, value.clone());
        numbers.insert(entry.number, number);
        menu.entries.push(Entry {
            number,
            action,
            description: option.description(),
            file: device_path::file(&option.path)?.unwrap_or_default(),
            disk: on.disk.clone(),
            partition: on.drive.number,
            value,
        });
    }
    menu.first = captured.boot_order.iter().filter_map(|number| numbers.get(number).copied()).collect();
    Ok(menu)
}

/// The entry as it has to be now, and the partition it starts; `None` when it starts none of those restored.
fn moved(option: LoadOption, restored: &[Restored]) -> Result<Option<(LoadOption, &Restored)>> {
    let mut option = short(option)?;
    let Some((drive, from_there)) = device_path::partition(&option.path)? else { return Ok(None) };
    let is_same = |on: &&Restored| match drive.signature {
        // The signature is the disk's.
        Signature::Mbr(_) => on.drive.signature == drive.signature && on.drive.number == drive.number,
        Signature::Gpt(_) => on.drive.signature == drive.signature,
        Signature::None => false,
    };
    let Some(on) = restored.iter().find(is_same) else { return Ok(None) };
    let node = on.drive.encode();
    let mut path = node.clone();
    path.extend(from_there.get(node.len()..).unwrap_or_default());
    option.path = path;
    Ok(Some((option, on)))
}

/// The entry with a path that begins with the partition, if it leads to one.
fn short(mut option: LoadOption) -> Result<LoadOption> {
    if let Some((_, from_there)) = device_path::partition(&option.path)? {
        option.path = from_there.to_vec();
    }
    Ok(option)
}

/// The number it had, or the first that is free.
fn free(there: &BTreeMap<u16, Vec<u8>>, wanted: u16) -> Result<u16> {
    let mut numbers = std::iter::once(wanted).chain(0..=u16::MAX);
    let full = || Error::new(ErrorKind::OutOfSpace, "every number of a boot entry is taken");
    numbers.find(|number| !there.contains_key(number)).ok_or_else(full)
}

impl Menu {
    /// Writes what is not there, then the order; says what could not be written.
    pub fn write(&self, variables: &Variables) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut missing = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.action == Action::Write) {
            if let Err(error) = entry.write(variables) {
                let why = imager_volume::chain(&error);
                warnings.push(format!(
                    "the firmware took no boot entry {:?} ({why}); {}",
                    entry.description,
                    entry.by_hand()
                ));
                missing.push(entry.number);
            }
        }
        let first: Vec<_> = self.first.iter().copied().filter(|number| !missing.contains(number)).collect();
        if let Err(error) = put_first(variables, &first) {
            let (why, order) =
                (imager_volume::chain(&error), first.iter().map(|n| format!("{n:04X}")).collect::<Vec<_>>());
            warnings.push(format!(
                "the firmware did not take the boot order ({why}); put {} first with efibootmgr --bootorder",
                order.join(",")
            ));
        }
        warnings
    }
}

impl Entry {
    fn write(&self, variables: &Variables) -> Result<()> {
        let name = entry_name(self.number);
        variables.set(&name, &self.value)?;
        match variables.get(&name)? {
            Some(value) if value == self.value => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Io,
                format!("the firmware does not hold what was written to {name}"),
            )),
        }
    }

    /// The command that does the same.
    fn by_hand(&self) -> String {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        format!(
            "by hand: efibootmgr --create --disk {} --part {} --label {} --loader {}",
            quoted(&path_text(&self.disk)),
            self.partition,
            quoted(&self.description),
            quoted(&self.file)
        )
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

fn put_first(variables: &Variables, first: &[u16]) -> Result<()> {
    let there = variables.boot_order()?;
    let rest = there.iter().copied().filter(|number| !first.contains(number));
    let order: Vec<_> = first.iter().copied().chain(rest).collect();
    if order == there { Ok(()) } else { variables.set_boot_order(&order) }
}

#[cfg(test)]
mod tests;
