//! The used map: the allocation bitmap (specification, section 7.1.5), and everything outside the cluster heap.

use super::root::Root;
use super::table::Table;
use crate::bitmap::runs;
use crate::gather::Gather;
use crate::read::read_into;
use imager_units::{ByteLen, Extent, ExtentSet, Result};

/// How much of the bitmap is read at once.
const READ_BYTES: ByteLen = ByteLen::new(1 << 20);

/// Everything that is in use.
///
/// # Errors
/// `Io`; `Corrupt` or `Unsupported` when the bitmap cannot be read to its end.
pub(super) fn map(table: &mut Table<'_>, root: &Root) -> Result<ExtentSet> {
    let (volume, layout) = (table.volume, table.layout);
    let mut used = Gather::default();
    used.push(Extent::first(layout.heap_start.saturating_since(Default::default())));
    let mut cluster = 2_u64;
    let end = layout.clusters.saturating_add(2);
    let mut pieces = root.bitmap.runs();
    let mut buffer = Vec::new();
    while let Some(run) = pieces.next(table)? {
        let mut at = run.start();
        while at < run.end() && cluster < end {
            let piece = Extent::between(at, at.saturating_add(READ_BYTES).min(run.end()));
            read_into(volume, piece, &mut buffer)?;
            runs(&buffer, end.saturating_sub(cluster), |from, to| {
                used.push(layout.cluster_run(cluster.saturating_add(from), cluster.saturating_add(to)));
            });
            cluster = cluster.saturating_add(piece.len().get().saturating_mul(8));
            at = piece.end();
        }
    }
    table.ensure_unspent("the allocation bitmap")?;
    used.push(Extent::between(layout.heap_end(), volume.geometry().extent().end()));
    Ok(used.finish())
}
