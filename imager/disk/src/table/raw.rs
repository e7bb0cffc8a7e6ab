//! The sectors a table is made of, as bytes: kept in a capture, parsed again before a restore.

use super::sectors::Sectors;
use crate::{Geometry, ReadAt};
use imager_units::{ByteLen, ByteOffset, Extent, Result, SectorSize};
use std::fmt;

/// Consecutive sectors that belong to a table, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct RawArea {
    /// Where they start on the disk.
    pub start: ByteOffset,
    /// What they hold.
    pub bytes: Vec<u8>,
}

impl RawArea {
    /// Where the area lies; an area that would end past 2^64 counts as empty.
    pub fn extent(&self) -> Extent {
        Extent::new(self.start, ByteLen::of(&self.bytes)).unwrap_or_default()
    }
}

impl fmt::Debug for RawArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawArea({}, crc {:#010x})", self.extent(), crc32fast::hash(&self.bytes))
    }
}

/// A disk of zeros with some areas on it, so saved sectors go through the same parser as a disk.
pub(super) struct Areas<'a> {
    areas: &'a [RawArea],
    geometry: Geometry,
}

impl<'a> Areas<'a> {
    pub(super) fn new(areas: &'a [RawArea], sector: SectorSize, size: ByteLen) -> Self {
        let geometry = Geometry { size, logical: sector, physical: sector };
        Self { areas, geometry }
    }

    pub(super) fn sectors(&self) -> Sectors<'_> {
        Sectors::new(self, self.geometry.logical)
    }
}

impl ReadAt for Areas<'_> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let asked = self.geometry.check(offset, ByteLen::of(buf))?;
        buf.fill(0);
        for area in self.areas {
            let part = area.extent().intersection(asked);
            let from = range(part, area.start).and_then(|range| area.bytes.get(range));
            let to = range(part, offset).and_then(|range| buf.get_mut(range));
            if let (Some(from), Some(to)) = (from, to) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }
}

/// `part` as indexes into a buffer that starts at `origin`; `None` for an empty part.
fn range(part: Extent, origin: ByteOffset) -> Option<std::ops::Range<usize>> {
    let start = part.start().saturating_since(origin).to_usize()?;
    let end = part.end().saturating_since(origin).to_usize()?;
    (!part.is_empty()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::{Areas, RawArea};
    use crate::ReadAt;
    use imager_units::{ByteLen, ByteOffset, SectorSize};

    #[test]
    fn areas_show_through_and_everything_else_is_zero() {
        let area = |start, bytes: &[u8]| RawArea { start: ByteOffset::new(start), bytes: bytes.to_vec() };
        let areas = [area(2, &[1, 2, 3]), area(9, &[9, 9, 9]), area(u64::MAX, &[7, 7])];
        let disk = Areas::new(&areas, SectorSize::B512, ByteLen::new(10));
        let mut all = [0xff; 10];
        disk.read_exact_at(ByteOffset::ZERO, &mut all).unwrap();
        assert_eq!(all, [0, 0, 1, 2, 3, 0, 0, 0, 0, 9]);
        let mut part = [0xff; 2];
        disk.read_exact_at(ByteOffset::new(3), &mut part).unwrap();
        assert_eq!(part, [2, 3]);
        assert!(disk.read_exact_at(ByteOffset::new(9), &mut part).is_err());
    }
}
