//! Directory entries (specification, sections 6 and 7), of which only what says where clusters are is read.

use super::table::{Allocation, Table};
use crate::bytes::Bytes;
use imager_units::{ByteLen, Extent, Result};

const ENTRY_BYTES: usize = 32;
/// How much of a directory is read at once.
const PIECE_BYTES: ByteLen = ByteLen::new(64 << 10);
const IN_USE: u8 = 0x80;

pub(super) const END: u8 = 0;
pub(super) const ALLOCATION_BITMAP: u8 = 0x81;
pub(super) const UPCASE_TABLE: u8 = 0x82;
pub(super) const VOLUME_LABEL: u8 = 0x83;
pub(super) const FILE: u8 = 0x85;
pub(super) const STREAM_EXTENSION: u8 = 0xC0;

/// Calls `visit` with the type and the bytes of every entry in use, up to the mark that none follow.
///
/// # Errors
/// `Io`; `Corrupt` when the chain of the directory is; whatever `visit` returns.
pub(super) fn each_entry(
    table: &mut Table<'_>,
    directory: Allocation,
    mut visit: impl FnMut(&mut Table<'_>, u8, Bytes<'_>) -> Result<()>,
) -> Result<()> {
    let mut runs = directory.runs();
    let mut buffer = Vec::new();
    while let Some(run) = runs.next(table)? {
        let mut at = run.start();
        while at < run.end() && !table.is_spent() {
            let piece = Extent::between(at, at.saturating_add(PIECE_BYTES).min(run.end()));
            table.read(piece, &mut buffer)?;
            for entry in buffer.chunks_exact(ENTRY_BYTES).map(Bytes) {
                match entry.byte(0).unwrap_or(END) {
                    END => return Ok(()),
                    kind if kind & IN_USE != 0 => visit(table, kind, entry)?,
                    _ => {}
                }
            }
            at = piece.end();
        }
    }
    Ok(())
}
