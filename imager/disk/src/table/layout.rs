//! What every table must fulfil before anybody relies on it: no volume overlaps another, or the table itself.

use super::{Entry, EntryKind, RawArea, Table, TableKind};
use imager_units::{Error, ErrorKind, Extent, ExtentSet, Result};

/// # Errors
/// `Corrupt`, naming both sides.
pub(super) fn check(table: &Table) -> Result<()> {
    let mut volumes: Vec<&Entry> = table.volumes().collect();
    volumes.sort_by_key(|entry| entry.extent);
    for pair in volumes.windows(2) {
        if let [first, second] = pair
            && first.extent.overlaps(second.extent)
        {
            return Err(conflict(table, &describe(first), &describe(second)));
        }
    }
    let own: ExtentSet = table.raw.iter().map(RawArea::extent).collect();
    match volumes.iter().find(|entry| own.overlaps(entry.extent)) {
        Some(entry) => {
            let hit = own.overlapping(entry.extent).next().unwrap_or_default();
            Err(conflict(table, &describe(entry), &format!("the table's own sectors at {}", show(hit))))
        }
        None => Ok(()),
    }
}

fn conflict(table: &Table, first: &str, second: &str) -> Error {
    let kind = match table.kind {
        TableKind::Gpt => "GPT",
        TableKind::Mbr => "MBR",
        TableKind::None => "disk without table",
    };
    Error::new(ErrorKind::Corrupt, format!("{kind}: {first} overlaps {second}"))
}

fn describe(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::Logical => "logical entry",
        EntryKind::Primary | EntryKind::Extended => "entry",
    };
    format!("{kind} {} at {}", entry.number, show(entry.extent))
}

fn show(extent: Extent) -> String {
    format!("{} up to {}", extent.start(), extent.end())
}
