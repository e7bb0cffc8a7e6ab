//! Looking for one file by its path, to see whether firmware would find its loader.
//!
//! Microsoft FAT32 File System Specification 1.03, "FAT Directory Structure" and "Long Directory Entries". Reads only,
//! a few clusters at a time, and believes no length: a chain is followed as far as its file or folder may be long. The
//! crate `fatfs` (0.3.6 of 2023) was the alternative; it wants a volume that it may write, and marks it when it is
//! dropped, while everything it would do here rests on the boot sector and table that are parsed beside this.

use super::boot::Layout;
use super::boot_sector;
use super::table::Width;
use crate::bytes::Bytes;
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, Result};

const ENTRY_BYTES: usize = 32;
const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0F;
const DELETED: u8 = 0xE5;
/// What stands for a name that really begins with 0xE5.
const KANJI_E5: u8 = 0x05;
/// Marks the part of a long name that comes first on disk and last in the name.
const LAST_LONG_ENTRY: u8 = 0x40;
const LONG_PARTS_MAX: usize = 20;
/// Where a long entry keeps its thirteen characters.
const LONG_PIECES: [(usize, usize); 3] = [(1, 10), (14, 12), (28, 4)];
/// No folder is longer (specification, "FAT Directory Structure": 2 to the 16 entries).
const FOLDER_BYTES_MAX: u64 = 65_536 * 32;
/// No loader is longer; what is longer is no loader.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its length.
    pub size: ByteLen,
    /// Where it lies on the volume, in order; the last cluster may be longer than the file.
    pub extents: Vec<Extent>,
}

/// An entry of a folder.
struct Entry {
    is_folder: bool,
    first: u64,
    size: u64,
}

