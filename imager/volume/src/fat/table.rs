//! The file allocation table: which clusters have an entry that is not zero.
//!
//! Streamed, because a FAT32 table may be a gigabyte. All copies are read and combined by OR, so a cluster that any
//! of them has is used; whether they differ is reported. A cluster marked bad (`0xFF7`, `0xFFF7`, `0x0FFFFFF7`) has
//! an entry too and counts as used: it belongs to no file, but keeping it is what "not zero" says, and where it
//! cannot be read the capture says so.

use super::boot::Layout;
use crate::gather::Gather;
use crate::read::read_into;
use imager_disk::ReadAt;
use imager_units::{ByteLen, Extent, Result};

/// A whole number of entries of every width (three bytes are two of FAT12's).
const CHUNK_BYTES: u64 = 3 << 18;
const FAT16_CLEAN_SHUTDOWN: u32 = 0x8000;
const FAT16_NO_ERROR: u32 = 0x4000;
const FAT32_CLEAN_SHUTDOWN: u32 = 0x0800_0000;
const FAT32_NO_ERROR: u32 = 0x0400_0000;
const FAT32_ENTRY_MASK: u32 = 0x0FFF_FFFF;

/// How wide an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Fat12 => "fat12",
            Self::Fat16 => "fat16",
            Self::Fat32 => "fat32",
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// How many whole entries `bytes` hold.
    pub(super) fn entries_in(self, bytes: u64) -> u64 {
        bytes.saturating_mul(8).checked_div(self.bits()).unwrap_or_default()
    }

    /// The entries of `bytes`, which start at an even entry. FAT12 packs two into three bytes: the low 12 bits come
    /// first (specification, "FAT12 entries"), and a pair may lie across sectors.
    fn entries(self, bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
        let group = if self == Self::Fat32 {
            4
        } else if self == Self::Fat16 {
            2
        } else {
            3
        };
        bytes.chunks(group).flat_map(move |chunk| {
            let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
            let low = byte(0) | byte(1) << 8;
            match self {
                Self::Fat12 => [Some(low & 0xFFF), Some(low >> 12 | byte(2) << 4)],
                Self::Fat16 => [Some(low), None],
                Self::Fat32 => [Some(low | byte(2) << 16 | byte(3) << 24), None],
            }
            .into_iter()
            .flatten()
        })
    }

    /// Where the entry of a cluster begins; FAT12's in the middle of a byte for odd ones.
    pub(super) fn offset_of(self, cluster: u64) -> u64 {
        cluster.saturating_mul(self.bits()) / 8
    }

    /// The entry of a cluster out of the bytes from there on.
    pub(super) fn entry(self, bytes: &[u8], cluster: u64) -> u32 {
        let word = bytes.iter().take(4).rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        match self {
            Self::Fat12 if cluster % 2 == 1 => word >> 4 & 0xFFF,
            Self::Fat12 => word & 0xFFF,
            Self::Fat16 => word & 0xFFFF,
            Self::Fat32 => word & FAT32_ENTRY_MASK,
        }
    }

    /// Whether an entry says that its cluster is in use. The upper four bits of FAT32's are not part of it.
    fn is_used(self, entry: u32) -> bool {
        match self {
            Self::Fat32 => entry & FAT32_ENTRY_MASK != 0,
            _ => entry != 0,
        }
    }

    /// Whether the second entry says that the volume is in use or that an error was met; FAT12 has no such bits.
    fn is_marked_dirty(self, second: u32) -> bool {
        let clean = match self {
            Self::Fat12 => 0,
            Self::Fat16 => FAT16_CLEAN_SHUTDOWN | FAT16_NO_ERROR,
            Self::Fat32 => FAT32_CLEAN_SHUTDOWN | FAT32_NO_ERROR,
        };
        second & clean != clean
    }
}

/// What the table says.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The copies do not agree on some cluster.
    pub(super) copies_differ: bool,
    /// The first entry does not repeat the media byte, as it must: this is no FAT, or a damaged one.
    pub(super) media_differs: bool,
    /// The volume is in use, or an error was met.
    pub(super) is_marked_dirty: bool,
}

/// Reads only the first two entries of the first copy.
pub(super) fn marks(volume: &dyn ReadAt, layout: &Layout, media: u8) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut bytes = Vec::new();
    if let Some(fat) = layout.fats.first() {
        read_into(
            volume,
            Extent::between(fat.start(), fat.start().saturating_add(ByteLen::new(8))),
            &mut bytes,
        )?;
        findings.look_at_marks(layout.width, &bytes, media);
    }
    Ok(findings)
}

