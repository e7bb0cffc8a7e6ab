//! exFAT.
//!
//! Microsoft, "exFAT file system specification" (revision 1.00, 2019); sections below are its. The map is everything
//! before the cluster heap (both boot regions, the FAT), every cluster with a bit in the allocation bitmap, and
//! everything behind the last cluster.
//!
//! Unlike FAT the table does not say what is in use (files without a chain do not stand in it), and no checksum or
//! count covers the bitmap: `PercentInUse` would, but Linux never writes it. So a volume that is marked as in use is
//! copied whole, and on the others the directories are compared with the bitmap, as far as a bounded look at them goes:
//! whatever they name must have its bit.

mod boot;
mod directory;
mod map;
mod root;
mod table;
#[cfg(test)]
mod tests;
mod tree;

use crate::detect::chain;
use crate::read::read_if_inside;
use crate::{Certainty, Filesystem, State, UsedBlocks, UsedMap};
use boot::{BOOT_BYTES, BootSector, Layout};
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use root::Root;
use table::Table;

/// The smallest and the largest grain of a mask.
const UNITS: std::ops::RangeInclusive<u64> = 512..=65_536;

/// exFAT.
#[derive(Clone, Copy, Debug)]
pub struct Exfat;

impl UsedBlocks for Exfat {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        match boot_sector(volume)? {
            Some(boot) => filesystem(volume, &boot).map(Some),
            None => Ok(None),
        }
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let boot = boot_sector(volume)?.ok_or_else(|| Error::corrupt("there is no exFAT boot sector"))?;
        boot.check_flags()?;
        boot.check_region(volume)?;
        let layout = Layout::new(&boot, volume.geometry().size)?;
        let mut table = Table::new(volume, &layout);
        let root = Root::read(&mut table)?;
        let extents = map::map(&mut table, &root)?;
        tree::check(&mut table, &root, &extents)?;
        Ok(UsedMap { extents, unit: unit(&layout), certainty: Certainty::Exact })
    }
}

fn boot_sector(volume: &dyn ReadAt) -> Result<Option<BootSector>> {
    let bytes = read_if_inside(volume, 0, BOOT_BYTES)?;
    Ok(bytes.as_deref().and_then(BootSector::parse))
}

fn filesystem(volume: &dyn ReadAt, boot: &BootSector) -> Result<Filesystem> {
    let size = volume.geometry().size;
    let claims = boot.check_flags().and_then(|()| boot.check_region(volume));
    let layout = Layout::new(boot, size);
    let root = layout.and_then(|layout| Root::read(&mut Table::new(volume, &layout)));
    let (label, verdict) = match root {
        Ok(root) => (root.label, claims),
        Err(error) => (None, claims.and(Err(error))),
    };
    let state = match verdict {
        Ok(()) => State::Clean,
        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
        Err(error) => State::Dirty(chain(&error)),
    };
    Ok(Filesystem {
        kind: "exfat",
        uuid: Some(boot.uuid()),
        label,
        block: boot.cluster(),
        size: boot.size(),
        state,
        head: boot.head().into_iter().map(|sector| sector.intersection(Extent::first(size))).collect(),
    })
}

/// The grain of the map: clusters need only begin at a multiple of the sector size.
fn unit(layout: &Layout) -> ByteLen {
    let shared = layout.heap_start.get() | layout.cluster.get();
    let lowest = 1_u64.checked_shl(shared.trailing_zeros()).unwrap_or(*UNITS.end());
    ByteLen::new(lowest.clamp(*UNITS.start(), *UNITS.end()))
}
