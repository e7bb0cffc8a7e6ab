//! What the kernel counted as written to a disk, but for the partitions that others use.
//!
//! A partition's writes count for its disk too, so the disk's count less theirs must rise by just what we wrote, however
//! busy they are. The counts cannot be read at one instant: the disk's is read before and after the others', which
//! bounds the difference from both sides, and a moment at which no write fell between makes it exact. What the kernel
//! merges into one request across the border of two partitions counts for one of them, so a difference is a warning.

use super::target::Target;
use imager_disk::{DeviceNumber, System};
use imager_units::{ByteLen, Result};
use std::fmt;

/// How often the counts are read while writes fall between.
const TRIES: u32 = 64;

/// A count that is going on.
pub struct Tally {
    disk: DeviceNumber,
    others: Vec<DeviceNumber>,
    before: Reading,
}

/// Counts in the order in which they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    disk_first: ByteLen,
    others: ByteLen,
    disk_last: ByteLen,
}

/// What was written, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    least: ByteLen,
    most: ByteLen,
}

impl Tally {
    /// Begins to count; `None` for a file, and where the kernel keeps no count.
    pub fn begin(target: &Target) -> Option<Self> {
        let disk = target.device?;
        let others: Vec<_> = target.uses.partitions.iter().map(|(partition, _)| partition.device).collect();
        let before = Reading::take(disk, &others).ok()?;
        Some(Self { disk, others, before })
    }

    /// What was written since.
    pub fn end(&self) -> Option<Counted> {
        Some(Reading::take(self.disk, &self.others).ok()?.since(self.before))
    }
}

impl Reading {
    /// The reading between whose ends the fewest writes fell.
    fn take(disk: DeviceNumber, others: &[DeviceNumber]) -> Result<Self> {
        let mut best = Self::once(disk, others)?;
        for _ in 1..TRIES {
            if best.is_exact() {
                break;
            }
            let next = Self::once(disk, others)?;
            best = if next.gap() < best.gap() { next } else { best };
        }
        Ok(best)
    }

    fn once(disk: DeviceNumber, others: &[DeviceNumber]) -> Result<Self> {
        let system = System::new();
        let written = |device: DeviceNumber| system.write_counters(device).map(|counters| counters.written);
        let disk_first = written(disk)?;
        let others = others.iter().map(|other| written(*other)).sum::<Result<ByteLen>>()?;
        Ok(Self { disk_first, others, disk_last: written(disk)? })
    }

    fn gap(self) -> ByteLen {
        self.disk_last.saturating_sub(self.disk_first)
    }

    fn is_exact(self) -> bool {
        self.gap().is_zero()
    }

    /// What was written to the disk between two readings, and not by the others: at each of them the true count lies
    /// between the disk's first less the others', and the disk's last less the others'.
    fn since(self, before: Self) -> Counted {
        let rise = |to: ByteLen, from: ByteLen| {
            (to.saturating_add(before.others)).saturating_sub(from.saturating_add(self.others))
        };
        Counted {
            least: rise(self.disk_first, before.disk_last),
            most: rise(self.disk_last, before.disk_first),
        }
    }
}

impl Counted {
    /// Whether it can be this.
    pub fn agrees(self, ours: ByteLen) -> bool {
        self.least <= ours && ours <= self.most
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least == self.most {
            true => write!(f, "{}", self.least.get()),
            false => write!(f, "{} to {}", self.least.get(), self.most.get()),
        }
    }
}

#[cfg(test)]
mod tests;