/// Puts every used cluster into `used`.
///
/// # Errors
/// `Io` when a copy cannot be read.
pub(super) fn walk(volume: &dyn ReadAt, layout: &Layout, media: u8, used: &mut Gather) -> Result<Findings> {
    let mut reader = Reader { volume, layout, media, findings: Findings::default(), copy: Vec::new() };
    let end = layout.clusters.saturating_add(2);
    let mut table = Vec::new();
    let mut run = Run::default();
    let mut first = 0_u64;
    while first < end {
        reader.read_chunk(first, &mut table)?;
        let numbers = (first..end).zip(layout.width.entries(&table));
        for (number, entry) in numbers.filter(|&(number, _)| number >= 2) {
            if let Some((from, to)) = run.next(number, layout.width.is_used(entry)) {
                used.push(layout.cluster_run(from, to));
            }
        }
        first = first.saturating_add(layout.width.entries_in(CHUNK_BYTES));
    }
    if let Some((from, to)) = run.next(end, false) {
        used.push(layout.cluster_run(from, to));
    }
    Ok(reader.findings)
}

struct Reader<'a> {
    volume: &'a dyn ReadAt,
    layout: &'a Layout,
    media: u8,
    findings: Findings,
    copy: Vec<u8>,
}

impl Reader<'_> {
    /// Reads the entries from `first` on, all copies combined into `table`.
    fn read_chunk(&mut self, first: u64, table: &mut Vec<u8>) -> Result<()> {
        let width = self.layout.width;
        let start = first.saturating_mul(width.bits()) / 8;
        let entries = self.layout.clusters.saturating_add(2).saturating_sub(first);
        let len = entries.saturating_mul(width.bits()).div_ceil(8).min(CHUNK_BYTES);
        // The first two entries are marks, which some systems set in one copy only.
        let marks =
            if first == 0 { usize::try_from(width.bits().div_ceil(4)).unwrap_or_default() } else { 0 };
        for (number, fat) in self.layout.fats.iter().enumerate() {
            let from = fat.start().saturating_add(ByteLen::new(start));
            let extent = Extent::between(from, from.saturating_add(ByteLen::new(len)));
            read_into(self.volume, extent, &mut self.copy)?;
            if first == 0 {
                self.findings.look_at_marks(width, &self.copy, self.media);
            }
            if number == 0 {
                std::mem::swap(table, &mut self.copy);
                continue;
            }
            self.findings.copies_differ |= table.get(marks..) != self.copy.get(marks..);
            table.iter_mut().zip(&self.copy).for_each(|(to, from)| *to |= *from);
        }
        Ok(())
    }
}

impl Findings {
    fn look_at_marks(&mut self, width: Width, table: &[u8], media: u8) {
        let mut entries = width.entries(table);
        self.media_differs |= entries.next().is_none_or(|entry| entry & 0xFF != u32::from(media));
        self.is_marked_dirty |= entries.next().is_none_or(|entry| width.is_marked_dirty(entry));
    }
}

/// Joins neighbouring used clusters.
#[derive(Default)]
struct Run {
    from: Option<u64>,
}

impl Run {
    /// Takes the next cluster; returns the run that ended before it.
    fn next(&mut self, number: u64, is_used: bool) -> Option<(u64, u64)> {
        if is_used {
            self.from.get_or_insert(number);
            return None;
        }
        self.from.take().map(|from| (from, number))
    }
}

#[cfg(test)]
mod tests {
    use super::Width;

    #[test]
    fn twelve_bit_entries_are_packed_as_the_specification_says() {
        let entries: Vec<u32> =
            Width::Fat12.entries(&[0xF8, 0xFF, 0xFF, 0x03, 0x40, 0x00, 0xFF, 0x0F]).collect();
        assert_eq!(entries, [0xFF8, 0xFFF, 0x003, 0x004, 0xFFF, 0x000]);
    }

    #[test]
    fn reserved_bits_of_fat32_do_not_make_a_cluster_used() {
        assert!(!Width::Fat32.is_used(0xF000_0000));
        assert!(Width::Fat32.is_used(0x0FFF_FFF7));
    }

    #[test]
    fn cleared_bits_of_the_second_entry_mean_dirty() {
        assert!(!Width::Fat16.is_marked_dirty(0xFFFF));
        assert!(Width::Fat16.is_marked_dirty(0x7FFF));
        assert!(Width::Fat32.is_marked_dirty(0x0BFF_FFFF));
        assert!(!Width::Fat12.is_marked_dirty(0));
    }
}
