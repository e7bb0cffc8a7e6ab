//! Which disk a program follows: what it is told before it is loaded, and what anybody can read of it afterwards.

use crate::bits::Levels;
use crate::disk::{Disk, Gauges};
use crate::program::{self, Ends};
use imager_units::{ByteLen, Error, Result};

/// The length of `struct about`.
pub(crate) const ABOUT_BYTES: usize = 64;

/// `struct about` of `journal.bpf.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About {
    major: u32,
    minor: u32,
    ends: u32,
    /// Whose requests go to its paths: NVMe's subsystem and name space.
    paths: Option<(u32, u32)>,
    pub(crate) size: ByteLen,
    /// A number that no other disk of this start of the machine has.
    pub(crate) sequence: u64,
    pub(crate) levels: Levels,
}

impl About {
    /// Of a disk as it is now.
    pub(crate) fn of(disk: &Disk, gauges: &Gauges, ends: Ends) -> Result<Self> {
        let size = gauges.size()?;
        let levels = Levels::of(size).ok_or_else(|| {
            Error::unsupported(format!("disk {} has {size}, which cannot be tracked", disk.name()))
        })?;
        let (major, minor) = disk.number();
        let paths = disk.paths().map(|paths| (paths.subsystem, paths.space));
        Ok(Self { major, minor, ends: ends.bits(), paths, size, sequence: gauges.sequence()?, levels })
    }

    /// The kernel's number of the disk.
    pub(crate) const fn number(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// Whether this is the same disk, however large it is now.
    pub(crate) fn is_same_disk(&self, other: &Self) -> bool {
        (self.major, self.minor, self.sequence) == (other.major, other.minor, other.sequence)
    }

    /// As the program reads it.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let upper = self.levels.upper().map(|word| u32::try_from(word).unwrap_or(u32::MAX));
        let (subsystem, space) = self.paths.unwrap_or_default();
        let paths = u32::from(self.paths.is_some());
        let narrow = [self.major, self.minor, upper[0], upper[1], self.ends, paths, subsystem, space];
        let wide = [self.levels.blocks(), self.size.get(), self.sequence, program::version()];
        let narrow = narrow.iter().flat_map(|word| word.to_le_bytes());
        narrow.chain(wide.iter().flat_map(|word| word.to_le_bytes())).collect()
    }

    /// As it was told; `None` when it was told otherwise, by another version.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (narrow, wide) = (bytes.get(..32)?.as_chunks::<4>().0, bytes.get(32..)?.as_chunks::<8>().0);
        let narrow = |at: usize| narrow.get(at).map(|bytes| u32::from_le_bytes(*bytes));
        let wide = |at: usize| wide.get(at).map(|bytes| u64::from_le_bytes(*bytes));
        let size = ByteLen::new(wide(1)?);
        let levels = Levels::of(size)?;
        let (major, minor, ends) = (narrow(0)?, narrow(1)?, narrow(4)?);
        let paths = (narrow(5)? != 0).then_some((narrow(6)?, narrow(7)?));
        let about = Self { major, minor, ends, paths, size, sequence: wide(2)?, levels };
        (about.to_bytes() == bytes).then_some(about)
    }
}
