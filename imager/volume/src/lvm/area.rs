//! A metadata area: a header and a ring of texts, of which one counts.
//!
//! `struct mda_header` and `struct raw_locn` (lvm2, lib/format_text/layout.h).

use super::label::checksum;
use crate::bytes::Bytes;
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};

const HEADER: ByteLen = ByteLen::new(512);
const MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
/// `RAW_LOCN_IGNORED`: the area is there, but not used by choice.
const IGNORED: u32 = 1;
/// Metadata of thousands of logical volumes fit in this many bytes.
const MOST_BYTES: u64 = 4 << 20;

/// The text that counts in the metadata area at `area`; `None` when there is none: the area is ignored, or the
/// physical volume belongs to no group.
///
/// # Errors
/// `Corrupt` when the area or its text is damaged; `Unsupported` when it is larger or newer than we read; `Io`.
pub(super) fn text(volume: &dyn ReadAt, area: Extent) -> Result<Option<String>> {
    if area.len() <= HEADER {
        return Err(Error::corrupt("a metadata area too small for anything"));
    }
    let header = read(volume, Extent::between(area.start(), area.start().saturating_add(HEADER)))?;
    let b = Bytes(&header);
    let short = || Error::corrupt("a metadata area without a header");
    if b.le32(0) != Some(checksum(&[header.get(4..).unwrap_or_default()])) || !b.is(4, MAGIC) {
        return Err(Error::corrupt("the header of a metadata area is damaged"));
    }
    if b.le32(20) != Some(1) {
        return Err(Error::unsupported("a metadata area of another version"));
    }
    if b.le64(24) != Some(area.start().get()) || b.le64(32) != Some(area.len().get()) {
        return Err(Error::corrupt("a metadata area that was written for another place"));
    }
    let (offset, size) = (b.le64(40).ok_or_else(short)?, b.le64(48).ok_or_else(short)?);
    let (sum, flags) = (b.le32(56).ok_or_else(short)?, b.le32(60).ok_or_else(short)?);
    if flags & !IGNORED != 0 {
        return Err(Error::unsupported("a metadata area with flags that are not known"));
    }
    if offset == 0 || flags & IGNORED != 0 {
        return Ok(None);
    }
    if b.le64(64) != Some(0) {
        return Err(Error::corrupt("a change of its metadata was begun and not finished"));
    }
    let bytes = ring(volume, area, offset, size)?;
    if checksum(&[&bytes]) != sum {
        return Err(Error::corrupt("the checksum of its metadata is wrong"));
    }
    // A NUL ends it.
    let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    let text = std::str::from_utf8(text).map_err(|_| Error::corrupt("its metadata is no text"))?;
    Ok(Some(text.to_owned()))
}

/// The text of `size` bytes at `offset` of the area; one that reaches its end goes on behind the header.
fn ring(volume: &dyn ReadAt, area: Extent, offset: u64, size: u64) -> Result<Vec<u8>> {
    let capacity = area.len().saturating_sub(HEADER).get();
    let end = area.len().get();
    if offset < HEADER.get() || offset >= end || size == 0 || size > capacity {
        return Err(Error::corrupt("a metadata area whose text lies outside of it"));
    }
    if size > MOST_BYTES {
        return Err(Error::unsupported("metadata of more than 4 MiB"));
    }
    let piece = |from: u64, len: u64| {
        let start = area.start().saturating_add(ByteLen::new(from));
        read(volume, Extent::between(start, start.saturating_add(ByteLen::new(len))))
    };
    let first = size.min(end.saturating_sub(offset));
    let mut bytes = piece(offset, first)?;
    bytes.extend(piece(HEADER.get(), size.saturating_sub(first))?);
    Ok(bytes)
}

/// Where a label or an area can be recognised.
pub(super) fn head(area: Extent) -> Extent {
    Extent::between(area.start(), ByteOffset::min(area.start().saturating_add(HEADER), area.end()))
}
