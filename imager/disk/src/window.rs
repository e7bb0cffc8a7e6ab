//! A volume as the bytes that belong to it, wherever they lie.
//!
//! A partition is one piece of one disk, a logical volume may be many pieces of several. A window makes either look
//! like a disk that starts at zero, and nothing outside the pieces can be reached through it.

use crate::{Geometry, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result};

/// A piece of a volume: `extent` of disk number `disk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which disk, counted from 0 among the disks at hand.
    pub disk: usize,
    /// Which bytes of it.
    pub extent: Extent,
}

/// The pieces of a volume as one; readable where `D` is, writable where `D` is.
#[derive(Debug)]
pub struct Window<D> {
    disks: Vec<D>,
    /// Each with the offset in the volume at which it starts, in that order.
    pieces: Vec<(ByteOffset, Segment)>,
    geometry: Geometry,
}

impl<D: ReadAt> Window<D> {
    /// The volume made of `segments` in their order.
    ///
    /// # Errors
    /// `Invalid` when there is no segment, or one lies outside its disk or on a disk that is not among `disks`.
    pub fn new(disks: Vec<D>, segments: impl IntoIterator<Item = Segment>) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut end = ByteOffset::ZERO;
        let mut sectors = None;
        for segment in segments {
            let disk = disks.get(segment.disk).ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("a volume has a segment on disk {}, which is absent", segment.disk),
                )
            })?;
            let geometry = disk.geometry();
            geometry.check(segment.extent.start(), segment.extent.len())?;
            pieces.push((end, segment));
            end = end.checked_add(segment.extent.len()).ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "the segments of a volume add up to more than 2^64 bytes")
            })?;
            let (logical, physical) = sectors.unwrap_or((geometry.logical, geometry.physical));
            sectors = Some((logical.max(geometry.logical), physical.max(geometry.physical)));
        }
        let (logical, physical) =
            sectors.ok_or_else(|| Error::new(ErrorKind::Invalid, "a volume without a segment"))?;
        let geometry = Geometry { size: end.saturating_since(ByteOffset::ZERO), logical, physical };
        Ok(Self { disks, pieces, geometry })
    }

    /// The volume that is one run of one disk.
    ///
    /// # Errors
    /// `Invalid` when `extent` lies outside the disk.
    pub fn part(disk: D, extent: Extent) -> Result<Self> {
        Self::new(vec![disk], [Segment { disk: 0, extent }])
    }

    /// The parts of `within` by the disks they lie on: where they start in the volume, the disk, where on it.
    fn located(&self, within: Extent) -> impl Iterator<Item = (ByteOffset, &D, Extent)> {
        let from = self
            .pieces
            .partition_point(|(start, segment)| start.saturating_add(segment.extent.len()) <= within.start());
        self.pieces[from..].iter().map_while(move |&(start, segment)| {
            let here =
                Extent::between(start, start.saturating_add(segment.extent.len())).intersection(within);
            let on_disk = segment.extent.start().saturating_add(here.start().saturating_since(start));
            let extent = Extent::between(on_disk, on_disk.saturating_add(here.len()));
            (start < within.end()).then(|| (here.start(), &self.disks[segment.disk], extent))
        })
    }
}

impl<D: ReadAt> ReadAt for Window<D> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        for (_, disk, extent) in self.located(self.geometry.check(offset, ByteLen::of(rest))?) {
            let (now, later) = rest.split_at_mut(len_in_memory(extent));
            rest = later;
            disk.read_exact_at(extent.start(), now)?;
        }
        Ok(())
    }

    fn data(&self, within: Extent) -> Result<ExtentSet> {
        let mut data = ExtentSet::new();
        for (start, disk, extent) in self.located(within.intersection(self.geometry.extent())) {
            data.extend(disk.data(extent)?.iter().map(|found| {
                let start = start.saturating_add(found.start().saturating_since(extent.start()));
                Extent::between(start, start.saturating_add(found.len()))
            }));
        }
        Ok(data)
    }
}

impl<D: WriteAt> WriteAt for Window<D> {
    fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (_, disk, extent) in self.located(self.geometry.check(offset, ByteLen::of(rest))?) {
            let (now, later) = rest.split_at(len_in_memory(extent));
            rest = later;
            disk.write_all_at(extent.start(), now)?;
        }
        Ok(())
    }

    fn zero(&self, extent: Extent) -> Result<()> {
        let asked = self.geometry.check(extent.start(), extent.len())?;
        self.located(asked).try_for_each(|(_, disk, extent)| disk.zero(extent))
    }

    fn flush(&self) -> Result<()> {
        let used = |(at, _): &(usize, &D)| self.pieces.iter().any(|(_, segment)| segment.disk == *at);
        self.disks.iter().enumerate().filter(used).try_for_each(|(_, disk)| disk.flush())
    }
}

fn len_in_memory(extent: Extent) -> usize {
    extent.len().to_usize().expect("a part of a buffer fits into memory")
}

#[cfg(test)]
mod tests {
    use super::{Segment, Window};
    use crate::{MemoryDisk, ReadAt, WriteAt};
    use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
    }

    fn segment(disk: usize, start: u64, len: u64) -> Segment {
        Segment { disk, extent: extent(start, len) }
    }

    #[test]
    fn pieces_are_joined_in_their_order_and_nothing_else_is_reached() {
        let a = MemoryDisk::from_bytes(b"0123456789", SectorSize::B512);
        let b = MemoryDisk::from_bytes(b"abcdefghij", SectorSize::B4096);
        let pieces = [segment(1, 2, 3), segment(0, 7, 2), segment(0, 0, 0), segment(1, 0, 1)];
        let window = Window::new(vec![&a, &b], pieces).unwrap();
        assert_eq!(window.geometry().size, ByteLen::new(6));
        assert_eq!(window.geometry().logical, SectorSize::B4096);
        let whole = b"cde78a";
        for from in 0..6_u8 {
            for to in from..=6 {
                let mut buf = vec![0; usize::from(to - from)];
                window.read_exact_at(ByteOffset::new(from.into()), &mut buf).unwrap();
                assert_eq!(buf, whole[from.into()..to.into()]);
            }
        }
        window.write_all_at(ByteOffset::new(2), b"XYZ").unwrap();
        window.zero(extent(5, 1)).unwrap();
        window.flush().unwrap();
        assert_eq!(a.to_vec(), b"0123456YZ9");
        assert_eq!(b.to_vec(), b"\0bcdXfghij");
        let mut buf = [0; 2];
        assert_eq!(
            window.read_exact_at(ByteOffset::new(5), &mut buf).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }

    #[test]
    fn data_is_told_in_the_volumes_offsets() {
        let disk = MemoryDisk::new(ByteLen::new(1 << 20), SectorSize::B512);
        disk.write_all_at(ByteOffset::new(0x3_0000), b"x").unwrap();
        let window =
            Window::new(vec![&disk], [segment(0, 0x8_0000, 0x1000), segment(0, 0x2_8000, 0x2_0000)]).unwrap();
        let data: Vec<_> = window.data(window.geometry().extent()).unwrap().iter().collect();
        assert_eq!(data, [extent(0x9000, 0x1_0000)]);
    }

    #[test]
    fn a_segment_that_is_not_there_is_invalid() {
        let disk = MemoryDisk::new(ByteLen::new(1000), SectorSize::B512);
        let absent: [&[Segment]; 3] = [&[], &[segment(1, 0, 1)], &[segment(0, 999, 2)]];
        for segments in absent {
            let error = Window::new(vec![&disk], segments.iter().copied()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
}
