//! The volume label in the root directory, which systems show in place of the boot sector's.

use super::boot::Layout;
use crate::bytes::Bytes;
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{ByteLen, Extent, Result};

const ENTRY_BYTES: usize = 32;
const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0F;
const DELETED: u8 = 0xE5;
/// A label further back than this is not looked for.
const MOST_BYTES: u64 = 64 << 10;

/// The label entry in the first part of the root directory (specification, "FAT Directory Structure").
pub(super) fn root_label(volume: &dyn ReadAt, layout: &Layout) -> Result<Option<String>> {
    let len = ByteLen::new(layout.root.len().get().min(MOST_BYTES));
    let root = Extent::between(layout.root.start(), layout.root.start().saturating_add(len));
    let bytes = read(volume, root)?;
    let entries = bytes.chunks_exact(ENTRY_BYTES).map(Bytes);
    let mut live =
        entries.take_while(|entry| entry.byte(0) != Some(0)).filter(|entry| entry.byte(0) != Some(DELETED));
    let label = live.find(|entry| entry.byte(11).is_some_and(is_label));
    Ok(label.and_then(|entry| entry.text(0, 11)))
}

fn is_label(attributes: u8) -> bool {
    let kinds = attributes & (ATTR_VOLUME_ID | ATTR_DIRECTORY);
    attributes & ATTR_LONG_NAME != ATTR_LONG_NAME && kinds == ATTR_VOLUME_ID
}
