//! Data on the devices, checked against the sums of the checksum tree (`BTRFS_EXTENT_CSUM_KEY`).

use super::Files;
use super::inode::Inode;
use crate::btrfs::devices::may_try_another;
use crate::btrfs::node::Key;
use imager_units::{Error, Result};
use std::ops::RangeInclusive;

const CHECKSUM_TREE: u64 = 7;
/// `BTRFS_EXTENT_CSUM_OBJECTID`, -10.
const SUMS: u64 = u64::MAX - 9;
const EXTENT_CSUM: u8 = 128;
/// That of CRC-32C.
const LEAST_SUM_BYTES: u64 = 4;

/// Reads `len` bytes at `logical` from the first copy that is in order.
///
/// # Errors
/// `Io`; `Corrupt` when no copy is.
pub(super) fn read(files: &Files<'_>, inode: &Inode, logical: u64, len: u64) -> Result<Vec<u8>> {
    let wrong = || inode.wrong("has an extent that cannot be");
    let sector = u64::from(files.sb.sectorsize);
    let is_aligned = |value: u64| value.checked_rem(sector) == Some(0);
    if !is_aligned(logical) || !is_aligned(len) {
        return Err(wrong());
    }
    let (_, chunk) = files.chunks.around(logical, len)?;
    let sums = if inode.has_sums { Some(sums(files, logical, len)?) } else { None };
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| wrong())?];
    let mut failure = wrong();
    for copy in 0..chunk.copies() {
        let read = files.devices.read(chunk, logical, copy, &mut bytes);
        match read.and_then(|()| check(files, sums.as_deref(), &bytes)) {
            Ok(()) => return Ok(bytes),
            Err(error) if may_try_another(&error) => failure = error,
            Err(error) => return Err(error),
        }
    }
    Err(failure)
}

fn check(files: &Files<'_>, sums: Option<&[Vec<u8>]>, bytes: &[u8]) -> Result<()> {
    let Some(sums) = sums else { return Ok(()) };
    let checksum = files.sb.checksum()?;
    let sector = usize::try_from(files.sb.sectorsize).unwrap_or(usize::MAX);
    let sectors = bytes.chunks(sector);
    let is_right = sectors.len() == sums.len()
        && sectors.zip(sums).all(|(sector, sum)| !sum.is_empty() && checksum.is_of(sum, sector));
    is_right.then_some(()).ok_or_else(|| Error::corrupt("the checksum of its data is wrong"))
}

/// The sums of the sectors of `len` bytes at `logical`; those that are missing are empty.
fn sums(files: &Files<'_>, logical: u64, len: u64) -> Result<Vec<Vec<u8>>> {
    let root = files.tree(CHECKSUM_TREE)?.ok_or_else(|| Error::corrupt("there is no checksum tree"))?;
    let sector = u64::from(files.sb.sectorsize);
    let sum_bytes = files.sb.checksum()?.bytes();
    let count = len.checked_div(sector).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let mut sums = vec![Vec::new(); count];
    files.walk(root, range(files, logical, len), &mut |key, data| {
        for (number, sum) in (0_u64..).zip(data.chunks_exact(sum_bytes)) {
            let at =
                number.checked_mul(sector).and_then(|by| key.offset.checked_add(by)?.checked_sub(logical));
            let place = at.and_then(|at| usize::try_from(at.checked_div(sector)?).ok());
            if let Some(slot) = place.and_then(|place| sums.get_mut(place)) {
                *slot = sum.to_vec();
            }
        }
        Ok(())
    })?;
    Ok(sums)
}

/// The keys of items that may hold sums of these bytes: an item is no longer than a node.
fn range(files: &Files<'_>, logical: u64, len: u64) -> RangeInclusive<Key> {
    let sums = u64::from(files.sb.nodesize).checked_div(LEAST_SUM_BYTES).unwrap_or(0);
    let most = sums.saturating_mul(files.sb.sectorsize.into());
    let key = |at| Key::new(SUMS, EXTENT_CSUM, at);
    key(logical.saturating_sub(most))..=key(logical.saturating_add(len))
}
