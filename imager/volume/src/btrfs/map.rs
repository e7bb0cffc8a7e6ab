//! The used map of one device, from the trees of all.

use super::chunk::{CHUNK_ITEM, Chunks};
use super::devices::Devices;
use super::node::Key;
use super::roots::{self, Roots};
use super::space::Space;
use super::superblock::{COMPAT_RO_BLOCK_GROUP_TREE, Root, Superblock};
use super::tree::Forest;
use super::{SUPER_BYTES, SUPER_OFFSETS};
use crate::bytes::Bytes;
use crate::{Certainty, UsedMap};
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, Extent, ExtentSet, Result};

/// `BTRFS_DEVICE_RANGE_RESERVED`: boot code and the first superblock; nothing is ever allocated there.
const RESERVED: ByteLen = ByteLen::new(1 << 20);

const DEV_ITEMS: u64 = 1;
const DEV_ITEM: u8 = 216;
const DEV_REPLACE: u8 = 250;
/// `BTRFS_IOCTL_DEV_REPLACE_STATE_STARTED` and `…_SUSPENDED`.
const REPLACE_UNDER_WAY: [u64; 2] = [1, 4];
const REPLACE_STATE_OFFSET: usize = 32;

const EXTENT_DATA: u8 = 108;
const EXTENT_INLINE: u8 = 0;

/// Maps the first of `volumes`; the others are the other devices of its filesystem.
///
/// # Errors
/// `Io`; `Corrupt`, `Unsupported` where the map cannot be relied on.
pub(super) fn map(volumes: &[&dyn ReadAt]) -> Result<UsedMap> {
    let devices = Devices::open(volumes)?;
    let device = devices.first()?;
    let sb = &device.sb;
    let mut forest = Forest::new(&devices, sb);
    let chunks = read_chunks(&mut forest, &devices, sb)?;
    let has_block_group_tree = sb.compat_ro & COMPAT_RO_BLOCK_GROUP_TREE != 0;
    let found = Roots::find(&mut forest, &chunks, sb, has_block_group_tree)?;
    check_replace(&mut forest, &chunks, found.devices)?;
    let mut space = Space::new(&chunks, sb);
    forest.walk(&chunks, found.extents, &mut |key, data| space.take(key, data))?;
    if let Some(root) = found.block_groups {
        forest.walk(&chunks, root, &mut |key, data| space.take(key, data))?;
    }
    let nodes = forest.take_nodes();
    if let Some(root) = roots::of_logs(sb) {
        map_log(&mut forest, &chunks, sb, root, &mut space)?;
    }
    let used = space.finish(sb, &nodes)?;
    let bounds = device.volume.geometry().extent();
    let unit = ByteLen::new(sb.sectorsize.into());
    let extents = used.union(&ungoverned(sb, bounds).align_out(unit, bounds.end()));
    Ok(UsedMap { extents, unit, certainty: Certainty::Exact })
}

/// All chunks, from the chunk tree, whose own chunks the superblock names.
pub(super) fn read_chunks(forest: &mut Forest<'_>, devices: &Devices<'_>, sb: &Superblock) -> Result<Chunks> {
    let system = Chunks::of_system(sb)?;
    devices.check(&system)?;
    let (mut chunks, mut known) = (Chunks::default(), 0_u64);
    forest.walk(&system, roots::of_chunks(sb), &mut |key, data| {
        match (key.objectid, key.kind) {
            (DEV_ITEMS, DEV_ITEM) => {
                known = known.saturating_add(1);
                return check_device(devices, key, data);
            }
            (_, CHUNK_ITEM) => chunks.push(key, data, sb)?,
            _ => {}
        }
        Ok(())
    })?;
    if known != sb.num_devices {
        let says = sb.num_devices;
        return Err(Error::corrupt(format!("it has {known} devices and its superblock says {says}")));
    }
    devices.check(&chunks)?;
    Ok(chunks)
}

fn check_device(devices: &Devices<'_>, key: Key, data: &[u8]) -> Result<()> {
    // `struct btrfs_dev_item`.
    let uuid = Bytes(data).array(66);
    if uuid.is_some_and(|uuid| devices.has(key.offset, uuid)) {
        return Ok(());
    }
    Err(Error::unsupported(format!("its device {} is not here", key.offset)))
}

/// While a device is replaced, what is written goes to a device that no chunk names.
fn check_replace(forest: &mut Forest<'_>, chunks: &Chunks, root: Root) -> Result<()> {
    forest.walk(chunks, root, &mut |key, data| {
        let is_under_way = key.objectid == 0
            && key.kind == DEV_REPLACE
            && Bytes(data).le64(REPLACE_STATE_OFFSET).is_none_or(|state| REPLACE_UNDER_WAY.contains(&state));
        if is_under_way {
            return Err(Error::unsupported("one of its devices is being replaced"));
        }
        Ok(())
    })
}

/// The log of `fsync`, which is not yet in the extent tree: its nodes, and the extents of the files in it.
fn map_log(
    forest: &mut Forest<'_>,
    chunks: &Chunks,
    sb: &Superblock,
    root: Root,
    space: &mut Space<'_>,
) -> Result<()> {
    let mut trees = Vec::new();
    forest.walk(chunks, root, &mut |key, data| {
        trees.extend(roots::of_log(key, data)?);
        Ok(())
    })?;
    for tree in trees {
        forest.walk(chunks, tree, &mut |key, data| {
            if key.kind != EXTENT_DATA {
                return Ok(());
            }
            // `struct btrfs_file_extent_item`: type, disk_bytenr, disk_num_bytes.
            let b = Bytes(data);
            if b.byte(20) == Some(EXTENT_INLINE) {
                return Ok(());
            }
            match (b.le64(21), b.le64(29)) {
                (Some(0), _) => Ok(()),
                (Some(at), Some(len)) => space.add_uncounted(at, len),
                _ => Err(Error::corrupt("an extent in the log is cut short")),
            }
        })?;
    }
    for node in forest.take_nodes().iter() {
        // Runs of nodes may go on from one chunk into the next.
        let mut at = node.start().get();
        while at < node.end().get() {
            let len = u64::from(sb.nodesize).min(node.end().get().saturating_sub(at));
            space.add_uncounted(at, len)?;
            at = at.saturating_add(len);
        }
    }
    Ok(())
}

/// What no tree governs: the reserve at the start, superblock copies, and what is behind the filesystem.
fn ungoverned(sb: &Superblock, bounds: Extent) -> ExtentSet {
    let copies = SUPER_OFFSETS.map(|at| {
        let start = ByteOffset::new(at);
        Extent::between(start, start.saturating_add(ByteLen::new(SUPER_BYTES)))
    });
    let tail = Extent::between(ByteOffset::new(sb.dev_total_bytes), bounds.end());
    let all = copies.into_iter().chain([Extent::first(RESERVED), tail]);
    all.map(|extent| extent.intersection(bounds)).collect()
}
