//! Whether the bitmap has what the directories name.
//!
//! The bitmap alone cannot be told from an older one of the same volume. Directories can: each says where it and its
//! files lie. They are read until enough was looked at, so damage in a very large tree may go unnoticed here, as it
//! does by every driver; what is noticed makes the volume whole.

use super::boot::Layout;
use super::directory::{FILE, STREAM_EXTENSION, each_entry};
use super::root::Root;
use super::table::{Allocation, Table};
use crate::bytes::Bytes;
use imager_units::{Error, ExtentSet, Result};

/// How many directories wait to be read.
const MOST_WAITING: usize = 1 << 16;
/// A bit of an entry's type: it belongs to the entries before it (section 6.2.1.3).
const SECONDARY: u8 = 0x40;
/// `GeneralSecondaryFlags` (section 6.4.2).
const ALLOCATION_POSSIBLE: u8 = 1;
const NO_FAT_CHAIN: u8 = 2;
/// `FileAttributes` (section 7.4.4).
const DIRECTORY: u16 = 0x10;

/// Compares the directories with the used map.
///
/// # Errors
/// `Io`; `Corrupt` when a cluster is named that is not in `used`, or a chain is broken.
pub(super) fn check(table: &mut Table<'_>, root: &Root, used: &ExtentSet) -> Result<()> {
    for (what, own) in [
        ("root directory", root.directory),
        ("allocation bitmap", root.bitmap),
        ("up-case table", root.upcase),
    ] {
        ensure_used(table, own, used, what)?;
        table.ensure_unspent(what)?;
    }
    let layout = table.layout;
    let mut waiting = vec![root.directory];
    while let Some(directory) = waiting.pop().filter(|_| !table.is_spent()) {
        let mut is_directory = false;
        each_entry(table, directory, |table, kind, entry| {
            if kind & SECONDARY == 0 {
                is_directory = kind == FILE && entry.le16(4).is_some_and(|bits| bits & DIRECTORY != 0);
                return Ok(());
            }
            let Some(named) = allocation(layout, entry)? else { return Ok(()) };
            ensure_used(table, named, used, "file or directory")?;
            if is_directory && kind == STREAM_EXTENSION && waiting.len() < MOST_WAITING {
                waiting.push(named);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What a secondary entry names (section 6.4).
fn allocation(layout: &Layout, entry: Bytes<'_>) -> Result<Option<Allocation>> {
    match (entry.byte(1), entry.le32(20), entry.le64(24)) {
        (Some(flags), Some(first), Some(bytes)) if flags & ALLOCATION_POSSIBLE != 0 => {
            Allocation::new(layout, first, bytes, flags & NO_FAT_CHAIN == 0)
        }
        _ => Ok(None),
    }
}

fn ensure_used(table: &mut Table<'_>, allocation: Allocation, used: &ExtentSet, what: &str) -> Result<()> {
    let mut runs = allocation.runs();
    while let Some(run) = runs.next(table)? {
        if !used.contains(run) {
            return Err(Error::corrupt(format!("a {what} lies in clusters that the bitmap calls free")));
        }
    }
    Ok(())
}
