//! Whether the log has anything to add to what lies in place.
//!
//! The kernel replays what lies between the log's tail and its head, unless the last record is that of an unmount
//! (fs/xfs/xfs_log_recover.c, `xlog_find_tail`). We find head and last record as it does and are stricter with what
//! lies around: anything that a crash may have left makes the volume whole. A filesystem that is frozen, or idle for a
//! while, has *covered* its log instead (`xfs_log_cover`): what would be replayed then is only the superblock.

mod pending;
mod record;
mod ring;
#[cfg(test)]
mod tests;

use super::layout::Layout;
use super::superblock::Superblock;
use imager_disk::ReadAt;
use imager_units::{Error, Result};
use pending::Pending;
use record::Record;
use ring::Recent;
#[cfg(test)]
pub(super) use tests::Writer;

/// Why a log adds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// Its last record is that of an unmount.
    Unmounted,
    /// What would be replayed is the superblock as it is, but for counters that the kernel will count anew.
    Covered,
}

/// Reads the log of a filesystem that has it inside.
///
/// # Errors
/// `Io`; `Corrupt` when there is something to be replayed, or the log is damaged.
pub(super) fn read(volume: &dyn ReadAt, sb: &Superblock, layout: &Layout) -> Result<Log> {
    if was_cleared(volume, sb, layout)? {
        return Ok(Log::Unmounted);
    }
    let recent = Recent::read(volume, layout.log)?;
    let (at, last) = last_record(&recent, sb)?;
    if at.saturating_add(last.blocks) != recent.blocks() {
        return Err(unclean("the last record of its log was not written to its end"));
    }
    if last.is_of_unmount() {
        return Ok(Log::Unmounted);
    }
    let mut changes = Pending::new(&sb.bytes);
    for record in pending_records(&recent, last.h_tail_lsn, sb)? {
        changes.read(&record).ok_or_else(|| unclean("its log holds changes that are not in place yet"))?;
    }
    match changes.is_complete() {
        true => Ok(Log::Covered),
        false => Err(unclean("the last change in its log was not written to its end")),
    }
}

/// Whether nothing was written since xfs_repair or xfs_db cleared the log (`libxfs_log_clear`): at its start the record
/// of an unmount, then blocks of zeros, then blocks of the turn before. The kernel takes that for an unmount too.
fn was_cleared(volume: &dyn ReadAt, sb: &Superblock, layout: &Layout) -> Result<bool> {
    let (start, end) = ring::edges(volume, layout.log)?;
    let turn = ring::cycle(&start);
    let Some(record) = Record::parse(&start, u64::from(turn) << 32, sb) else { return Ok(false) };
    let cycles = |bytes: &'_ [u8]| bytes.chunks(ring::BASIC_BLOCK_BYTES).map(ring::cycle).collect::<Vec<_>>();
    let behind = cycles(&start).split_off(record.blocks);
    let has_zeros = behind.first() == Some(&0);
    let mut older = behind.into_iter().skip_while(|&cycle| cycle == 0).chain(cycles(&end));
    Ok(record.is_of_unmount() && has_zeros && older.all(|cycle| cycle == turn.wrapping_sub(1)))
}

fn unclean(why: &str) -> Error {
    Error::corrupt(format!("it was not unmounted: {why}"))
}

/// The last record that begins in front of the head, and where.
fn last_record(recent: &Recent, sb: &Superblock) -> Result<(usize, Record)> {
    let at = (0..recent.blocks()).rev().find(|&at| Record::is_at(recent.from(at)));
    let at = at.ok_or_else(|| unclean("its log has no record"))?;
    let record = Record::parse(recent.from(at), recent.lsn(at), sb);
    Ok((at, record.ok_or_else(|| unclean("the last record of its log is damaged or incomplete"))?))
}

/// All records that the kernel would replay: those from `tail` on.
fn pending_records(recent: &Recent, tail: u64, sb: &Superblock) -> Result<Vec<Record>> {
    let mut at =
        recent.find(tail).ok_or_else(|| unclean("its log holds many changes that are not in place yet"))?;
    let mut records = Vec::new();
    while at < recent.blocks() {
        let record = Record::parse(recent.from(at), recent.lsn(at), sb);
        let record = record.ok_or_else(|| unclean("a record of its log is damaged or incomplete"))?;
        at = at.saturating_add(record.blocks);
        records.push(record);
    }
    Ok(records)
}
