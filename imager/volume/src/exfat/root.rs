//! The root directory, which says where the allocation bitmap is (specification, sections 7.1 to 7.3).

use super::directory::{ALLOCATION_BITMAP, FILE, UPCASE_TABLE, VOLUME_LABEL, each_entry};
use super::table::{Allocation, Table};
use crate::bytes::Bytes;
use imager_units::{Error, Result};

/// No directory is longer (section 7.4, "File directory entry").
const MOST_DIRECTORY_BYTES: u64 = 256 << 20;
/// Bits of an entry's type (section 6.2.1): one that is neither benign nor secondary must be understood.
const BENIGN_OR_SECONDARY: u8 = 0x60;
const SECOND_BITMAP: u8 = 1;
const LABEL_CHARACTERS: usize = 11;

/// What the root directory says of the volume.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) directory: Allocation,
    pub(super) bitmap: Allocation,
    pub(super) upcase: Allocation,
    pub(super) label: Option<String>,
}

impl Root {
    /// Reads the root directory.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when there is not one bitmap of the right length and one up-case table; `Unsupported` when it
    /// holds what must be understood and is not.
    pub(super) fn read(table: &mut Table<'_>) -> Result<Self> {
        let layout = table.layout;
        let most = MOST_DIRECTORY_BYTES.checked_div(layout.cluster.get()).unwrap_or_default();
        let directory = Allocation::open(layout.root, most);
        let (mut bitmaps, mut upcases, mut label) = (Vec::new(), Vec::new(), None);
        let chained = |entry: Bytes<'_>| {
            let (first, bytes) = (entry.le32(20).unwrap_or_default(), entry.le64(24).unwrap_or_default());
            Ok((Allocation::new(layout, first, bytes, true)?, bytes))
        };
        each_entry(table, directory, |_, kind, entry| {
            match kind {
                ALLOCATION_BITMAP if entry.byte(1).is_none_or(|flags| flags & SECOND_BITMAP != 0) => {
                    return Err(Error::unsupported("it has two bitmaps (TexFAT)"));
                }
                ALLOCATION_BITMAP if bitmaps.is_empty() => bitmaps.push(chained(entry)?),
                UPCASE_TABLE if upcases.is_empty() => upcases.push(chained(entry)?),
                ALLOCATION_BITMAP | UPCASE_TABLE => {
                    return Err(Error::corrupt("the root directory names its bitmap or up-case table twice"));
                }
                VOLUME_LABEL => label = volume_label(entry),
                FILE => {}
                kind if kind & BENIGN_OR_SECONDARY == 0 => {
                    let what = format!("entries of type {kind:#04x} in the root directory are not known");
                    return Err(Error::unsupported(what));
                }
                _ => {}
            }
            Ok(())
        })?;
        table.ensure_unspent("the root directory")?;
        let (Some((Some(bitmap), bytes)), Some((Some(upcase), _))) = (bitmaps.pop(), upcases.pop()) else {
            return Err(Error::corrupt(
                "the root directory lacks the allocation bitmap or the up-case table",
            ));
        };
        if bytes < layout.clusters.div_ceil(8) {
            return Err(Error::corrupt("the allocation bitmap is too short for the clusters"));
        }
        Ok(Self { directory, bitmap, upcase, label })
    }
}

/// The label as `blkid` shows it.
fn volume_label(entry: Bytes<'_>) -> Option<String> {
    let count = usize::from(entry.byte(1)?).min(LABEL_CHARACTERS);
    let bytes = entry.slice(2, count.checked_mul(2)?)?;
    let units = bytes.chunks_exact(2).filter_map(|unit| Bytes(unit).le16(0));
    let text: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let text = text.split('\0').next().unwrap_or_default().trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}
