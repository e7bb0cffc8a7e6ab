//! What lies outside volumes: boot code, gaps between partitions, and the table itself.
//!
//! Blocks that share sectors with the table are written byte by byte and never through the table's own sectors; the
//! table goes last, its first sector very last, so that a disk that is half done is not divided.

use super::plan::DiskPlan;
use super::target::{Writer, window};
use super::volume::{self, Job, Outcome, ReadBack};
use crate::map::{BLOCK, MapReader, block_extent};
use crate::monitor::Monitor;
use crate::repository::Repository;
use imager_disk::table::Table;
use imager_disk::{Access, Device, ReadAt, WriteAt};
use imager_image::frame::FrameKind;
use imager_image::manifest::Map;
use imager_image::node::Content;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result};
use std::sync::Arc;

/// The boot code of an MBR, before the disk's signature.
const BOOT_CODE_BYTES: u64 = 440;
/// How much is cleared at both ends of a disk that is made anew.
const WIPE: ByteLen = ByteLen::new(1 << 20);

/// The captured bytes of `extent`, as far as they are in `wanted`; each run with its place.
fn read_map(repository: &Repository, map: &Map, wanted: &ExtentSet) -> Result<Vec<(ByteOffset, Vec<u8>)>> {
    let mut nodes = MapReader::new(repository.frames()?, map)?;
    let mut frames = repository.frames()?;
    let mut pieces = Vec::new();
    for run in wanted.iter() {
        let mut at = run.start();
        while at < run.end() {
            let index = at.get() / BLOCK.get();
            let block = block_extent(index, nodes.size());
            let part = block.intersection(run);
            let entry = nodes.entry(index)?;
            let from = part.start().saturating_since(block.start()).to_usize().unwrap_or(usize::MAX);
            let len = part.len().to_usize().unwrap_or(0);
            match entry.content {
                Content::Zero => pieces.push((part.start(), vec![0; len])),
                Content::Data(id, location) => {
                    let frame = frames.open(FrameKind::Blocks, &location)?;
                    let start = usize::try_from(location.at).unwrap_or(usize::MAX);
                    let whole = block.len().to_usize().unwrap_or(0);
                    let bytes = frame.get(start..).and_then(|rest| rest.get(..whole));
                    let bytes = bytes.filter(|bytes| repository.keys().block_id(bytes) == id);
                    let bytes = bytes.ok_or_else(|| Error::corrupt(format!("the block at {block}")))?;
                    pieces.push((part.start(), bytes.get(from..from + len).unwrap_or_default().to_vec()));
                }
                Content::Unused | Content::Unreadable => {}
            }
            at = part.end();
        }
    }
    Ok(pieces)
}

/// Writes pieces where they differ, flushes, reads them back; says what was written.
fn write_pieces(
    target: &dyn WriteAt,
    pieces: &[(ByteOffset, Vec<u8>)],
    read_back: ReadBack,
) -> Result<ExtentSet> {
    let mut written = ExtentSet::new();
    for (at, bytes) in pieces {
        if !holds(target, *at, bytes).unwrap_or(false) {
            target.write_all_at(*at, bytes)?;
            written.insert(Extent::between(*at, at.saturating_add(ByteLen::of(bytes))));
        }
    }
    if written.is_empty() {
        return Ok(written);
    }
    target.flush()?;
    for (at, bytes) in pieces.iter().filter(|_| read_back == ReadBack::Yes) {
        if !holds(target, *at, bytes)? {
            let what = format!("the disk does not hold what was written to it at {at}");
            return Err(Error::new(ErrorKind::Io, what));
        }
    }
    Ok(written)
}

fn holds(target: &(impl ReadAt + ?Sized), at: ByteOffset, bytes: &[u8]) -> Result<bool> {
    let mut there = vec![0; bytes.len()];
    target.read_exact_at(at, &mut there)?;
    Ok(there == bytes)
}

/// The bytes outside volumes that a machine boots with: the code in sector 0 and, on an MBR disk, the gap behind it.
fn boot_code(plan: &DiskPlan) -> ExtentSet {
    let mut code = ExtentSet::from(Extent::first(ByteLen::new(BOOT_CODE_BYTES)));
    if plan.disk.table.kind == "mbr" {
        let first = plan.volumes.iter().map(|v| v.extent.start());
        let others = plan.untouched.iter().map(|(_, extent)| extent.start());
        let resets = plan.swap_resets.iter().map(|reset| reset.extent.start());
        let parts = plan.parts.iter().map(|part| part.start());
        let gap_end = first.chain(others).chain(resets).chain(parts).min().unwrap_or_default();
        let sector = ByteOffset::new(plan.disk.logical_sector_bytes.into());
        code.insert(Extent::between(sector, gap_end));
    }
    table_sectors(plan, &code)
}

