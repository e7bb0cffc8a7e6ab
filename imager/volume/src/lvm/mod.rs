//! LVM2: physical volumes, the metadata of their group, and which bytes of them are logical volumes.
//!
//! A physical volume is a container: its map is its label, its metadata areas and everything else that does not lie in
//! an extent, and the extents of logical volumes that are not volumes of their own ([`Shape::Opaque`]). Extents of
//! those that are belong to them, and extents of nobody do not count: LVM gives what was in one to nobody, short of
//! undoing a removal by hand.
//!
//! No more is believed than all copies of the metadata agree on; LVM would take the newest, but then something
//! happened to the group that no image should be built on without its being told.

mod area;
mod group;
mod label;
#[cfg(test)]
mod tests;
mod text;

pub use group::{Group, Logical, Physical, Piece, Shape};

use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, ExtentSet, Result};

/// What a physical volume says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its UUID.
    pub id: String,
    /// Where it is recognisable: its label and the headers of its metadata areas.
    pub head: ExtentSet,
    /// The text that each of its metadata areas holds.
    pub metadata: Vec<String>,
}

/// Reads what a physical volume says about itself.
///
/// # Errors
/// `Corrupt` or `Unsupported` when that cannot be relied on; `Io`.
pub fn read(volume: &dyn ReadAt) -> Result<Member> {
    let label = label::read(volume)?;
    let mut head = ExtentSet::from(label.at);
    let mut metadata = Vec::new();
    for extent in label.areas {
        head.insert(area::head(extent));
        metadata.extend(area::text(volume, extent)?);
    }
    Ok(Member { id: label.id, head, metadata })
}

impl Group {
    /// The bytes of physical volume number `number`, which is `size` long, that belong to itself rather than to a
    /// volume in it or to nobody.
    ///
    /// # Errors
    /// `Corrupt` when the group's metadata speak of more than there is.
    pub fn used(&self, number: usize, size: ByteLen) -> Result<ExtentSet> {
        let whole = Extent::first(size);
        let extents = self.physical.get(number).map(|physical| physical.extents).unwrap_or_default();
        if !whole.contains(extents) {
            return Err(Error::corrupt("it is shorter than its volume group believes"));
        }
        let opaque = self.logical.iter().filter(|logical| logical.shape != Shape::Plain);
        let pieces = opaque.flat_map(|logical| &logical.pieces).filter(|piece| piece.physical == number);
        let mut kept: Vec<_> = pieces.map(|piece| piece.extent).collect();
        kept.sort_unstable();
        let outside = ExtentSet::from(extents).complement(whole);
        Ok(outside.union(&kept.into_iter().collect()))
    }
}

/// Thirty-two letters and digits in LVM's groups.
pub(crate) fn id(letters: &str) -> Option<String> {
    if letters.len() != 32
        || !letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'#'))
    {
        return None;
    }
    let mut rest = letters;
    let mut groups = Vec::new();
    for len in [6, 4, 4, 4, 4, 4, 6] {
        let (group, behind) = rest.split_at_checked(len)?;
        groups.push(group);
        rest = behind;
    }
    Some(groups.join("-"))
}
