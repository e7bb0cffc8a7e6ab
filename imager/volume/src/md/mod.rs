//! Members of md arrays (mdadm).
//!
//! Of a mirror (RAID1) each member holds the array's content in one run, so the map of a member is everything outside
//! that run (superblock, bitmap, bad block log, what is reserved) and the map of the content's filesystem. It is made
//! from the member's own copy. That says what is used on the member only while all copies are the same: an array that
//! is not in order, or changes its shape, is copied whole. So are all other levels: a filesystem can be read only from
//! all members together.
//!
//! The member whose copy is looked at may be behind the others (it was pulled out); it is still what is on that disk.

mod superblock;
#[cfg(test)]
mod tests;

pub use superblock::{Level, Superblock};

use crate::{Certainty, Filesystem, State, UsedBlocks, UsedMap, detect, other};
use imager_disk::{ReadAt, Window};
use imager_units::{ByteLen, ByteOffset, Error, Extent, ExtentSet, Result};

/// Members of arrays.
#[derive(Clone, Copy, Debug)]
pub struct Md;

/// The grain where content does not lie at multiples of anything larger.
const SECTOR_BYTES: u64 = 512;

impl UsedBlocks for Md {
    /// Recognised by the table of containers; what that says of the head is made complete here.
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        let Some(mut member) = other::container(volume)?.filter(|found| found.kind == KIND) else {
            return Ok(None);
        };
        let Some(superblock) = Superblock::read(volume)? else { return Ok(Some(member)) };
        member.uuid = Some(superblock.id.clone());
        member.label = superblock.name.clone().or(member.label);
        member.state = superblock.trouble.clone().map_or(State::Clean, State::Dirty);
        if let Some(content) = content(volume)? {
            let inner = detect::filesystems(&content.bytes)?;
            let shifted =
                inner.iter().flat_map(|found| found.head.iter().map(|part| shift(part, content.at)));
            member.head.extend(shifted);
        }
        Ok(Some(member))
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let superblock =
            Superblock::read(volume)?.ok_or_else(|| Error::corrupt("its superblock is damaged"))?;
        if let Level::Other(level) = superblock.level {
            return Err(Error::unsupported(format!("a member of {level} has no filesystem of its own")));
        }
        if let Some(trouble) = &superblock.trouble {
            return Err(Error::unsupported(trouble.clone()));
        }
        let content = content(volume)?.ok_or_else(|| Error::corrupt("its content lies outside of it"))?;
        let inner = detect::used_by_filesystem(&content.bytes)?;
        if let Certainty::Whole(why) = inner.certainty {
            return Err(Error::unsupported(format!("in the array: {why}")));
        }
        let whole = volume.geometry().extent();
        let size = content.bytes.geometry().size;
        let place = Extent::between(content.at, content.at.saturating_add(size));
        let outside = ExtentSet::from(place).complement(whole);
        let shifted: ExtentSet = inner.extents.iter().map(|part| shift(part, content.at)).collect();
        let aligned =
            content.at.get().is_multiple_of(inner.unit.get()) && size.get().is_multiple_of(inner.unit.get());
        let unit = if aligned { inner.unit } else { ByteLen::new(SECTOR_BYTES) };
        Ok(UsedMap { extents: outside.union(&shifted), unit, certainty: Certainty::Exact })
    }
}

/// What `blkid` calls a member.
pub(crate) const KIND: &str = "linux_raid_member";

/// The content of a mirror, as its member has it.
pub struct Content<D> {
    /// Where it begins on the member.
    pub at: ByteOffset,
    /// Its bytes.
    pub bytes: Window<D>,
}

/// The content that a member of a mirror has; `None` for other levels, and for what is no member.
///
/// # Errors
/// `Io` when the volume cannot be read.
pub fn content<D: ReadAt>(volume: D) -> Result<Option<Content<D>>> {
    let Some(superblock) = Superblock::read(&volume)? else { return Ok(None) };
    let inside = volume.geometry().extent();
    if superblock.level != Level::Mirror || !inside.contains(superblock.content) {
        return Ok(None);
    }
    let bytes = Window::part(volume, superblock.content)?;
    Ok(Some(Content { at: superblock.content.start(), bytes }))
}

fn shift(part: Extent, by: ByteOffset) -> Extent {
    let by = by.saturating_since(ByteOffset::ZERO);
    Extent::between(part.start().saturating_add(by), part.end().saturating_add(by))
}
