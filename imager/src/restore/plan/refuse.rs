//! Every reason not to write, found before anything is written.

use super::{DiskPlan, Request, VolumePlan};
use crate::repository::Repository;
use crate::restore::outside::boot_code_matches;
use crate::restore::target::Target;
use crate::survey;
use imager_disk::ReadAt;
use imager_disk::table::{Table, TableKind};
use imager_image::manifest::Disk;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};
use std::collections::HashSet;

pub(super) fn check_distinct(request: &Request) -> Result<()> {
    let mut paths = HashSet::new();
    let mut numbers = HashSet::new();
    for (number, path) in &request.targets {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !paths.insert(path) || !numbers.insert(number) {
            let what = "each captured disk goes to one target, and each target gets one disk";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
    }
    Ok(())
}

pub(super) fn lost_table(target: &Target) -> String {
    format!(
        "{} has no usable partition table: --tables restores a lost table alone, --bare-metal makes the disk anew",
        target.path.display()
    )
}

pub(super) fn denied(target: &Target, what: String) -> Error {
    Error::new(ErrorKind::Denied, format!("{} {what}", target.path.display()))
}

/// Each planned volume must be in the target's table as it was captured: number, start, length, type and GUID.
pub(super) fn check_entries(seen: &survey::Survey, volumes: &[VolumePlan], target: &Target) -> Result<()> {
    let table = seen.disks.first().map(|disk| &disk.table).ok_or_else(|| Error::corrupt("no disk"))?;
    if table.kind == TableKind::None {
        return Err(Error::new(ErrorKind::Denied, lost_table(target)));
    }
    for planned in volumes {
        let Some(captured) = &planned.volume.partition else { continue };
        let there = table.entries.iter().find(|entry| entry.number == captured.number);
        let same = there.is_some_and(|there| {
            there.extent == planned.extent
                && there.type_id == captured.type_id
                && there.unique_id == captured.unique_id
        });
        if !same {
            let there =
                there.map_or_else(|| "absent".to_owned(), |t| format!("{} of type {}", t.extent, t.type_id));
            let what = format!(
                "is divided otherwise: partition {} was {} of type {}, here it is {there}. Is it the right disk? \
                 (--bare-metal makes it anew)",
                captured.number, planned.extent, captured.type_id
            );
            return Err(denied(target, what));
        }
    }
    Ok(())
}

/// Beside partitions in use nothing outside volumes can be written, so nothing there may have to be.
pub(super) fn check_boot_code(repository: &Repository, plan: &DiskPlan) -> Result<()> {
    if boot_code_matches(repository, plan)? {
        return Ok(());
    }
    let uses: Vec<_> = plan.target.uses.iter().map(ToString::to_string).collect();
    let keys: Vec<_> =
        plan.volumes.iter().map(|planned| format!("--volume {}", planned.volume.key)).collect();
    let what = format!(
        "has other boot code than was captured, which cannot be written while {}. End that use, or name the volumes, \
         and the boot code stays as it is: {}",
        uses.join(" and "),
        keys.join(" ")
    );
    Err(denied(&plan.target, what))
}

/// A table that does not fit onto the disk; that is the wrong disk, not a share without room.
pub(super) fn too_small(target: &Target, error: Error) -> Error {
    let what = format!("{} cannot hold the captured table", target.path.display());
    match error.kind() {
        ErrorKind::OutOfSpace => Error::with_source(ErrorKind::Denied, what, error),
        _ => error.within(what),
    }
}

/// On a disk that is made anew each volume lies where the table will say, so none can lie over another.
pub(super) fn check_volumes(disk: &Disk, table: Option<&Table>, volumes: &[VolumePlan]) -> Result<()> {
    if disk.remainder.size_bytes != disk.size_bytes {
        return Err(Error::corrupt(format!(
            "disk {} and the map of its remainder differ in size",
            disk.number
        )));
    }
    for planned in volumes.iter().filter(|planned| !super::stacked::is_logical(&planned.volume)) {
        let number = planned.volume.partition.as_ref().map(|partition| partition.number);
        let place = match table {
            Some(table) => {
                table.volumes().find(|entry| Some(entry.number) == number).map(|entry| entry.extent)
            }
            None => Some(Extent::first(ByteLen::new(disk.size_bytes))),
        };
        if place != Some(planned.extent) {
            let what = format!("volume {} does not lie where the captured table says", planned.volume.key);
            return Err(Error::corrupt(what));
        }
    }
    Ok(())
}

/// A disk is made anew when it is blank, or when a person named it as one whose contents may go.
pub(super) fn check_erasable(target: &Target, request: &Request) -> Result<()> {
    let identity = &target.identity;
    let names: Vec<&str> =
        [&identity.serial, &identity.wwn].into_iter().filter_map(Option::as_deref).collect();
    let path = target.path.display().to_string();
    let is_named = request.erase.iter().any(|name| names.contains(&name.as_str()) || *name == path);
    if is_named || (!target.is_block && request.erase_files) {
        return Ok(());
    }
    match contents(target)? {
        None => Ok(()),
        Some(found) => {
            let name = names.first().map_or(path.as_str(), |name| name);
            let what = format!("is not blank: it holds {found}. --erase {name} gives that up");
            Err(denied(target, what))
        }
    }
}

/// What is recognisable on a disk, if anything.
pub(super) fn contents(target: &Target) -> Result<Option<String>> {
    match imager_disk::table::read(&*target.reader) {
        Ok(table) if table.kind != TableKind::None => {
            return Ok(Some(format!("a partition table with {} entries", table.entries.len())));
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            return Ok(Some("a damaged partition table".to_owned()));
        }
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    if let Some(filesystem) = imager_volume::probe(&*target.reader)? {
        return Ok(Some(filesystem.kind.to_owned()));
    }
    let len = target.geometry.size.min(ByteLen::new(1 << 20)).to_usize().unwrap_or(0);
    let mut start = vec![0; len];
    target.reader.read_exact_at(ByteOffset::ZERO, &mut start)?;
    Ok((!crate::capture::worker::is_zero(&start)).then(|| "data of an unknown kind".to_owned()))
}
