//! The sector size of an image file, which nothing but its table tells.

use super::header::{GptCopy, PRIMARY_LBA};
use super::mbr::{Mbr, Protective};
use super::sectors::Sectors;
use super::slot::has_boot_signature;
use crate::ReadAt;
use imager_units::{Result, SectorSize};

/// Which logical sector size the table on an image file was made for: of 512, 1024, 2048 and 4096 bytes the one for
/// which there is a GPT, else the one of 512 and 4096 with which an extended entry has a chain or, failing that, the
/// entries of an MBR lie inside the disk. `None` when that does not decide; 512 is then the usual assumption.
///
/// # Errors
/// `Io` when the first sector cannot be read.
pub fn guess_sector_size(disk: &dyn ReadAt) -> Result<Option<SectorSize>> {
    let mut sizes = Vec::new();
    for bytes in [512, 1024, 2048, 4096] {
        sizes.push(Sectors::new(disk, SectorSize::new(bytes)?));
    }
    let Some(first) = sizes.first().filter(|sectors| sectors.count() > 0) else { return Ok(None) };
    let mbr = Mbr::parse(&first.read(0, 1)?.bytes);
    for backup in [false, true] {
        let place = |sectors: &Sectors<'_>| if backup { sectors.last() } else { PRIMARY_LBA };
        let sound = |sectors: &&Sectors<'_>| GptCopy::load(sectors, place(sectors)).is_ok();
        let found: Vec<_> = sizes.iter().filter(sound).collect();
        if !found.is_empty() {
            return Ok(the_one(&found, mbr.as_ref()).map(|sectors| sectors.sector()));
        }
    }
    Ok(mbr.and_then(|mbr| from_mbr(disk, &mbr)))
}

/// The only one, or the one whose protective MBR covers the whole disk: a GPT from before a change may be left.
fn the_one<'a>(found: &[&'a Sectors<'a>], mbr: Option<&Mbr>) -> Option<&'a Sectors<'a>> {
    if let [only] = found {
        return Some(only);
    }
    let slots = mbr?.slots();
    let covered = |sectors: &&&Sectors<'_>| {
        let whole = sectors.last().min(u64::from(u32::MAX));
        slots.iter().any(|slot| slot.is_protective() && u64::from(slot.sectors) == whole)
    };
    let mut matching = found.iter().filter(covered);
    match (matching.next(), matching.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

fn from_mbr(disk: &dyn ReadAt, mbr: &Mbr) -> Option<SectorSize> {
    if mbr.protective() != Protective::No || !mbr.has_valid_statuses() {
        return None;
    }
    let either = |test: &dyn Fn(&Sectors<'_>) -> bool| {
        let [small, large] = [SectorSize::B512, SectorSize::B4096];
        match [small, large].map(|sector| test(&Sectors::new(disk, sector))) {
            [true, false] => Some(small),
            [false, true] => Some(large),
            _ => None,
        }
    };
    either(&|sectors| has_chain(sectors, mbr)).or_else(|| either(&|sectors| mbr.is_plausible(sectors)))
}

/// Whether there is an extended entry with a chain at its start.
fn has_chain(sectors: &Sectors<'_>, mbr: &Mbr) -> bool {
    let mut containers = mbr.slots().iter().filter(|slot| slot.is_extended());
    containers.any(|slot| {
        let link = sectors.read(slot.place(0).0, 1);
        link.is_ok_and(|link| has_boot_signature(&link.bytes))
    })
}
