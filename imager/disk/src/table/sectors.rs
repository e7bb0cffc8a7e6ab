//! A disk as the parsers see it: whole sectors of one size, read in small pieces.

use super::RawArea;
use crate::ReadAt;
use imager_units::{ByteLen, ByteOffset, Context, Error, Extent, Lba, Result, SectorSize};

/// The most that one structure may make us read: a megabyte of GPT entries, rounded up to a sector.
const MOST_BYTES: ByteLen = ByteLen::new((1 << 20) + (1 << 16));

/// A disk of sectors of one size, which need not be what the disk says of itself.
#[derive(Clone, Copy)]
pub(super) struct Sectors<'a> {
    disk: &'a dyn ReadAt,
    sector: SectorSize,
}

impl<'a> Sectors<'a> {
    pub(super) fn new(disk: &'a dyn ReadAt, sector: SectorSize) -> Self {
        Self { disk, sector }
    }

    pub(super) fn sector(&self) -> SectorSize {
        self.sector
    }

    pub(super) fn size(&self) -> ByteLen {
        self.disk.geometry().size
    }

    pub(super) fn disk(&self) -> &'a dyn ReadAt {
        self.disk
    }

    /// How many whole sectors the disk has.
    pub(super) fn count(&self) -> u64 {
        self.sector.sectors_in(self.size())
    }

    /// The number of the last whole sector.
    pub(super) fn last(&self) -> u64 {
        self.count().saturating_sub(1)
    }

    /// The bytes of `count` sectors from `lba`, or `None` past 2^64.
    pub(super) fn extent(&self, lba: u64, count: u64) -> Option<Extent> {
        Extent::new(self.sector.offset_of(Lba::new(lba))?, self.sector.len_of(count)?)
    }

    /// How many sectors hold `bytes` bytes.
    pub(super) fn sectors_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.sector.get()))
    }

    /// Reads `count` sectors from `lba`.
    ///
    /// # Errors
    /// `Corrupt` when they lie outside the disk or are absurdly many, else what the disk says.
    pub(super) fn read(&self, lba: u64, count: u64) -> Result<RawArea> {
        let inside = |extent: &Extent| self.disk.geometry().extent().contains(*extent);
        let extent =
            self.extent(lba, count).filter(inside).filter(|e| e.len() <= MOST_BYTES).ok_or_else(|| {
                Error::corrupt(format!(
                    "{count} sectors from sector {lba} on a disk of {} sectors",
                    self.count()
                ))
            })?;
        let bytes = self.bytes(extent).context(|| format!("reading sector {lba}"))?;
        Ok(RawArea { start: extent.start(), bytes })
    }

    /// The `N` bytes at `offset`, or `None` where they cannot be read.
    pub(super) fn peek<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.disk.read_exact_at(ByteOffset::new(offset), &mut bytes).ok()?;
        Some(bytes)
    }

    fn bytes(&self, extent: Extent) -> Result<Vec<u8>> {
        let mut bytes = vec![0; extent.len().to_usize().unwrap_or(0)];
        self.disk.read_exact_at(extent.start(), &mut bytes)?;
        Ok(bytes)
    }
}
