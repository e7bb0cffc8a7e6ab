//! A disk that fails when told to, for tests of everything above.
//!
//! Every read, write, zeroing and flush has a number, counted from 1 in the order in which they come. A run without a
//! fault tells how many there are ([`FaultyDisk::operations`]); "every n-th operation fails" is then a loop over them.

use crate::{Geometry, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, Error, Extent, ExtentSet, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Operation `nth` fails without effect; the next one works.
    Once {
        /// Its number, from 1.
        nth: u64,
    },
    /// From operation `nth` on everything fails without effect, as after a power cut or a pulled cable.
    /// [`FaultyDisk::power_cycle`] shows what is then on the disk.
    PowerLost {
        /// The number of the first operation that fails, from 1.
        nth: u64,
        /// What becomes of the writes since the last flush.
        unflushed: Unflushed,
    },
    /// If operation `nth` writes, it reports success and changes nothing: a firmware that lies.
    LostWrite {
        /// Its number, from 1.
        nth: u64,
    },
    /// Reads that touch this run fail, always; writes work and do not heal it.
    Bad(Extent),
    /// The first `reads` reads that touch this run fail, later ones work.
    Flaky {
        /// The run.
        extent: Extent,
        /// How many reads fail.
        reads: u64,
    },
}

/// What becomes of writes that no flush made durable, when power is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// All reached the medium.
    Kept,
    /// None did.
    Dropped,
    /// Each did or did not, as `seed` has it: drives reorder.
    Some {
        /// Equal seeds lose equal writes.
        seed: u64,
    },
}

/// A write since the last flush.
#[derive(Debug)]
struct Pending {
    at: ByteOffset,
    before: Vec<u8>,
    after: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    operations: u64,
    faults: Vec<Fault>,
    pending: Vec<Pending>,
    lost: Option<Unflushed>,
}

/// What an operation is to do.
#[derive(PartialEq, Eq)]
enum Verdict {
    Proceed,
    Pretend,
}

/// `D` with faults.
#[derive(Debug)]
pub struct FaultyDisk<D> {
    inner: D,
    state: Mutex<State>,
}

impl<D: ReadAt> FaultyDisk<D> {
    /// A disk that has these faults and otherwise behaves as `inner`.
    pub fn new(inner: D, faults: impl IntoIterator<Item = Fault>) -> Self {
        let state = State { faults: faults.into_iter().collect(), ..State::default() };
        Self { inner, state: Mutex::new(state) }
    }

    /// How many operations there were, failed ones included.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The disk beneath.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The disk beneath, as it is; see [`FaultyDisk::power_cycle`] for what a power cut leaves of it.
    pub fn into_inner(self) -> D {
        self.inner
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: WriteAt> FaultyDisk<D> {
    /// Takes the power away (if a fault has not done so), loses what that loses, and starts again without faults and
    /// with the count at 0.
    ///
    /// # Errors
    /// Those of the disk beneath.
    pub fn power_cycle(&self) -> Result<()> {
        let mut state = self.lock();
        let State { pending, lost, .. } = std::mem::take(&mut *state);
        let keep = |index: usize| match lost.unwrap_or(Unflushed::Dropped) {
            Unflushed::Kept => true,
            Unflushed::Dropped => false,
            Unflushed::Some { seed } => coin(seed, index),
        };
        for write in pending.iter().rev() {
            self.inner.write_all_at(write.at, &write.before)?;
        }
        let kept = pending.iter().enumerate().filter(|&(index, _)| keep(index));
        kept.into_iter().try_for_each(|(_, write)| self.inner.write_all_at(write.at, &write.after))
    }

    /// Keeps what a write replaces until a flush makes it durable.
    fn remember(&self, state: &mut State, at: ByteOffset, after: Vec<u8>) -> Result<()> {
        if state.faults.iter().any(|fault| matches!(fault, Fault::PowerLost { .. })) {
            let mut before = vec![0; after.len()];
            self.inner.read_exact_at(at, &mut before)?;
            state.pending.push(Pending { at, before, after });
        }
        Ok(())
    }
}

impl State {
    fn next(&mut self, what: &str, extent: Extent) -> Result<Verdict> {
        self.operations += 1;
        let number = self.operations;
        let mut verdict = Verdict::Proceed;
        for fault in &mut self.faults {
            let fails = match fault {
                Fault::Once { nth } => *nth == number,
                Fault::PowerLost { nth, unflushed } => {
                    let lost = *nth <= number;
                    self.lost = self.lost.or(lost.then_some(*unflushed));
                    lost
                }
                Fault::LostWrite { nth } => {
                    if *nth == number {
                        verdict = Verdict::Pretend;
                    }
                    false
                }
                Fault::Bad(bad) => what == READING && bad.overlaps(extent),
                Fault::Flaky { extent: flaky, reads } => {
                    let fails = what == READING && *reads > 0 && flaky.overlaps(extent);
                    *reads -= u64::from(fails);
                    fails
                }
            };
            if fails {
                let what = format!("{what} a faulty disk at {extent} (operation {number})");
                return Err(Error::io(what, nix::errno::Errno::EIO.into()));
            }
        }
        Ok(verdict)
    }
}

const READING: &str = "reading";

impl<D: ReadAt> ReadAt for FaultyDisk<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let extent = self.geometry().check(offset, ByteLen::of(buf))?;
        self.lock().next(READING, extent)?;
        self.inner.read_exact_at(offset, buf)
    }

