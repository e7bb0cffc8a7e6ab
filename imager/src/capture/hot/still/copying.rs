//! What is copied of runs of marks: block by block into locked memory.

use super::MOST_BAD;
use super::copiers::{Block, Work};
use imager_journal::{Arena, MARK_BYTES};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, Result};

/// How far it came: all runs before this one, and of this one what lies before a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    run: usize,
    at: ByteOffset,
}

impl Place {
    /// What lies behind.
    pub(super) fn rest(self, runs: &[Block]) -> impl Iterator<Item = Block> {
        let rest = runs.iter().enumerate().skip(self.run);
        rest.map(move |(number, &(disk, run))| match number == self.run {
            true => (disk, Extent::between(run.start().max(self.at), run.end())),
            false => (disk, run),
        })
    }
}

/// The work. Takes no memory.
pub(super) struct Copying<'a> {
    arena: &'a mut Arena,
    bad: &'a mut Vec<Block>,
    sizes: &'a [ByteLen],
    runs: &'a [Block],
    place: Place,
}

impl<'a> Copying<'a> {
    /// Of disks of these sizes.
    pub(super) fn new(
        arena: &'a mut Arena,
        bad: &'a mut Vec<Block>,
        sizes: &'a [ByteLen],
        runs: &'a [Block],
    ) -> Self {
        Self { arena, bad, sizes, runs, place: Place::default() }
    }

    /// Up to where blocks were asked for.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Whether all were.
    pub(super) fn is_done(&self) -> bool {
        self.place.run >= self.runs.len()
    }

    /// The block at the place; whatever of a run lies behind the disk's end is none.
    fn here(&mut self) -> Option<Block> {
        loop {
            let &(disk, run) = self.runs.get(self.place.run)?;
            let size = self.sizes.get(disk).copied().unwrap_or_default();
            // The last block of a disk may be short, and its end no beginning of another.
            let start = run.start().align_down(MARK_BYTES).max(self.place.at);
            if start < run.end().min(Extent::first(size).end()) {
                let end = start.saturating_add(MARK_BYTES).min(Extent::first(size).end());
                return Some((disk, Extent::between(start, end)));
            }
            self.place = Place { run: self.place.run + 1, at: ByteOffset::ZERO };
        }
    }
}

impl Work for Copying<'_> {
    fn next(&mut self, under_way: usize) -> Option<Block> {
        let (disk, block) = self.here()?;
        // What is under way has no slot before it is there.
        let is_scarce = under_way > 0 && self.arena.left() <= under_way;
        if is_scarce || self.arena.slot(disk, block.start()).is_none() {
            return None;
        }
        self.place.at = block.end();
        Some((disk, block))
    }

    fn take(&mut self, (disk, block): Block, read: Result<&[u8]>) -> Result<()> {
        match read {
            Ok(bytes) => {
                let slot = self.arena.slot(disk, block.start());
                if let Some(slot) = slot.and_then(|slot| slot.get_mut(..bytes.len())) {
                    slot.copy_from_slice(bytes);
                    self.arena.keep(disk, block);
                    self.bad.retain(|bad| *bad != (disk, block));
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Io && self.bad.len() < MOST_BAD => {
                self.bad.push((disk, block));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::copiers::Work;
    use super::{Copying, Place};
    use imager_journal::{Arena, MARK_BYTES};
    use imager_units::{ByteLen, ByteOffset, Extent};

    const BLOCK: u64 = MARK_BYTES.get();

    fn extent(from: u64, to: u64) -> Extent {
        Extent::between(ByteOffset::new(from), ByteOffset::new(to))
    }

    /// Two runs, the second up to the end of a disk that ends within a block.
    fn runs() -> [(usize, Extent); 2] {
        [(0, extent(0, 2 * BLOCK)), (0, extent(5 * BLOCK, 7 * BLOCK + 512))]
    }

    #[test]
    fn each_block_is_asked_for_once_and_the_last_is_short() {
        let (mut arena, mut bad, runs) = (Arena::new(ByteLen::new(9 * BLOCK)).unwrap(), Vec::new(), runs());
        let sizes = [ByteLen::new(7 * BLOCK + 512)];
        let mut copying = Copying::new(&mut arena, &mut bad, &sizes, &runs);
        let mut asked = Vec::new();
        while let Some((_, block)) = copying.next(0) {
            asked.push(block);
            assert!(asked.len() < 6, "{asked:?}");
        }
        assert!(copying.is_done() && copying.place().rest(&runs).next().is_none());
        let starts = [0, BLOCK, 5 * BLOCK, 6 * BLOCK, 7 * BLOCK];
        let expected = starts.map(|start| extent(start, (start + BLOCK).min(7 * BLOCK + 512)));
        assert_eq!(asked, expected);
        assert_eq!(Place::default().rest(&runs).collect::<Vec<_>>(), runs);
    }

    #[test]
    fn what_is_under_way_has_room_and_what_is_left_is_said() {
        let (mut arena, mut bad, runs) = (Arena::new(ByteLen::new(2 * BLOCK)).unwrap(), Vec::new(), runs());
        let sizes = [ByteLen::new(7 * BLOCK + 512)];
        let mut copying = Copying::new(&mut arena, &mut bad, &sizes, &runs);
        let first = copying.next(0).unwrap();
        let second = copying.next(1).unwrap();
        assert!(copying.next(2).is_none(), "both slots are for what is under way");
        for block in [first, second] {
            copying.take(block, Ok(&[7; 65_536])).unwrap();
        }
        assert!(copying.next(0).is_none() && !copying.is_done());
        assert_eq!(copying.place().rest(&runs).collect::<Vec<_>>(), [runs[1]]);
        assert_eq!(arena.kept().map(|(_, extent, _)| extent).collect::<Vec<_>>(), [first.1, second.1]);
    }
}
