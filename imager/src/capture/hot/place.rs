//! Where the bytes of volumes lie on disks, and back. Marks are of disks, maps are of volumes.

use super::super::streams::{Stream, Subject};
use crate::survey::Piece;
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};

/// The pieces of disks that a stream is, in order.
pub(super) fn pieces(stream: &Stream<'_>) -> Vec<Piece> {
    match stream.subject {
        Subject::Volume(volume, ..) => volume.pieces.clone(),
        Subject::Skeleton(..) => Vec::new(),
        Subject::Remainder(disk) => vec![Piece { disk: disk.number, extent: disk.geometry.extent() }],
    }
}

/// What of a set of bytes of disk `number` lies in the stream, where it lies there.
pub(super) fn in_stream(pieces: &[Piece], number: u32, set: &ExtentSet) -> ExtentSet {
    let mut found = Vec::new();
    let mut at = ByteOffset::ZERO;
    for piece in pieces {
        if piece.disk == number {
            found.extend(set.overlapping(piece.extent).map(|part| moved(part, piece.extent.start(), at)));
        }
        at = at.saturating_add(piece.extent.len());
    }
    // Pieces may lie on the disk in any order.
    found.sort_unstable();
    found.into_iter().collect()
}

/// What of a set of the stream's bytes lies on disk `number`, where it lies there.
pub(super) fn on_disk(pieces: &[Piece], number: u32, set: &ExtentSet) -> ExtentSet {
    let mut found = Vec::new();
    let mut at = ByteOffset::ZERO;
    for piece in pieces {
        let end = at.saturating_add(piece.extent.len());
        if piece.disk == number {
            let parts = set.overlapping(Extent::between(at, end));
            found.extend(parts.map(|part| moved(part, at, piece.extent.start())));
        }
        at = end;
    }
    found.sort_unstable();
    found.into_iter().collect()
}

fn moved(part: Extent, from: ByteOffset, to: ByteOffset) -> Extent {
    let start = to.saturating_add(part.start().saturating_since(from));
    Extent::between(start, start.saturating_add(part.len()))
}

/// The whole blocks of the journal around a set.
pub(super) fn in_marks(set: &ExtentSet, size: ByteLen) -> ExtentSet {
    set.align_out(imager_journal::MARK_BYTES, Extent::first(size).end())
}

#[cfg(test)]
mod tests {
    use super::{in_stream, on_disk};
    use crate::survey::Piece;
    use imager_units::{ByteOffset, Extent, ExtentSet};
    use proptest::prelude::proptest;

    fn extent(from: u64, to: u64) -> Extent {
        Extent::between(ByteOffset::new(from), ByteOffset::new(to))
    }

    proptest! {
        #[test]
        fn there_and_back_is_what_lies_in_the_pieces(
            cuts in proptest::collection::vec((0..2_u32, 0..80_u64, 1..20_u64), 1..6),
            marks in proptest::collection::vec((0..100_u64, 1..30_u64), 0..6),
        ) {
            // Pieces that do not overlap: each on its own hundred bytes.
            let mut pieces: Vec<_> = (0..).zip(&cuts)
                .map(|(n, &(disk, at, len))| Piece { disk, extent: extent(n * 100 + at, n * 100 + at + len) })
                .collect();
            pieces.reverse();
            let marks: ExtentSet = marks.iter().flat_map(|&(at, len)| {
                (0..6).map(move |n| extent(n * 100 + at, n * 100 + at + len))
            }).collect();
            for disk in 0..2 {
                let inside: ExtentSet =
                    pieces.iter().rev().filter(|p| p.disk == disk).flat_map(|p| marks.overlapping(p.extent)).collect();
                let there = in_stream(&pieces, disk, &marks);
                assert_eq!(on_disk(&pieces, disk, &there), inside);
                assert_eq!(there.total(), inside.total());
            }
        }
    }
}
