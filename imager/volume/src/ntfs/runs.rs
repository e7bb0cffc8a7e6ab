//! Mapping pairs: which clusters of the volume an attribute's clusters are.
//!
//! ntfs-3g, include/ntfs-3g/layout.h, "mapping pairs array": a byte whose halves say how long the two numbers behind it
//! are, a length, and the distance from the run before (none for a hole).

use super::boot::Layout;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

/// Consecutive clusters of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first of them within the attribute.
    pub(super) vcn: u64,
    /// The first of them on the volume; `None` in a hole.
    pub(super) lcn: Option<u64>,
    /// How many.
    pub(super) len: u64,
}

impl Run {
    /// The cluster behind the run, within the attribute.
    pub(super) fn end(&self) -> u64 {
        self.vcn.saturating_add(self.len)
    }
}

/// Calls `visit` with every run of `pairs`, which begins at cluster `first` of the attribute; returns where it ends.
///
/// # Errors
/// `Corrupt` when the pairs are cut off, empty or reach outside the volume; whatever `visit` returns.
pub(super) fn decode(
    pairs: &[u8],
    first: u64,
    layout: &Layout,
    mut visit: impl FnMut(Run) -> Result<()>,
) -> Result<u64> {
    let wrong = || Error::corrupt("the clusters of an attribute are listed wrongly");
    let b = Bytes(pairs);
    let (mut at, mut vcn, mut lcn) = (0_usize, first, 0_i64);
    loop {
        let sizes = b.byte(at).ok_or_else(wrong)?;
        if sizes == 0 {
            return Ok(vcn);
        }
        let (len_bytes, lcn_bytes) = (usize::from(sizes & 15), usize::from(sizes >> 4));
        let len_at = at.saturating_add(1);
        let lcn_at = len_at.saturating_add(len_bytes);
        let number = |at, len| b.slice(at, len).and_then(signed);
        let len = number(len_at, len_bytes).and_then(|len| u64::try_from(len).ok());
        let len = len.filter(|&len| len > 0 && len <= u64::MAX >> 1).ok_or_else(wrong)?;
        let mut run = Run { vcn, lcn: None, len };
        if lcn_bytes > 0 {
            let step = number(lcn_at, lcn_bytes).ok_or_else(wrong)?;
            lcn = lcn.checked_add(step).ok_or_else(wrong)?;
            let start = u64::try_from(lcn).map_err(|_| wrong())?;
            if start.checked_add(len).is_none_or(|end| end > layout.clusters) {
                return Err(Error::corrupt("an attribute has clusters outside the filesystem"));
            }
            run.lcn = Some(start);
        }
        visit(run)?;
        vcn = vcn.checked_add(len).ok_or_else(wrong)?;
        at = lcn_at.saturating_add(lcn_bytes);
    }
}

/// A little-endian number of one to eight bytes with a sign.
fn signed(bytes: &[u8]) -> Option<i64> {
    let fill = if bytes.last()? & 0x80 == 0 { 0 } else { 0xFF };
    let mut whole = [fill; 8];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}
