//! Threads that read blocks for the instant, several at once.
//!
//! A read that was begun cannot be taken back, and behind those of others it may take long. So whoever holds the machine
//! still reads nothing himself: he asks, takes what comes in time, and lets go at the end of his time to the
//! millisecond. What comes later is thrown away. Nothing here takes memory once the threads run.

use imager_disk::{AlignedBuf, ReadAt};
use imager_journal::{MARK_BYTES, Urgent};
use imager_units::{Error, ErrorKind, Extent, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// How many blocks are read at once: as many as keep any disk busy.
const SEATS: usize = 8;

/// A block of a disk, by the log's number.
pub(super) type Block = (usize, Extent);

/// What is to be read, and what becomes of it.
pub(super) trait Work {
    /// The next block, while so many are under way; `None` when there is none, or none before one of those is there.
    fn next(&mut self, under_way: usize) -> Option<Block>;

    /// A block that was read, or why it was not.
    ///
    /// # Errors
    /// Those that end the work.
    fn take(&mut self, block: Block, read: Result<&[u8]>) -> Result<()>;
}

/// What a thread does.
enum Seat {
    Free,
    Asked(Block),
    Reading,
    Done(Block, Result<()>),
    Over,
}

struct Shared {
    devices: Vec<Arc<dyn ReadAt>>,
    seats: Mutex<Vec<Seat>>,
    /// What each thread read; its own while it reads, and otherwise of whoever asked.
    memory: Vec<Mutex<AlignedBuf>>,
    asked: Vec<Condvar>,
    answered: Condvar,
}

/// The threads; they end when this is dropped.
pub(super) struct Copiers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Copiers {
    /// Starts threads for these disks.
    ///
    /// # Errors
    /// `Io` when no thread can be started.
    pub(super) fn new(devices: Vec<Arc<dyn ReadAt>>) -> Result<Self> {
        let len = MARK_BYTES.to_usize().unwrap_or(0);
        let shared = Shared {
            devices,
            seats: Mutex::new((0..SEATS).map(|_| Seat::Free).collect()),
            memory: (0..SEATS).map(|_| Mutex::new(AlignedBuf::zeroed(len))).collect(),
            asked: (0..SEATS).map(|_| Condvar::new()).collect(),
            answered: Condvar::new(),
        };
        let mut copiers = Self { shared: Arc::new(shared), threads: Vec::with_capacity(SEATS) };
        for seat in 0..SEATS {
            let shared = Arc::clone(&copiers.shared);
            let builder = std::thread::Builder::new().name(format!("copy-{seat}"));
            let started = builder.spawn(move || shared.work(seat));
            copiers.threads.push(started.map_err(|e| Error::io("starting a thread", e))?);
        }
        Ok(copiers)
    }

    /// Reads what there is to read; no longer than `until`, when some may still be under way.
    ///
    /// # Errors
    /// Those of the work.
    pub(super) fn run(&self, work: &mut dyn Work, until: Option<Instant>) -> Result<()> {
        let mut seats = self.shared.seats();
        loop {
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            self.ask(&mut seats, work, is_late);
            if seats.iter().all(|seat| matches!(seat, Seat::Free | Seat::Over)) || is_late {
                return Ok(());
            }
            seats = match seats.iter().position(|seat| matches!(seat, Seat::Done(..))) {
                Some(number) => {
                    self.take(&mut seats, number, work)?;
                    seats
                }
                None => self.shared.wait(seats, until),
            };
        }
    }

    /// Gives free threads something to do.
    fn ask(&self, seats: &mut [Seat], work: &mut dyn Work, is_late: bool) {
        let mut under_way = seats.iter().filter(|seat| !matches!(seat, Seat::Free | Seat::Over)).count();
        for (seat, asked) in seats.iter_mut().zip(&self.shared.asked) {
            if is_late || !matches!(seat, Seat::Free) {
                continue;
            }
            let Some(block) = work.next(under_way) else { return };
            *seat = Seat::Asked(block);
            asked.notify_one();
            under_way += 1;
        }
    }

    fn take(&self, seats: &mut [Seat], number: usize, work: &mut dyn Work) -> Result<()> {
        let (Some(seat), Some(memory)) = (seats.get_mut(number), self.shared.memory.get(number)) else {
            return Ok(());
        };
        let Seat::Done(block, read) = std::mem::replace(seat, Seat::Free) else { return Ok(()) };
        let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let len = block.1.len().to_usize().unwrap_or(usize::MAX).min(memory.len());
        work.take(block, read.map(|()| memory.get(..len).unwrap_or_default()))
    }

    /// Waits for what is under way, without a use for it; which blocks these were.
    pub(super) fn settle(&self) -> Vec<Block> {
        let mut seats = self.shared.seats();
        let mut late = Vec::new();
        loop {
            for seat in seats.iter_mut() {
                if let Seat::Asked(block) | Seat::Done(block, _) = seat {
                    late.push(*block);
                    *seat = Seat::Free;
                }
            }
            if !seats.iter().any(|seat| matches!(seat, Seat::Reading)) {
                return late;
            }
            seats = self.shared.wait(seats, None);
        }
    }
}

impl Drop for Copiers {
    fn drop(&mut self) {
        self.settle();
        self.shared.seats().iter_mut().for_each(|seat| *seat = Seat::Over);
        self.shared.asked.iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            // It catches what a disk panics with.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an answer.
    fn wait<'s>(
        &self,
        seats: MutexGuard<'s, Vec<Seat>>,
        until: Option<Instant>,
    ) -> MutexGuard<'s, Vec<Seat>> {
        match until {
            None => self.answered.wait(seats).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.answered.wait_timeout(seats, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// What a thread does until it is over.
    fn work(&self, number: usize) {
        let (Some(asked), Some(memory)) = (self.asked.get(number), self.memory.get(number)) else { return };
        // Others that want the disk, or a core, would hold up the whole machine.
        let _urgent = Urgent::as_a_freeze();
        let mut seats = self.seats();
        loop {
            match seats.get(number) {
                Some(Seat::Asked(block)) => {
                    let block = *block;
                    seats[number] = Seat::Reading;
                    drop(seats);
                    let read = self.read(block, &mut memory.lock().unwrap_or_else(PoisonError::into_inner));
                    seats = self.seats();
                    seats[number] = Seat::Done(block, read);
                    self.answered.notify_one();
                }
                Some(Seat::Over) | None => return,
                Some(_) => seats = asked.wait(seats).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn read(&self, (disk, extent): Block, memory: &mut [u8]) -> Result<()> {
        let part = extent.len().to_usize().and_then(|len| memory.get_mut(..len));
        let (Some(device), Some(part)) = (self.devices.get(disk), part) else {
            return Err(Error::new(ErrorKind::Invalid, "a block that is not there"));
        };
        let read = catch_unwind(AssertUnwindSafe(|| device.read_exact_at(extent.start(), part)));
        read.unwrap_or_else(|_| Err(Error::new(ErrorKind::Invalid, "reading a disk panicked")))
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Copiers, Work};
    use imager_disk::{Geometry, ReadAt};
    use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result, SectorSize};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const BLOCK: u64 = 65_536;
    const BLOCKS: u64 = 100;

    /// Says its number in each block; some are slow, some are bad.
    struct Disk {
        slow: Option<u64>,
        bad: Option<u64>,
    }

    impl ReadAt for Disk {
        fn geometry(&self) -> Geometry {
            Geometry {
                size: ByteLen::new(BLOCKS * BLOCK - 512),
                logical: SectorSize::B512,
                physical: SectorSize::B512,
            }
        }

        fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
            let number = offset.get() / BLOCK;
            if self.slow == Some(number) {
                std::thread::sleep(Duration::from_millis(400));
            }
            if self.bad == Some(number) {
                return Err(Error::new(ErrorKind::Io, "bad"));
            }
            buf.fill(u8::try_from(number).unwrap());
            Ok(())
        }
    }

    #[derive(Default)]
    struct Taken {
        next: u64,
        most: usize,
        good: Vec<u64>,
        bad: Vec<u64>,
    }

    impl Work for Taken {
        fn next(&mut self, under_way: usize) -> Option<Block> {
            self.most = self.most.max(under_way + 1);
            let start = self.next * BLOCK;
            let end = (start + BLOCK).min(BLOCKS * BLOCK - 512);
            (self.next < BLOCKS).then(|| {
                self.next += 1;
                (0, Extent::between(ByteOffset::new(start), ByteOffset::new(end)))
            })
        }

        fn take(&mut self, (_, extent): Block, read: Result<&[u8]>) -> Result<()> {
            let number = extent.start().get() / BLOCK;
            match read {
                Ok(bytes) => {
                    assert_eq!(ByteLen::of(bytes), extent.len());
                    assert!(bytes.iter().all(|byte| u64::from(*byte) == number));
                    self.good.push(number);
                }
                Err(_) => self.bad.push(number),
            }
            Ok(())
        }
    }

    fn copiers(slow: Option<u64>, bad: Option<u64>) -> Copiers {
        Copiers::new(vec![Arc::new(Disk { slow, bad })]).unwrap()
    }

    #[test]
    fn all_is_read_several_at_once_and_what_cannot_be_is_said() {
        let (copiers, mut work) = (copiers(Some(3), Some(70)), Taken::default());
        copiers.run(&mut work, None).unwrap();
        work.good.sort_unstable();
        let expected: Vec<_> = (0..BLOCKS).filter(|number| *number != 70).collect();
        assert_eq!((work.good, work.bad, work.most), (expected, vec![70], super::SEATS));
        assert!(copiers.settle().is_empty());
    }

    #[test]
    fn nobody_waits_for_a_read_that_comes_too_late() {
        let (copiers, mut work) = (copiers(Some(3), None), Taken::default());
        let begun = Instant::now();
        copiers.run(&mut work, Some(begun + Duration::from_millis(100))).unwrap();
        assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
        assert!(!work.good.contains(&3));
        let late: Vec<_> = copiers.settle().iter().map(|(_, extent)| extent.start().get() / BLOCK).collect();
        assert!(late.contains(&3) && late.iter().all(|number| !work.good.contains(number)), "{late:?}");
        // And it goes on.
        let mut again = Taken::default();
        copiers.run(&mut again, None).unwrap();
        assert_eq!(again.good.len(), usize::try_from(BLOCKS).unwrap());
    }
}
