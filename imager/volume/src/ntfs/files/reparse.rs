//! Reparse points ([MS-FSCC] 2.1.2): links, and what is kept elsewhere or in another form.

use super::name;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

const MOUNT_POINT: u32 = 0xA000_0003;
const SYMLINK: u32 = 0xA000_000C;
const LX_SYMLINK: u32 = 0xA000_001D;
const WOF: u32 = 0x8000_0017;
const DEDUP: u32 = 0x8000_0013;
/// OneDrive and its like: sixteen tags that differ in four bits.
const CLOUD: u32 = 0x9000_001A;
const CLOUD_MASK: u32 = 0xFFFF_0FFF;
const SYMLINK_FLAG_RELATIVE: u32 = 1;

/// What a reparse point makes of a file.
pub(super) enum Reparse {
    /// A symbolic link with this target.
    Link(Vec<u8>),
    /// Its content is what its data stream says only if the file is not marked as being elsewhere.
    Cloud,
    /// Its content is not what its data stream says, and why.
    Elsewhere(String),
}

/// Reads the value of a `$REPARSE_POINT`.
///
/// # Errors
/// `Corrupt` when it is a link that leads nowhere.
pub(super) fn parse(value: &[u8]) -> Result<Reparse> {
    let b = Bytes(value);
    let wrong = || Error::corrupt("a reparse point that cannot be");
    let tag = b.le32(0).ok_or_else(wrong)?;
    Ok(match tag {
        SYMLINK => Reparse::Link(link(b, 20, b.le32(16)).ok_or_else(wrong)?),
        MOUNT_POINT => Reparse::Link(link(b, 16, None).ok_or_else(wrong)?),
        LX_SYMLINK => Reparse::Link(value.get(12..).ok_or_else(wrong)?.to_vec()),
        tag if tag & CLOUD_MASK == CLOUD => Reparse::Cloud,
        WOF => Reparse::Elsewhere("is packed by CompactOS (WOF)".to_owned()),
        DEDUP => Reparse::Elsewhere("is deduplicated".to_owned()),
        tag => Reparse::Elsewhere(format!("is a reparse point of tag {tag:#010x}")),
    })
}

/// The target of a link whose names lie behind `buffer`. A relative one is a path here too; an absolute one names a
/// drive of Windows and is given as a person there would read it.
fn link(b: Bytes<'_>, buffer: usize, flags: Option<u32>) -> Option<Vec<u8>> {
    let text = |offset: usize, len: usize| {
        let (offset, len) = (usize::from(b.le16(offset)?), usize::from(b.le16(len)?));
        Some(name::to_bytes(b.slice(buffer.checked_add(offset)?, len)?))
    };
    let (substitute, print) = (text(8, 10)?, text(12, 14)?);
    if flags.is_some_and(|flags| flags & SYMLINK_FLAG_RELATIVE != 0) {
        return Some(substitute.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect());
    }
    let shown = if print.is_empty() {
        substitute.strip_prefix(b"\\??\\").unwrap_or(&substitute).to_vec()
    } else {
        print
    };
    Some(shown).filter(|shown| !shown.is_empty() && !shown.contains(&0))
}
