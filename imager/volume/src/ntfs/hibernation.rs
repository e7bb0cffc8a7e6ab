//! Whether Windows is hibernated on the volume, fast startup included: then a part of what is on it is in its memory.
//!
//! `hiberfil.sys` in the root directory begins with a word of which ntfs-3g (libntfs-3g/volume.c) says what it means.
//! The directory is read from end to end rather than searched by its order, which depends on a table of upper cases.

use super::record::{DATA, INDEX_ALLOCATION, INDEX_ROOT, Record, fix, number_of};
use super::stream::Table;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

const ROOT: u64 = 5;
const HIBERFIL: &[u8] = b"hiberfil.sys";
/// `$I30` in UTF-16.
const FILE_NAMES: &[u8] = b"$\0I\x003\x000\0";
const INDEX_BLOCK_BYTES: std::ops::RangeInclusive<u64> = 512..=65_536;
/// Half a million names; a longer root directory is not looked through.
const MOST_DIRECTORY_BYTES: u64 = 64 << 20;
const INDEX_ENTRY_END: u16 = 2;
const HEADER_BYTES: u64 = 4096;

/// Whether the volume holds the memory of a Windows that will go on.
///
/// # Errors
/// `Corrupt` when the root directory cannot be understood, `Unsupported` when it is too long, `Io`.
pub(super) fn is_hibernated(table: &Table<'_>) -> Result<bool> {
    let Some(number) = find(table)? else { return Ok(false) };
    let record = table.record(number)?;
    let Some(data) = table.stream(&record, DATA, &[])?.filter(|data| data.len >= HEADER_BYTES) else {
        return Ok(false);
    };
    let header = table.read(&data, 0, HEADER_BYTES)?;
    Ok(header
        .get(..4)
        .is_some_and(|word| [b"hibr", b"HIBR", b"rstr", b"RSTR"].iter().any(|known| word == *known)))
}

/// The record of `hiberfil.sys`.
fn find(table: &Table<'_>) -> Result<Option<u64>> {
    let root = table.record(ROOT)?;
    let wrong = || root.wrong("(the root directory) has no index of names");
    let in_record = index_root(table, &root)?.ok_or_else(wrong)?;
    let index = Bytes(&in_record);
    if let Some(number) = entries(index, 16).ok_or_else(wrong)? {
        return Ok(Some(number));
    }
    let Some(blocks) = table.stream(&root, INDEX_ALLOCATION, FILE_NAMES)? else { return Ok(None) };
    let block_bytes = index.le32(8).map(u64::from).filter(|bytes| bytes.is_power_of_two());
    let block_bytes = block_bytes.filter(|bytes| INDEX_BLOCK_BYTES.contains(bytes)).ok_or_else(wrong)?;
    if blocks.len > MOST_DIRECTORY_BYTES {
        return Err(Error::unsupported("the root directory is too long to be looked through"));
    }
    let mut at = 0_u64;
    while at < blocks.len {
        let mut block = table.read(&blocks, at, block_bytes)?;
        if Bytes(&block).is(0, b"INDX") {
            fix(&mut block).ok_or_else(|| root.wrong("(the root directory) was written in part"))?;
            if let Some(number) = entries(Bytes(&block), 24).ok_or_else(wrong)? {
                return Ok(Some(number));
            }
        }
        at = at.saturating_add(block_bytes);
    }
    Ok(None)
}

/// The value of the directory's `$INDEX_ROOT`, which lies in a record: its own or, with a list, another.
fn index_root(table: &Table<'_>, root: &Record) -> Result<Option<Vec<u8>>> {
    let value = table.resident(root, INDEX_ROOT, FILE_NAMES)?;
    Ok(value.filter(|value| value.len() >= 32))
}

/// The record that the entry of that name has, in the index whose header is at `at`; the outer `None` for a header
/// or entries that do not fit.
#[expect(clippy::option_option, reason = "not understood, or understood and not there")]
fn entries(index: Bytes<'_>, at: usize) -> Option<Option<u64>> {
    let offset = usize::try_from(index.le32(at)?).ok()?;
    let mut at = at.checked_add(offset)?;
    loop {
        let len = usize::from(index.le16(at.checked_add(8)?)?);
        let entry = Bytes(index.slice(at, len).filter(|_| len >= 16)?);
        if entry.le16(12)? & INDEX_ENTRY_END != 0 {
            return Some(None);
        }
        let units = usize::from(entry.byte(80)?);
        let name = entry.slice(82, units.checked_mul(2)?)?;
        if is_hiberfil(name) {
            return Some(Some(number_of(entry.le64(0)?)));
        }
        at = at.checked_add(len)?;
    }
}

fn is_hiberfil(name: &[u8]) -> bool {
    let letter = |unit: &[u8]| match unit {
        [letter, 0] => letter.to_ascii_lowercase(),
        _ => 0,
    };
    name.len() == HIBERFIL.len().saturating_mul(2)
        && name.chunks_exact(2).map(letter).eq(HIBERFIL.iter().copied())
}