/// `wanted` without the sectors of the captured table, but for the boot code in sector 0.
fn table_sectors(plan: &DiskPlan, wanted: &ExtentSet) -> ExtentSet {
    let sector = ByteLen::new(plan.disk.logical_sector_bytes.into());
    let areas = plan.disk.table.raw.iter().filter(|raw| raw.start_byte != 0).filter_map(|raw| {
        let len = ByteLen::new(
            (raw.base64.len() as u64 / 4 * 3).div_ceil(sector.get()).saturating_mul(sector.get()),
        );
        Extent::new(ByteOffset::new(raw.start_byte), len)
    });
    wanted.difference(&areas.collect())
}

/// Puts the boot code back onto a disk that keeps its table.
///
/// # Errors
/// `Corrupt` when it is damaged in the repository; `Io` from the target.
pub(super) fn restore_boot_code(
    repository: &Repository,
    plan: &DiskPlan,
    disk: &Writer,
    read_back: ReadBack,
) -> Result<ExtentSet> {
    let pieces = read_map(repository, &plan.disk.remainder, &boot_code(plan))?;
    write_pieces(disk, &pieces, read_back)
}

/// Whether the boot code on the disk is the captured one; what cannot be read is not.
///
/// # Errors
/// `Corrupt` when it is damaged in the repository; `Io`, `Denied` when the target cannot be opened.
pub(super) fn boot_code_matches(repository: &Repository, plan: &DiskPlan) -> Result<bool> {
    let pieces = read_map(repository, &plan.disk.remainder, &boot_code(plan))?;
    let target = &plan.target;
    let disk = Device::open(&target.path, Access::ReadDirect, Some(target.geometry.logical))?;
    Ok(pieces.iter().all(|(at, bytes)| holds(&disk, *at, bytes).unwrap_or(false)))
}

/// Makes a disk unrecognisable before it is made anew.
///
/// # Errors
/// `Io` from the target.
pub(super) fn wipe(disk: &Writer) -> Result<()> {
    let size = disk.geometry().size;
    let end = ByteOffset::new(size.get());
    disk.zero(Extent::first(size.min(WIPE)))?;
    disk.zero(Extent::between(ByteOffset::new(size.saturating_sub(WIPE).get()), end))?;
    disk.flush()
}

/// Writes everything outside volumes but the table.
///
/// # Errors
/// As [`volume::run`].
pub(super) fn restore_remainder(
    repository: &Repository,
    plan: &DiskPlan,
    disk: &Arc<Writer>,
    read_back: ReadBack,
    monitor: &dyn Monitor,
) -> Result<Outcome> {
    let size = ByteLen::new(plan.disk.remainder.size_bytes);
    let bounds = Extent::first(size);
    let Some(table) = &plan.table else { return Ok(Outcome { is_complete: true, ..Outcome::default() }) };
    let outside = table.covered().complement(bounds);
    let areas: ExtentSet =
        captured_areas(plan).union(&areas_of(table)).intersection(&ExtentSet::from(bounds));
    let edges = areas.align_out(BLOCK, bounds.end());
    let target = window(disk, bounds)?;
    let job = Job {
        label: format!("{}:remainder", plan.disk.number),
        map: &plan.disk.remainder,
        target: &target,
        head: ExtentSet::new(),
        only: Some(outside.difference(&edges)),
        read_back,
    };
    let mut outcome = volume::run(repository, &job, monitor)?;
    let beside = edges.intersection(&outside).difference(&areas);
    let pieces = read_map(repository, &plan.disk.remainder, &beside)?;
    let written = write_pieces(&target, &pieces, read_back)?;
    outcome.written = outcome.written.saturating_add(written.total());
    Ok(outcome)
}

/// Where the captured disk had its table, as far as that is known byte for byte.
fn captured_areas(plan: &DiskPlan) -> ExtentSet {
    plan.disk
        .table
        .raw
        .iter()
        .filter_map(|raw| {
            let padding = raw.base64.bytes().rev().take_while(|b| *b == b'=').count() as u64;
            let len = (raw.base64.len() as u64 / 4 * 3).saturating_sub(padding);
            Extent::new(ByteOffset::new(raw.start_byte), ByteLen::new(len))
        })
        .collect()
}

fn areas_of(table: &Table) -> ExtentSet {
    let area = |raw: &imager_disk::table::RawArea| Extent::new(raw.start, ByteLen::of(&raw.bytes));
    table.raw.iter().filter_map(area).collect()
}

/// Writes the table, sector 0 last.
///
/// # Errors
/// `Io` when the target fails or does not hold what was written.
pub(super) fn write_table(disk: &Writer, table: &Table, read_back: ReadBack) -> Result<ExtentSet> {
    let pieces = |first: bool| {
        let areas = table.raw.iter().filter(|raw| (raw.start == ByteOffset::ZERO) == first);
        areas.map(|raw| (raw.start, raw.bytes.clone())).collect::<Vec<_>>()
    };
    let rest = write_pieces(disk, &pieces(false), read_back)?;
    let boot = write_pieces(disk, &pieces(true), read_back)?;
    Ok(rest.union(&boot))
}