    fn data(&self, within: Extent) -> Result<ExtentSet> {
        self.inner.data(within)
    }
}

impl<D: WriteAt> WriteAt for FaultyDisk<D> {
    fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let extent = self.geometry().check(offset, ByteLen::of(bytes))?;
        let mut state = self.lock();
        if state.next("writing", extent)? == Verdict::Pretend {
            return Ok(());
        }
        self.remember(&mut state, offset, bytes.to_vec())?;
        self.inner.write_all_at(offset, bytes)
    }

    fn zero(&self, extent: Extent) -> Result<()> {
        let extent = self.geometry().check(extent.start(), extent.len())?;
        let mut state = self.lock();
        if state.next("zeroing", extent)? == Verdict::Pretend {
            return Ok(());
        }
        // Only what held data needs remembering, so that zeroing a large sparse disk stays cheap.
        for data in self.inner.data(extent)?.iter() {
            self.remember(&mut state, data.start(), vec![0; data.len().to_usize().unwrap_or(usize::MAX)])?;
        }
        self.inner.zero(extent)
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.lock();
        if state.next("flushing", Extent::default())? == Verdict::Pretend {
            return Ok(());
        }
        self.inner.flush()?;
        state.pending.clear();
        Ok(())
    }
}

/// A fair coin for each index, the same for equal seeds (the finaliser of splitmix64).
fn coin(seed: u64, index: usize) -> bool {
    let mut x = seed ^ u64::try_from(index).unwrap_or(0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultyDisk, Unflushed};
    use crate::{MemoryDisk, ReadAt, WriteAt};
    use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};

    fn disk(faults: &[Fault]) -> FaultyDisk<MemoryDisk> {
        FaultyDisk::new(MemoryDisk::from_bytes(&[b'.'; 8], SectorSize::B512), faults.iter().copied())
    }

    fn write(disk: &impl WriteAt, at: u64, bytes: &[u8]) -> Result<(), ErrorKind> {
        disk.write_all_at(ByteOffset::new(at), bytes).map_err(|error| error.kind())
    }

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
    }

    #[test]
    fn the_nth_operation_fails_once_and_without_effect() {
        let disk = disk(&[Fault::Once { nth: 2 }]);
        assert_eq!(write(&disk, 0, b"a"), Ok(()));
        assert_eq!(write(&disk, 1, b"b"), Err(ErrorKind::Io));
        assert_eq!(write(&disk, 2, b"c"), Ok(()));
        disk.flush().unwrap();
        assert_eq!(disk.operations(), 4);
        assert_eq!(disk.into_inner().to_vec(), b"a.c.....");
    }

    #[test]
    fn a_power_cut_keeps_what_was_flushed_and_loses_what_it_is_told_to() {
        let after = |unflushed| {
            let disk = disk(&[Fault::PowerLost { nth: 6, unflushed }]);
            write(&disk, 0, b"ab").unwrap();
            disk.flush().unwrap();
            write(&disk, 1, b"XY").unwrap();
            disk.zero(extent(2, 2)).unwrap();
            write(&disk, 3, b"Z").unwrap();
            for _ in 0..2 {
                assert_eq!(write(&disk, 7, b"!"), Err(ErrorKind::Io));
                assert!(disk.flush().is_err());
            }
            disk.power_cycle().unwrap();
            write(&disk, 6, b"+").unwrap();
            disk.into_inner().to_vec()
        };
        assert_eq!(after(Unflushed::Kept), b"aX\0Z..+.");
        assert_eq!(after(Unflushed::Dropped), b"ab....+.");
        let results: std::collections::BTreeSet<_> =
            (0..64).map(|seed| after(Unflushed::Some { seed })).collect();
        assert_eq!(results.len(), 8, "each of three writes is kept or lost");
    }

    #[test]
    fn bad_ranges_stay_bad_and_flaky_ones_recover() {
        let disk = disk(&[Fault::Bad(extent(0, 2)), Fault::Flaky { extent: extent(4, 1), reads: 2 }]);
        let read = |at, len| disk.read_exact_at(ByteOffset::new(at), &mut vec![0; len]).is_ok();
        assert_eq!(
            [read(1, 1), read(1, 2), read(2, 2), read(3, 2), read(4, 1), read(4, 1)],
            [false, false, true, false, false, true]
        );
        assert!(write(&disk, 0, b"ab").is_ok() && !read(0, 1));
    }

    #[test]
    fn a_lost_write_reports_success() {
        let disk = disk(&[Fault::LostWrite { nth: 1 }]);
        assert_eq!(write(&disk, 0, b"a"), Ok(()));
        assert_eq!(disk.into_inner().to_vec(), b"........");
    }
}
