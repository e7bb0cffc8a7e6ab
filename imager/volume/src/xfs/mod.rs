//! XFS, versions 4 and 5.
//!
//! The map is everything but the free space of each allocation group. It is held twice, by block and by length: both
//! trees are read and must hold the same records, which must add up to what the group's header says, and all groups
//! to what the superblock says. Blocks of the trees themselves, a group's reserve (AGFL), headers and the log are in
//! neither tree, so they are used; the tail behind the filesystem is added. In version 5 every structure that is read
//! is under a checksum and says where it belongs.
//!
//! The trees are believed only when the log has nothing to add to them: it ends with the record of an unmount, or all
//! that would be replayed is the superblock as it is anyway, which is how a freeze leaves it. Otherwise the volume is
//! whole, as it is with a log or a realtime part elsewhere.

mod checksum;
mod features;
mod files;
mod group;
mod layout;
mod log;
mod map;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;

pub use files::Files;

use crate::{Filesystem, State, UsedBlocks, UsedMap};
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, ErrorKind, Extent, ExtentSet, Result};
use layout::Layout;
use log::Log;
use map::Counters;
use superblock::Superblock;

/// The smallest head: superblocks of hostile numbers too.
const LEAST_HEAD_BYTES: ByteLen = ByteLen::new(4096);

/// XFS.
#[derive(Clone, Copy, Debug)]
pub struct Xfs;

impl UsedBlocks for Xfs {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        Ok(Superblock::read(volume)?.map(|sb| filesystem(volume, &sb)))
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let sb = Superblock::read(volume)?.ok_or_else(|| Error::corrupt("there is no XFS superblock"))?;
        sb.check()?;
        let layout = Layout::new(&sb, volume.geometry().size)?;
        let counters = match log::read(volume, &sb, &layout)? {
            Log::Unmounted => Counters::Final,
            Log::Covered => Counters::Stale,
        };
        map::map(volume, &sb, &layout, counters)
    }
}

fn filesystem(volume: &dyn ReadAt, sb: &Superblock) -> Filesystem {
    let size = volume.geometry().size;
    let layout = Layout::new(sb, size);
    let state = state(volume, sb, &layout);
    let (block, head) = match &layout {
        Ok(layout) => (layout.block(), head(layout)),
        Err(_) => {
            let first = Extent::first(LEAST_HEAD_BYTES).intersection(Extent::first(size));
            (volume.geometry().logical.as_len(), first.into())
        }
    };
    Filesystem {
        kind: "xfs",
        uuid: sb.uuid.clone(),
        label: sb.sb_fname.clone(),
        block,
        size: ByteLen::new(sb.sb_dblocks.saturating_mul(u64::from(sb.sb_blocksize))),
        state,
        head,
    }
}

fn state(volume: &dyn ReadAt, sb: &Superblock, layout: &Result<Layout>) -> State {
    let log = |layout: &Layout| log::read(volume, sb, layout);
    let verdict = sb.check().map_err(|error| (error.kind(), error.to_string())).and_then(|()| match layout {
        Ok(layout) => log(layout).map_err(|error| (error.kind(), error.to_string())),
        Err(error) => Err((error.kind(), error.to_string())),
    });
    match verdict {
        Ok(_) => State::Clean,
        Err((ErrorKind::Corrupt, why)) => State::Dirty(why),
        Err(_) => State::Unknown,
    }
}

/// The first block of every group: all of them begin with a copy of the superblock.
fn head(layout: &Layout) -> ExtentSet {
    (0..layout.groups).map(|number| layout.extent(number, 0, 1)).collect()
}
