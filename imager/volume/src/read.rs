//! Small reads of a volume's structures.

use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

/// Reads `extent`.
///
/// # Errors
/// `Corrupt` when it lies outside the volume (whoever asked took the position from the volume), `Io` when it cannot
/// be read.
pub(crate) fn read(volume: &dyn ReadAt, extent: Extent) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    read_into(volume, extent, &mut buffer)?;
    Ok(buffer)
}

/// As [`read`], into a buffer that is used again.
pub(crate) fn read_into(volume: &dyn ReadAt, extent: Extent, buffer: &mut Vec<u8>) -> Result<()> {
    let inside = volume.geometry().extent().contains(extent);
    let len = extent.len().to_usize().filter(|_| inside);
    let len =
        len.ok_or_else(|| Error::corrupt(format!("a structure at {extent} lies outside the volume")))?;
    buffer.resize(len, 0);
    volume.read_exact_at(extent.start(), buffer)
}

/// Reads `len` bytes at `offset`; `None` where the volume is too short for them.
///
/// # Errors
/// `Io` when they cannot be read.
pub(crate) fn read_if_inside(volume: &dyn ReadAt, offset: u64, len: u64) -> Result<Option<Vec<u8>>> {
    match Extent::new(ByteOffset::new(offset), ByteLen::new(len)) {
        Some(extent) if volume.geometry().extent().contains(extent) => read(volume, extent).map(Some),
        _ => Ok(None),
    }
}
