//! The same table on another disk.
//!
//! Nothing is made up that can be kept: on a disk of equal size with both GPT copies sound the sectors stay as they
//! are. Otherwise the believed copy gets new places and checksums, as `sgdisk --move-second-header` does it, and is
//! written twice. The result is parsed again before anybody gets it, so it has passed every check of a table read
//! from a disk.

use super::field::put;
use super::gpt::GptPair;
use super::header::{ARRAY_LBA, GptCopy, PRIMARY_LBA, Place};
use super::mbr::{Mbr, Protective};
use super::raw::Areas;
use super::sectors::Sectors;
use super::slot::slot_offset;
use super::{RawArea, Table, TableKind};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, Lba, Result};

impl Table {
    /// The same table for a disk of `size` bytes with sectors of the same size. A GPT gets its backup at the new end
    /// and both copies sound; an MBR stays as it is.
    ///
    /// # Errors
    /// `OutOfSpace` when the disk cannot hold every volume (and the backup GPT); `Corrupt` when the table's sectors
    /// were tampered with since they were read.
    pub fn moved_to(&self, size: ByteLen) -> Result<Self> {
        self.check_room(size)?;
        let moved = match self.kind {
            TableKind::None => Ok(Self { size, ..self.clone() }),
            TableKind::Mbr => Self::rebuild(&self.raw, self.sector, size),
            TableKind::Gpt => self.moved_gpt(size),
        };
        moved
            .and_then(|moved| self.same_entries(moved))
            .context(|| format!("moving the partition table to a disk of {} bytes", size.get()))
    }

    /// On a disk of another size the same sectors might mean something else, if they were made to.
    fn same_entries(&self, moved: Self) -> Result<Self> {
        if moved.kind == self.kind && moved.entries == self.entries {
            return Ok(moved);
        }
        Err(Error::corrupt("the sectors of the table would mean something else there"))
    }

    fn check_room(&self, size: ByteLen) -> Result<()> {
        let disk = Extent::first(size);
        if let Some(entry) = self.volumes().find(|entry| !disk.contains(entry.extent)) {
            let (number, end) = (entry.number, entry.extent.end().get());
            return Err(too_small(format!("entry {number} ends at byte {end} ({end:#x})"), size));
        }
        let links = self.kind == TableKind::Mbr && !self.raw.iter().all(|area| disk.contains(area.extent()));
        if links {
            return Err(too_small("the extended chain has links behind its end".to_owned(), size));
        }
        Ok(())
    }

    fn moved_gpt(&self, size: ByteLen) -> Result<Self> {
        let areas = Areas::new(&self.raw, self.sector, self.size);
        let old = areas.sectors();
        let pair = GptPair::find(&old)?;
        let new_last = self.sector.sectors_in(size).saturating_sub(1);
        let mut notes = Vec::new();
        let raw = if old.last() == new_last && pair.primary.is_ok() && pair.backup.is_ok() {
            self.raw.clone()
        } else {
            for (which, copy) in [("primary", &pair.primary), ("backup", &pair.backup)] {
                if let Err(flaw) = copy {
                    notes.push(format!(
                        "the {which} GPT was damaged ({flaw}); it is made anew from the other copy"
                    ));
                }
            }
            self.composed(&old, &pair, size)?
        };
        let mut moved = Self::rebuild(&raw, self.sector, size)?;
        moved.warnings.extend(notes);
        Ok(moved)
    }

    /// The sectors of the table with both copies, the backup at the end of a disk of `size` bytes.
    fn composed(&self, old: &Sectors<'_>, pair: &GptPair, size: ByteLen) -> Result<Vec<RawArea>> {
        let best = pair.best()?;
        let places = self.places(old, pair, size)?;
        let mut boot = old.read(0, 1)?;
        cover_whole_disk(&mut boot.bytes, old.last(), places.last);
        let area = |lba: u64, bytes: Vec<u8>| -> Result<RawArea> {
            let start = self.sector.offset_of(Lba::new(lba));
            let start: ByteOffset =
                start.ok_or_else(|| Error::corrupt(format!("sector {lba} is past 2^64")))?;
            Ok(RawArea { start, bytes })
        };
        let (primary, backup) = (places.primary(), places.backup());
        Ok(vec![
            boot,
            area(primary.my_lba, best.header_at(&primary))?,
            area(primary.array_lba, best.array.bytes.clone())?,
            area(backup.array_lba, best.array.bytes.clone())?,
            area(backup.my_lba, best.header_at(&backup))?,
        ])
    }

    fn places(&self, old: &Sectors<'_>, pair: &GptPair, size: ByteLen) -> Result<Places> {
        let best = pair.best()?;
        let last = self.sector.sectors_in(size).saturating_sub(1);
        let array_sectors = self.sector.sectors_in(ByteLen::of(&best.array.bytes));
        let backup_array = last.saturating_sub(array_sectors);
        let most = backup_array.saturating_sub(1);
        let last_usable = if last == old.last() { best.last_usable_lba().min(most) } else { most };
        if let Some(what) = self.does_not_fit(best, backup_array) {
            return Err(too_small(
                format!("{what}, and the backup GPT needs its last {array_sectors} sectors and one"),
                size,
            ));
        }
        let primary_array = pair.primary.as_ref().map_or(ARRAY_LBA, GptCopy::array_lba);
        Ok(Places { last, last_usable, primary_array, backup_array })
    }

    /// What lies where the backup has to go, if anything.
    fn does_not_fit(&self, best: &GptCopy, backup_array: u64) -> Option<String> {
        let end = |extent: Extent| self.sector.lba_of(extent.end()).get();
        let late = self.volumes().find(|entry| end(entry.extent) > backup_array);
        let first = best.first_usable_lba();
        match late {
            Some(entry) => Some(format!("entry {} ends at sector {}", entry.number, end(entry.extent))),
            None if first >= backup_array => Some(format!("the first usable sector is {first}")),
            None => None,
        }
    }
}

/// Where everything goes.
struct Places {
    last: u64,
    last_usable: u64,
    primary_array: u64,
    backup_array: u64,
}

impl Places {
    fn primary(&self) -> Place {
        Place {
            my_lba: PRIMARY_LBA,
            alternate_lba: self.last,
            last_usable_lba: self.last_usable,
            array_lba: self.primary_array,
        }
    }

    fn backup(&self) -> Place {
        Place {
            my_lba: self.last,
            alternate_lba: PRIMARY_LBA,
            last_usable_lba: self.last_usable,
            array_lba: self.backup_array,
        }
    }
}

fn too_small(what: String, size: ByteLen) -> Error {
    Error::new(ErrorKind::OutOfSpace, format!("a disk of {} bytes is too small: {what}", size.get()))
}

/// Lets a protective MBR that covered the old disk cover the new one. One that did not, or a hybrid, stays as it is.
fn cover_whole_disk(boot: &mut [u8], old_last: u64, new_last: u64) {
    const SECTORS: usize = 12;
    const END_CHS: usize = 5;
    let whole = |last: u64| u32::try_from(last).unwrap_or(u32::MAX);
    let Some(mbr) = Mbr::parse(boot) else { return };
    if mbr.is_hybrid() || mbr.protective() != Protective::Proper || whole(old_last) == whole(new_last) {
        return;
    }
    for (index, slot) in mbr.slots().iter().enumerate() {
        if slot.is_protective() && slot.sectors == whole(old_last) {
            let at = slot_offset(index);
            put(boot, at.saturating_add(SECTORS), &whole(new_last).to_le_bytes());
            put(boot, at.saturating_add(END_CHS), &[0xff; 3]);
        }
    }
}