/// The file at `path`, whose parts `\` or `/` separates, whatever their case.
///
/// # Errors
/// `Corrupt` when the volume is no FAT or what leads to the file contradicts itself; `Io` when it cannot be read.
pub fn find(volume: &dyn ReadAt, path: &str) -> Result<Option<File>> {
    let boot = boot_sector(volume)?.ok_or_else(|| Error::corrupt("there is no FAT boot sector"))?;
    let reader = Reader { volume, layout: Layout::new(&boot, volume.geometry().size)? };
    let mut parts = path.split(['\\', '/']).filter(|part| !part.is_empty()).peekable();
    let mut folder = reader.root()?;
    while let Some(part) = parts.next() {
        let Some(entry) = reader.look_up(&folder, part)? else { return Ok(None) };
        match (entry.is_folder, parts.peek().is_some()) {
            (true, true) => folder = reader.chain(entry.first, FOLDER_BYTES_MAX, Length::Unknown)?,
            (false, false) => {
                let size = entry.size.min(FILE_BYTES_MAX);
                let extents =
                    if size == 0 { Vec::new() } else { reader.chain(entry.first, size, Length::Known)? };
                return Ok(Some(File { size: ByteLen::new(entry.size), extents }));
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether a chain has to be as long as is said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Known,
    Unknown,
}

struct Reader<'a> {
    volume: &'a dyn ReadAt,
    layout: Layout,
}

impl Reader<'_> {
    /// The extents of the root folder.
    fn root(&self) -> Result<Vec<Extent>> {
        if self.layout.width != Width::Fat32 {
            return Ok(vec![self.layout.root]);
        }
        let behind = self.layout.root.start().saturating_since(self.layout.data_start).get();
        let first = behind.checked_div(self.layout.cluster.get()).unwrap_or_default().saturating_add(2);
        self.chain(first, FOLDER_BYTES_MAX, Length::Unknown)
    }

    /// The clusters from `first` on, as far as `bytes` reach.
    fn chain(&self, first: u64, bytes: u64, length: Length) -> Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        let (mut cluster, mut left) = (first, bytes);
        while left > 0 {
            if !(2..self.layout.clusters.saturating_add(2)).contains(&cluster) {
                let is_end = !extents.is_empty() && length == Length::Unknown && self.is_end(cluster);
                return if is_end {
                    Ok(extents)
                } else {
                    Err(Error::corrupt("a chain of clusters that breaks off"))
                };
            }
            let extent = self.layout.cluster_run(cluster, cluster.saturating_add(1));
            match extents.last_mut() {
                Some(last) if last.end() == extent.start() => {
                    *last = Extent::between(last.start(), extent.end())
                }
                _ => extents.push(extent),
            }
            left = left.saturating_sub(extent.len().get());
            cluster = self.next(cluster)?;
        }
        Ok(extents)
    }

    /// What the table says of a cluster.
    fn next(&self, cluster: u64) -> Result<u64> {
        let fat = self.layout.fats.first().ok_or_else(|| Error::corrupt("there is no FAT"))?;
        let width = self.layout.width;
        let start = fat.start().saturating_add(ByteLen::new(width.offset_of(cluster)));
        let end = start.saturating_add(ByteLen::new(4)).min(fat.end());
        let bytes = read(self.volume, Extent::between(start, end))?;
        Ok(width.entry(&bytes, cluster).into())
    }

    /// Whether an entry of the table ends a chain (specification, "FAT Data Structure").
    fn is_end(&self, entry: u64) -> bool {
        entry
            >= match self.layout.width {
                Width::Fat12 => 0xFF8,
                Width::Fat16 => 0xFFF8,
                Width::Fat32 => 0x0FFF_FFF8,
            }
    }

    /// The entry of a folder that is called `name`, by its long or its short one.
    fn look_up(&self, folder: &[Extent], name: &str) -> Result<Option<Entry>> {
        let mut long = LongName::default();
        for extent in folder {
            let bytes = read(self.volume, *extent)?;
            for entry in bytes.chunks_exact(ENTRY_BYTES).map(Bytes) {
                let attributes = entry.byte(11).unwrap_or_default();
                match entry.byte(0) {
                    None | Some(0) => return Ok(None),
                    Some(DELETED) => long = LongName::default(),
                    Some(_) if attributes & ATTR_LONG_NAME == ATTR_LONG_NAME => long.push(entry),
                    Some(_) => {
                        let full = std::mem::take(&mut long).finish(entry);
                        let is_it = [full, short_name(entry)]
                            .into_iter()
                            .flatten()
                            .any(|called| is_same(&called, name));
                        if is_it && attributes & ATTR_VOLUME_ID == 0 {
                            return Ok(self.entry(entry, attributes));
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    fn entry(&self, entry: Bytes<'_>, attributes: u8) -> Option<Entry> {
        let high = if self.layout.width == Width::Fat32 { entry.le16(20)? } else { 0 };
        let first = u64::from(high) << 16 | u64::from(entry.le16(26)?);
        Some(Entry { is_folder: attributes & ATTR_DIRECTORY != 0, first, size: entry.le32(28)?.into() })
    }
}

fn is_same(a: &str, b: &str) -> bool {
    a.chars().flat_map(char::to_uppercase).eq(b.chars().flat_map(char::to_uppercase))
}

/// `NAME.EXT`; letters beyond ASCII, whose meaning depends on a code page, do not match anything.
fn short_name(entry: Bytes<'_>) -> Option<String> {
    let mut name: [u8; 11] = entry.array(0)?;
    if let Some(first) = name.first_mut().filter(|first| **first == KANJI_E5) {
        *first = DELETED;
    }
    let (base, extension) = name.split_at_checked(8)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (base, extension) = (text(base), text(extension));
    Some(if extension.is_empty() { base } else { format!("{base}.{extension}") })
}

/// The parts of a long name, which stand before the short one, last part first.
#[derive(Default)]
struct LongName {
    parts: Vec<Vec<u16>>,
    checksum: u8,
}

impl LongName {
    fn push(&mut self, entry: Bytes<'_>) {
        let (order, checksum) = (entry.byte(0).unwrap_or_default(), entry.byte(13).unwrap_or_default());
        if order & LAST_LONG_ENTRY != 0 {
            *self = Self { parts: Vec::new(), checksum };
        }
        let pieces = LONG_PIECES.iter().filter_map(|(at, len)| entry.slice(*at, *len));
        let units = pieces.flat_map(|piece| piece.chunks_exact(2)).filter_map(|pair| Bytes(pair).le16(0));
        if self.checksum == checksum && self.parts.len() < LONG_PARTS_MAX {
            self.parts.push(units.collect());
        }
    }

    /// The name, if it is that of this short entry.
    fn finish(self, short: Bytes<'_>) -> Option<String> {
        let name: [u8; 11] = short.array(0)?;
        let sum = name.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.parts.is_empty() || sum != self.checksum {
            return None;
        }
        let units: Vec<u16> = self.parts.into_iter().rev().flatten().take_while(|unit| *unit != 0).collect();
        String::from_utf16(&units).ok()
    }
}

#[cfg(test)]
mod tests;
