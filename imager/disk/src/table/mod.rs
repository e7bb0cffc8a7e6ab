//! Partition tables: GPT, MBR with its extended chain, or none.
//!
//! What is a table and what is not follows Linux, so our volumes are the kernel's partitions with the kernel's
//! numbers; where Linux silently drops what it does not like, we say so or refuse, because a capture that lacks a
//! volume is worse than none. A [`Table`] that exists has volumes inside the disk, apart from each other and from the
//! sectors of the table itself. Those sectors are kept byte for byte ([`RawArea`]); everything else can be parsed
//! from them again by the same code ([`Table::rebuild`]), which is also how a table moves to another disk
//! ([`Table::moved_to`]). The bytes are hostile: all arithmetic is checked, all sizes are bounded.
//!
//! Sources: UEFI 2.10 chapter 5, Linux `block/partitions/{efi,msdos}.c`, util-linux libblkid and libfdisk.

#![warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)]

mod dump;
mod ebr;
mod field;
mod filesystem;
mod gpt;
mod guid;
mod header;
mod layout;
mod mbr;
mod raw;
mod relocate;
mod sector_size;
mod sectors;
mod slot;

pub use raw::RawArea;
pub use sector_size::guess_sector_size;

use crate::ReadAt;
use header::{GptCopy, PRIMARY_LBA};
use imager_units::{ByteLen, Context, Error, Extent, ExtentSet, Result, SectorSize};
use mbr::{Mbr, Protective};
use raw::Areas;
use sectors::Sectors;

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// A GUID partition table.
    Gpt,
    /// A DOS partition table, with or without an extended chain.
    Mbr,
    /// Not at all: blank, or one volume that takes the whole disk.
    None,
}

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A volume that the table names directly; every GPT entry.
    Primary,
    /// An MBR container of logical entries: never imaged as content.
    Extended,
    /// A volume in the extended chain of an MBR.
    Logical,
}

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As Linux counts: the GPT slot from 1; MBR slots 1 to 4, logical entries from 5 in chain order.
    pub number: u32,
    /// Where it lies on the disk.
    pub extent: Extent,
    /// What it stands for.
    pub kind: EntryKind,
    /// The type as sfdisk prints it: a GUID in upper case (GPT), a hexadecimal number in lower case (MBR, `83`).
    pub type_id: String,
    /// The entry's own GUID in upper case (GPT only).
    pub unique_id: Option<String>,
    /// The name (GPT only), unless empty.
    pub name: Option<String>,
    /// The attribute bits (GPT only, else 0).
    pub attributes: u64,
    /// The active flag (MBR), or attribute bit 2 "legacy BIOS bootable" (GPT).
    pub bootable: bool,
}

/// A partition table, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which sort.
    pub kind: TableKind,
    /// Disk GUID in upper case (GPT) or disk signature as `0x%08x` (MBR).
    pub id: Option<String>,
    /// The logical sectors it counts in.
    pub sector: SectorSize,
    /// The size of the disk it was read from.
    pub size: ByteLen,
    /// Used entries by ascending number.
    pub entries: Vec<Entry>,
    /// The sectors it is made of: sector 0, then GPT primary header and array, backup array and header, or the
    /// links of the extended chain. A damaged copy of a GPT is left out, except the sector of the primary header.
    pub raw: Vec<RawArea>,
    /// What is unusual, in words.
    pub warnings: Vec<String>,
}

/// Reads the table of a disk, in sectors of the size that the disk says it has.
///
/// # Errors
/// `Corrupt` when there is a table that contradicts itself or the disk's size; `Io` when sector 0 or a link of the
/// extended chain cannot be read (an unreadable copy of a GPT only counts as damaged).
pub fn read(disk: &dyn ReadAt) -> Result<Table> {
    let sectors = Sectors::new(disk, disk.geometry().logical);
    Table::parse(&sectors).context(|| "reading the partition table".to_owned())
}

impl Table {
    /// The entries that hold data: all but extended containers.
    pub fn volumes(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.kind != EntryKind::Extended)
    }

    /// The bytes of all volumes.
    pub fn covered(&self) -> ExtentSet {
        self.volumes().map(|entry| entry.extent).collect()
    }

    /// The table that consists of `raw` on a disk of `size` bytes, read by the same code as from a disk.
    ///
    /// # Errors
    /// As [`read`].
    pub fn rebuild(raw: &[RawArea], sector: SectorSize, size: ByteLen) -> Result<Self> {
        Self::parse(&Areas::new(raw, sector, size).sectors())
            .context(|| "parsing saved table sectors".to_owned())
    }

    fn parse(sectors: &Sectors<'_>) -> Result<Self> {
        if sectors.count() == 0 {
            return Ok(Self::none(sectors));
        }
        let boot = sectors.read(0, 1)?;
        let mbr = Mbr::parse(&boot.bytes);
        let said = mbr.as_ref().map_or(Protective::No, Mbr::protective);
        match mbr {
            Some(mbr) if said == Protective::Odd && !mbr.is_table(sectors, &boot.bytes) => {
                Ok(Self::none(sectors))
            }
            Some(mbr) if said != Protective::No => match gpt::GptPair::find(sectors) {
                Ok(pair) => gpt::table(sectors, boot, &mbr, pair),
                Err(error) => Err(no_sound_gpt(sectors, error)),
            },
            mbr => Self::without_gpt(sectors, &boot, mbr.as_ref()),
        }
    }

    /// A disk whose sector 0 does not speak of a GPT.
    fn without_gpt(sectors: &Sectors<'_>, boot: &RawArea, mbr: Option<&Mbr>) -> Result<Self> {
        let mbr = match mbr {
            Some(mbr) => mbr::table(sectors, boot, mbr)?,
            None => None,
        };
        let mut table = mbr.unwrap_or_else(|| Self::none(sectors));
        table.warnings.extend(stale_gpt(sectors));
        Ok(table)
    }

    fn none(sectors: &Sectors<'_>) -> Self {
        Self {
            kind: TableKind::None,
            id: None,
            sector: sectors.sector(),
            size: sectors.size(),
            entries: Vec::new(),
            raw: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// A sound GPT that, without a protective MBR, nobody believes.
fn stale_gpt(sectors: &Sectors<'_>) -> Option<String> {
    let places = [PRIMARY_LBA, sectors.last()];
    let lba = places.into_iter().find(|&lba| GptCopy::load(sectors, lba).is_ok())?;
    Some(format!(
        "sector {lba} holds a GPT, but sector 0 has no entry of type ee; like Linux, the GPT is ignored"
    ))
}

/// Sector 0 promises a GPT and there is none.
fn no_sound_gpt(sectors: &Sectors<'_>, error: Error) -> Error {
    let hint = match guess_sector_size(sectors.disk()) {
        Ok(Some(size)) if size != sectors.sector() => {
            format!(
                " (there is one for sectors of {} bytes, the disk has {})",
                size.get(),
                sectors.sector().get()
            )
        }
        _ => String::new(),
    };
    error.within(format!("the protective MBR says that there is a GPT, but none can be used{hint}"))
}
