//! Folders: the entries of their index, in the order of its blocks rather than of names.
//!
//! ntfs-3g, include/ntfs-3g/layout.h, `INDEX_ROOT`, `INDEX_BLOCK`, `INDEX_ENTRY`. Blocks that the index no longer uses
//! keep what was in them, so its bitmap is asked. A place is a block's number and an offset in it.

use super::super::record::{BITMAP, INDEX_ALLOCATION, INDEX_ROOT, Record, fix, number_of};
use super::super::stream::Table;
use super::{FIRST_USER, name};
use crate::bytes::Bytes;
use crate::files::{Entry, Node, is_name};
use imager_units::Result;

/// `$I30` in UTF-16.
const FILE_NAMES: &[u8] = b"$\0I\x003\x000\0";
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 512..=65_536;
const INDEX_ENTRY_END: u16 = 2;
const FILE_NAME_DOS: u8 = 2;
/// A place is a block's number, counted from 1 since 0 is the root, above an offset of so many bits.
const OFFSET_BITS: u32 = 17;
/// The bitmap of 4 GiB of index blocks, some ten million names.
const MOST_BITMAP_BYTES: u64 = 128 << 10;

/// Calls `each` with the names in the folder from place `from` on, until it returns false.
pub(super) fn entries(
    table: &Table<'_>,
    folder: &Record,
    from: u64,
    each: &mut dyn FnMut(Entry) -> bool,
) -> Result<()> {
    let wrong = || folder.wrong("has an index of names that cannot be");
    let root = table.resident(folder, INDEX_ROOT, FILE_NAMES)?;
    let root = root.ok_or_else(|| folder.wrong("has no index of names and is no folder"))?;
    let mut walk = Walk { from, each };
    if !walk.node(Bytes(&root), 16, 0).ok_or_else(wrong)? {
        return Ok(());
    }
    let Some(blocks) = table.stream(folder, INDEX_ALLOCATION, FILE_NAMES)? else { return Ok(()) };
    let block_bytes = Bytes(&root).le32(8).map(u64::from).filter(|bytes| bytes.is_power_of_two());
    let block_bytes = block_bytes.filter(|bytes| BLOCK_BYTES.contains(bytes)).ok_or_else(wrong)?;
    let bitmap = bitmap(table, folder)?;
    let first = (from >> OFFSET_BITS).saturating_sub(1);
    for number in first..blocks.len.checked_div(block_bytes).unwrap_or_default() {
        let byte = usize::try_from(number / 8).ok().and_then(|byte| bitmap.get(byte)).copied();
        let Some(byte) = byte else { break };
        if byte.checked_shr(u32::try_from(number % 8).unwrap_or_default()).unwrap_or_default() & 1 == 0 {
            continue;
        }
        let mut block = table.read(&blocks, number.saturating_mul(block_bytes), block_bytes)?;
        if !Bytes(&block).is(0, b"INDX") {
            return Err(wrong());
        }
        fix(&mut block).ok_or_else(|| folder.wrong("has an index of names that was written in part"))?;
        if !walk.node(Bytes(&block), 24, number.saturating_add(1)).ok_or_else(wrong)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Which blocks of the index are in use.
fn bitmap(table: &Table<'_>, folder: &Record) -> Result<Vec<u8>> {
    if let Some(bitmap) = table.resident(folder, BITMAP, FILE_NAMES)? {
        return Ok(bitmap);
    }
    let stream = table.stream(folder, BITMAP, FILE_NAMES)?;
    let stream = stream.filter(|stream| stream.len <= MOST_BITMAP_BYTES);
    let stream = stream.ok_or_else(|| folder.wrong("has no bitmap of its index"))?;
    table.read(&stream, 0, stream.len)
}

struct Walk<'w> {
    from: u64,
    each: &'w mut dyn FnMut(Entry) -> bool,
}

impl Walk<'_> {
    /// The entries of the node whose header is at `at`; whether to go on, `None` when they do not fit.
    fn node(&mut self, node: Bytes<'_>, at: usize, number: u64) -> Option<bool> {
        let offset = usize::try_from(node.le32(at)?).ok()?;
        let mut at = at.checked_add(offset)?;
        loop {
            let len = usize::from(node.le16(at.checked_add(8)?)?);
            let entry = Bytes(node.slice(at, len).filter(|_| len >= 16)?);
            if entry.le16(12)? & INDEX_ENTRY_END != 0 {
                return Some(true);
            }
            at = at.checked_add(len)?;
            let next = number << OFFSET_BITS | u64::try_from(at).ok()?;
            let node = Node(number_of(entry.le64(0)?));
            let units = usize::from(entry.byte(80)?);
            let name = entry.slice(82, units.checked_mul(2)?)?;
            if next <= self.from || node.0 < FIRST_USER || entry.byte(81)? == FILE_NAME_DOS {
                continue;
            }
            let name = name::to_bytes(name);
            if is_name(&name) && !(self.each)(Entry { name, node, next }) {
                return Some(false);
            }
        }
    }
}
