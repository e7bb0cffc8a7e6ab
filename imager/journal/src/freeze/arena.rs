//! Memory for what is copied while everything is frozen: made beforehand, so that nothing has to be allocated then.
//!
//! Slots of the journal's grain, aligned as direct I/O wants them, locked so that none of it is swapped out. Which block
//! lies in which slot is kept in room made beforehand as well.

use crate::{MARK_BYTES, sys};
use imager_disk::AlignedBuf;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};
use std::collections::HashMap;

/// What is left of a machine's memory, at least: it gives up so many times the arena's size.
const SHARE: u64 = 4;

/// Slots for blocks of disks.
#[derive(Debug)]
pub struct Arena {
    memory: AlignedBuf,
    /// The disk and the bytes in each slot that is taken.
    taken: Vec<(usize, Extent)>,
    /// Which slot has what starts here on a disk.
    places: HashMap<(usize, ByteOffset), usize>,
    capacity: usize,
}

impl Arena {
    /// As much of `most` as the machine has to spare and lets us lock; at least one slot.
    ///
    /// # Errors
    /// `OutOfSpace` where not even that can be locked.
    pub fn new(most: ByteLen) -> Result<Self> {
        let available = available().map_or(most, |bytes| ByteLen::new(bytes.get() / SHARE));
        let mut slots = most.min(available).get() / MARK_BYTES.get();
        while slots > 0 {
            let bytes = slots.saturating_mul(MARK_BYTES.get());
            let mut memory = AlignedBuf::zeroed(usize::try_from(bytes).unwrap_or(usize::MAX));
            // Zeros are no memory yet.
            memory.fill(0xA5);
            match sys::lock(&memory) {
                Ok(()) => return Ok(Self::of(memory, usize::try_from(slots).unwrap_or(usize::MAX))),
                Err(error) => tracing::debug!("{bytes} bytes cannot be locked: {error}"),
            }
            slots /= 2;
        }
        Err(Error::new(ErrorKind::OutOfSpace, "no memory can be locked for what is copied while frozen"))
    }

    fn of(memory: AlignedBuf, capacity: usize) -> Self {
        let mut taken = Vec::with_capacity(capacity);
        // As with the memory: written once, so that it is there.
        taken.resize(capacity, (0, Extent::default()));
        taken.clear();
        let mut places: HashMap<_, _> = (0..capacity).map(|slot| ((slot, ByteOffset::ZERO), slot)).collect();
        places.clear();
        Self { memory, taken, places, capacity }
    }

    /// How much it holds.
    pub fn size(&self) -> ByteLen {
        ByteLen::new(MARK_BYTES.get().saturating_mul(u64::try_from(self.capacity).unwrap_or(u64::MAX)))
    }

    /// How many slots are left.
    pub fn left(&self) -> usize {
        self.capacity - self.taken.len()
    }

    /// The slot for what starts at `start` of a disk: the one that has it already, or a free one; `None` when all are
    /// taken. What was in it is gone; it counts again from [`keep`](Self::keep) on.
    pub fn slot(&mut self, disk: usize, start: ByteOffset) -> Option<&mut [u8]> {
        let place = (disk, start);
        let at = self.places.get(&place).copied().or((self.left() > 0).then_some(self.taken.len()))?;
        if let Some((_, kept)) = self.taken.get_mut(at) {
            *kept = Extent::default();
        }
        self.memory.get_mut(slot(at))
    }

    /// Says what was read into the slot for the start of `extent`. Allocates nothing.
    pub fn keep(&mut self, disk: usize, extent: Extent) {
        match self.places.get(&(disk, extent.start())) {
            Some(at) => self.taken[*at] = (disk, extent),
            None if self.left() > 0 => {
                self.places.insert((disk, extent.start()), self.taken.len());
                self.taken.push((disk, extent));
            }
            None => {}
        }
    }

    /// What was kept: disk, where, and the bytes.
    pub fn kept(&self) -> impl Iterator<Item = (usize, Extent, &[u8])> {
        let all = self.taken.iter().enumerate().filter(|(_, (_, extent))| !extent.is_empty());
        all.map(|(index, (disk, extent))| {
            let len = usize::try_from(extent.len().get()).unwrap_or(usize::MAX);
            let bytes = self.memory.get(slot(index)).unwrap_or_default();
            (*disk, *extent, bytes.get(..len).unwrap_or(bytes))
        })
    }

    /// Frees all slots.
    pub fn clear(&mut self) {
        self.taken.clear();
        self.places.clear();
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        sys::unlock(&self.memory);
    }
}

fn slot(index: usize) -> std::ops::Range<usize> {
    const BYTES: usize = 64 << 10;
    const { assert!(BYTES as u64 == MARK_BYTES.get()) };
    index * BYTES..(index + 1) * BYTES
}

/// What the machine has to spare (`MemAvailable`).
fn available() -> Option<ByteLen> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(ByteLen::new(kib.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::Arena;
    use imager_units::{ByteLen, ByteOffset, Extent};

    #[test]
    fn slots_are_aligned_and_hold_what_was_read_into_them_until_they_are_freed() {
        let mut arena = Arena::new(ByteLen::new(3 * 65_536 + 5)).unwrap();
        let extent = |start| Extent::new(ByteOffset::new(start), ByteLen::new(4096)).unwrap();
        for (disk, fill) in [(0, 1_u8), (1, 2), (0, 3), (1, 2)] {
            let start = ByteOffset::new(u64::from(fill) << 16);
            let slot = arena.slot(disk, start).unwrap();
            assert_eq!((slot.len(), slot.as_ptr().align_offset(4096)), (65_536, 0));
            slot[..4096].fill(fill + 10);
            arena.keep(disk, extent(start.get()));
        }
        assert!(arena.slot(0, ByteOffset::new(9 << 16)).is_none() && arena.left() == 0);
        let kept: Vec<_> =
            arena.kept().map(|(disk, extent, bytes)| (disk, extent, bytes[4095], bytes.len())).collect();
        let expected =
            [(0, extent(1 << 16), 11, 4096), (1, extent(2 << 16), 12, 4096), (0, extent(3 << 16), 13, 4096)];
        assert_eq!(kept, expected);
        // What is to be read again counts no more until it was.
        assert!(arena.slot(1, ByteOffset::new(2 << 16)).is_some());
        assert_eq!(arena.kept().map(|(disk, ..)| disk).collect::<Vec<_>>(), [0, 0]);
        arena.clear();
        assert_eq!((arena.left(), arena.kept().count()), (3, 0));
    }
}
