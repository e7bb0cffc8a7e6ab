//! Which map speaks of which bytes of a disk.

use imager_image::manifest::Manifest;
use imager_units::{ByteLen, ByteOffset, Extent};

/// A run of a disk (or volume) of which one map speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which bytes.
    pub(super) extent: Extent,
    /// Number of the map; `None` where nothing is captured.
    pub(super) map: Option<usize>,
    /// Where in the map the run starts.
    pub(super) at: ByteOffset,
}

/// The parts of a disk of `size`, in order and without gaps: the remainder (map `remainder`), and over it the
/// volumes, whose maps are given by their places in the manifest. What holds other volumes is larger than they are,
/// so the smaller one has the say where two overlap.
pub(super) fn of_disk(
    manifest: &Manifest,
    number: u32,
    size: ByteLen,
    remainder: usize,
    volumes: &[Option<usize>],
) -> Vec<Part> {
    let whole = Extent::first(size);
    let mut parts = vec![Part { extent: whole, map: Some(remainder), at: ByteOffset::ZERO }];
    let mut by_size: Vec<_> = manifest.volumes.iter().zip(volumes).collect();
    by_size.sort_by_key(|(volume, _)| std::cmp::Reverse(volume.size_bytes));
    for (volume, map) in by_size {
        let mut at = ByteOffset::ZERO;
        for segment in &volume.segments {
            let (start, len) = (ByteOffset::new(segment.start_byte), ByteLen::new(segment.len_bytes));
            let extent = Extent::between(start, start.saturating_add(len)).intersection(whole);
            if segment.disk == number && !extent.is_empty() {
                paint(&mut parts, Part { extent, map: *map, at });
            }
            at = at.saturating_add(len);
        }
    }
    parts
}

/// Puts `new` over what was there.
fn paint(parts: &mut Vec<Part>, new: Part) {
    let mut painted = Vec::with_capacity(parts.len() + 2);
    for part in parts.drain(..) {
        let before = Extent::between(part.extent.start(), part.extent.end().min(new.extent.start()));
        let behind = Extent::between(part.extent.start().max(new.extent.end()), part.extent.end());
        painted.extend([before, behind].into_iter().filter(|extent| !extent.is_empty()).map(|extent| {
            let skipped = extent.start().saturating_since(part.extent.start());
            Part { extent, at: part.at.saturating_add(skipped), ..part }
        }));
    }
    painted.push(new);
    painted.sort_by_key(|part| part.extent.start());
    *parts = painted;
}

#[cfg(test)]
mod tests {
    use super::{Part, paint};
    use imager_units::{ByteOffset, Extent};
    use proptest::prelude::proptest;

    fn extent(from: u64, to: u64) -> Extent {
        Extent::between(ByteOffset::new(from), ByteOffset::new(to))
    }

    proptest! {
        #[test]
        fn painting_agrees_with_one_map_a_byte(runs in proptest::collection::vec((0..100_u64, 1..50_u64), 0..8)) {
            let mut parts = vec![Part { extent: extent(0, 150), map: Some(0), at: ByteOffset::ZERO }];
            let mut model: Vec<_> = (0..150_u64).map(|at| (0, at)).collect();
            for (map, (from, len)) in (1..).zip(runs) {
                paint(&mut parts, Part { extent: extent(from, from + len), map: Some(map), at: ByteOffset::new(7) });
                for (place, n) in model.iter_mut().skip(usize::try_from(from).unwrap()).zip(0..len) {
                    *place = (map, 7 + n);
                }
            }
            let mut found = Vec::new();
            for part in &parts {
                assert_eq!(part.extent.start().get(), found.len() as u64);
                found.extend((0..part.extent.len().get()).map(|n| (part.map.unwrap(), part.at.get() + n)));
            }
            assert_eq!(found, model);
        }
    }
}
