//! The used map: the bits of `$Bitmap`, and proof that they are not behind the files.
//!
//! NTFS has neither checksums nor a count of free clusters, so the master file table is read (as ntfsclone and chkdsk
//! do): a cluster that any attribute lies in and that is not in the bitmap makes the volume whole. ntfs-3g does not
//! mark a volume that it writes as in use; this finds what a power cut left behind even so.

use super::record::Record;
use super::stream::{Stream, Table};
use crate::bitmap::runs;
use crate::gather::Gather;
use crate::{Certainty, UsedMap};
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, ExtentSet, Result};

const BITMAP: u64 = 6;
/// How much of the bitmap and of the table is read at once; a multiple of every record's size.
const READ_BYTES: u64 = 1 << 20;
/// How much of the table is looked at: a million files. More would keep whoever only asks what is on a disk waiting.
const MOST_TABLE_BYTES: u64 = 1 << 30;
/// The smallest and the largest grain of a mask.
const UNITS: std::ops::RangeInclusive<u64> = 512..=65_536;

/// Maps the volume.
///
/// # Errors
/// `Io`; `Corrupt` when the bitmap is too short or lacks clusters that are in use.
pub(super) fn map(volume: &dyn ReadAt, table: &Table<'_>) -> Result<UsedMap> {
    let bitmap = table.data_of(BITMAP)?;
    let mut used = bits(table, &bitmap)?;
    let layout = table.layout;
    used.push(Extent::between(layout.extent(0, layout.clusters).end(), volume.geometry().extent().end()));
    let extents = used.finish();
    check(table, &extents)?;
    let unit = ByteLen::new(layout.cluster_bytes.clamp(*UNITS.start(), *UNITS.end()));
    Ok(UsedMap { extents, unit, certainty: Certainty::Exact })
}

fn bits(table: &Table<'_>, bitmap: &Stream) -> Result<Gather> {
    let layout = table.layout;
    let mut used = Gather::default();
    let len = layout.clusters.div_ceil(8);
    if bitmap.len < len {
        return Err(Error::corrupt("the bitmap of clusters ($Bitmap) is shorter than the filesystem"));
    }
    let mut at = 0_u64;
    while at < len {
        let bytes = table.read(bitmap, at, READ_BYTES.min(len.saturating_sub(at)))?;
        let first = at.saturating_mul(8);
        runs(&bytes, layout.clusters.saturating_sub(first), |from, to| {
            used.push(layout.extent(first.saturating_add(from), first.saturating_add(to)));
        });
        at = at.saturating_add(READ_BYTES);
    }
    Ok(used)
}

/// Every cluster of every attribute is in the map.
fn check(table: &Table<'_>, used: &ExtentSet) -> Result<()> {
    let len = usize::try_from(table.layout.record_bytes).unwrap_or(usize::MAX);
    let end = table.records().saturating_mul(table.layout.record_bytes).min(MOST_TABLE_BYTES);
    let (mut at, mut number) = (0_u64, 0_u64);
    while at < end {
        let bytes = table.read(&table.data, at, READ_BYTES.min(end.saturating_sub(at)))?;
        for bytes in bytes.chunks_exact(len) {
            if let Some(record) = Record::parse(number, bytes.to_vec())? {
                check_record(table, &record, used)?;
            }
            number = number.saturating_add(1);
        }
        at = at.saturating_add(READ_BYTES);
    }
    Ok(())
}

fn check_record(table: &Table<'_>, record: &Record, used: &ExtentSet) -> Result<()> {
    let layout = table.layout;
    for attribute in record.attributes()?.into_iter().filter(|attribute| attribute.is_outside()) {
        attribute.runs(layout, |run| match run.lcn {
            Some(lcn) if !used.contains(layout.extent(lcn, lcn.saturating_add(run.len))) => {
                Err(record.wrong("has clusters that the bitmap ($Bitmap) calls free"))
            }
            _ => Ok(()),
        })?;
    }
    Ok(())
}
