//! FAT12, FAT16 and FAT32.
//!
//! The map is everything before cluster 2 (boot sector and its backup, FSInfo, all FATs, the fixed root directory),
//! every cluster with an entry, and everything behind the last cluster.
//!
//! A volume that is marked as in use still gets a map, from all copies of the table together: FAT has no log, so what
//! is on disk is all there is. A table that lags behind its directories has clusters without an owner, which are
//! in; or a directory entry that names free clusters, which every checker cuts off because there is no telling what
//! they hold. What does make the volume whole are copies that differ on a volume that claims to be in order, and a
//! table that does not start as a table must, for these are damage.

mod boot;
pub mod directory;
mod label;
mod table;
#[cfg(test)]
mod tests;

use crate::gather::Gather;
use crate::read::read_if_inside;
use crate::{Certainty, Filesystem, State, UsedBlocks, UsedMap};
use boot::{BOOT_BYTES, BootSector, Layout};
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, Result};

/// The smallest and the largest grain of a mask.
const UNITS: std::ops::RangeInclusive<u64> = 512..=65_536;

/// The FAT family.
#[derive(Clone, Copy, Debug)]
pub struct Fat;

impl UsedBlocks for Fat {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        match boot_sector(volume)? {
            Some(boot) => filesystem(volume, &boot).map(Some),
            None => Ok(None),
        }
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let boot = boot_sector(volume)?.ok_or_else(|| Error::corrupt("there is no FAT boot sector"))?;
        let layout = Layout::new(&boot, volume.geometry().size)?;
        let mut used = Gather::default();
        used.push(Extent::first(layout.data_start.saturating_since(Default::default())));
        let findings = table::walk(volume, &layout, boot.media, &mut used)?;
        if findings.media_differs {
            return Err(Error::corrupt("the first entry of the FAT does not repeat the media byte"));
        }
        if findings.copies_differ && !boot.is_dirty && !findings.is_marked_dirty {
            return Err(Error::corrupt("the copies of the FAT differ"));
        }
        used.push(Extent::between(layout.data_end(), volume.geometry().extent().end()));
        Ok(UsedMap { extents: used.finish(), unit: unit(&layout), certainty: Certainty::Exact })
    }
}

fn boot_sector(volume: &dyn ReadAt) -> Result<Option<BootSector>> {
    let bytes = read_if_inside(volume, 0, BOOT_BYTES)?;
    Ok(bytes.as_deref().and_then(BootSector::parse))
}

fn filesystem(volume: &dyn ReadAt, boot: &BootSector) -> Result<Filesystem> {
    let size = volume.geometry().size;
    let whole = Extent::first(size);
    let mut filesystem = Filesystem {
        kind: "fat",
        uuid: boot.uuid(),
        label: boot.label(),
        block: boot.cluster(),
        size: boot.size(),
        state: State::Clean,
        head: boot.head().into_iter().map(|sector| sector.intersection(whole)).collect(),
    };
    let layout = match Layout::new(boot, size) {
        Ok(layout) => layout,
        Err(error) => {
            filesystem.state = State::Dirty(error.to_string());
            return Ok(filesystem);
        }
    };
    filesystem.kind = layout.width.kind();
    if let Some(label) = label::root_label(volume, &layout)? {
        filesystem.label = Some(label);
    }
    let marks = table::marks(volume, &layout, boot.media)?;
    if boot.is_dirty || marks.is_marked_dirty {
        filesystem.state = State::Dirty("it was not unmounted, or errors were found in it".to_owned());
    }
    Ok(filesystem)
}

/// The grain of the map: clusters need only begin at a multiple of the sector size.
fn unit(layout: &Layout) -> ByteLen {
    let shared = layout.data_start.get() | layout.cluster.get();
    let lowest = 1_u64.checked_shl(shared.trailing_zeros()).unwrap_or(*UNITS.end());
    ByteLen::new(lowest.clamp(*UNITS.start(), *UNITS.end()))
}
