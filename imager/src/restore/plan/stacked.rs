//! Volumes that are made of others: logical volumes go back through the physical ones, members of an array together.
//!
//! Where a logical volume lies was true when it was captured. Before one is written, the group on the targets must be
//! the captured one with the volume in the same place, or what is written could be another volume's.

use super::{DiskPlan, Plan, Scope, SwapReset, swap_reset};
use crate::survey::{self, Assigned, Source, Survey};
use imager_image::manifest::{Manifest, Role, Segment, Stack, Volume};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use imager_volume::Certainty;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Whether a volume is a logical volume.
pub(super) fn is_logical(volume: &Volume) -> bool {
    matches!(volume.stack, Some(Stack::Logical { .. }))
}

/// Whether a volume does nothing but hold others: it goes back in place only when it is named.
pub(super) fn is_frame(volume: &Volume) -> bool {
    matches!(&volume.stack, Some(Stack::Physical { opaque, .. }) if opaque.is_empty())
}

/// Completes a plan by what only all its disks together tell.
///
/// # Errors
/// `Denied` when a volume group on the targets is not the captured one, or is active, or members of an array would
/// come to differ; `Corrupt` when the capture contradicts itself.
pub(super) fn settle(plan: &mut Plan, manifest: &Manifest) -> Result<()> {
    check_arrays(plan, manifest)?;
    let planned: Vec<Volume> =
        plan.disks.iter().flat_map(|disk| &disk.volumes).map(|v| v.volume.clone()).collect();
    for volume in planned.iter().filter(|volume| is_logical(volume)) {
        check_places(plan, manifest, volume)?;
    }
    let in_place = plan.disks.iter().all(|disk| disk.scope == Scope::InPlace);
    let concerned =
        |volume: &Volume| matches!(volume.stack, Some(Stack::Logical { .. } | Stack::Physical { .. }));
    if !in_place || !planned.iter().any(concerned) {
        return Ok(());
    }
    let seen = look(plan)?;
    for volume in &planned {
        check_group(&seen, manifest, &planned, volume)?;
    }
    let restores_os = planned.iter().any(|volume| volume.role == Role::Os);
    for disk in &mut plan.disks {
        claim(disk, manifest, &planned)?;
        leave(disk, &seen, &planned, restores_os)?;
        let parts = disk.parts.clone();
        disk.target.check_free_at(&parts)?;
    }
    Ok(())
}

fn denied(what: String) -> Error {
    Error::new(ErrorKind::Denied, what)
}

/// Members of one array must stay the same, or whoever reads it gets now one and now the other.
fn check_arrays(plan: &mut Plan, manifest: &Manifest) -> Result<()> {
    let planned: BTreeSet<_> =
        plan.disks.iter().flat_map(|d| &d.volumes).map(|v| v.volume.key.clone()).collect();
    let in_place = plan.disks.iter().any(|disk| disk.scope == Scope::InPlace);
    for volume in manifest.volumes.iter().filter(|volume| planned.contains(&volume.key)) {
        let Some(Stack::Member { array, members, .. }) = &volume.stack else { continue };
        let same =
            |other: &&Volume| matches!(&other.stack, Some(Stack::Member { array: its, .. }) if its == array);
        let captured: Vec<_> = manifest.volumes.iter().filter(same).map(|other| other.key.clone()).collect();
        let missing: Vec<_> = captured.iter().filter(|key| !planned.contains(*key)).cloned().collect();
        let all = captured.len() >= *members as usize;
        if missing.is_empty() && all {
            continue;
        }
        let what = match all {
            true => format!("volume {} is one of an array with volume {}", volume.key, missing.join(", ")),
            false => format!(
                "volume {} is one of an array with {members} members, not all of which were captured",
                volume.key
            ),
        };
        if in_place {
            return Err(denied(format!(
                "{what}: restored alone, it would differ from the others unnoticed. Name all of them"
            )));
        }
        plan.warnings.push(format!("{what}: it must not be assembled with a member of another state"));
    }
    Ok(())
}

/// Each piece of a logical volume lies in a physical volume of its group, on a disk that is a target and large enough.
fn check_places(plan: &Plan, manifest: &Manifest, volume: &Volume) -> Result<()> {
    let mut disks: Vec<_> = volume.segments.iter().map(|piece| piece.disk).collect();
    disks.sort_unstable();
    disks.dedup();
    for &number in &disks {
        let Some(disk) = plan.disks.iter().find(|disk| disk.disk.number == number) else {
            let all = disks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            return Err(denied(format!(
                "volume {} lies on disks {all}: name a target for each of them",
                volume.key
            )));
        };
        let size = disk.extend_to.unwrap_or(disk.target.geometry.size);
        let fits = |piece: &&Segment| piece.disk != number || Extent::first(size).contains(piece.extent());
        if !volume.segments.iter().all(|piece| fits(&piece)) {
            return Err(denied(format!(
                "{} is smaller than volume {} needs",
                disk.target.path.display(),
                volume.key
            )));
        }
    }
    let total: ByteLen = volume.segments.iter().map(|piece| piece.extent().len()).sum();
    if total.get() != volume.size_bytes
        || !volume.segments.iter().all(|piece| physical(manifest, volume, *piece).is_some())
    {
        return Err(Error::corrupt(format!("volume {} does not lie in its volume group", volume.key)));
    }
    Ok(())
}

/// The captured physical volume that a piece of a logical volume lies in.
fn physical<'m>(manifest: &'m Manifest, logical: &Volume, piece: Segment) -> Option<&'m Volume> {
    let group = group_of(logical)?;
    let holds = |volume: &&Volume| {
        let place = volume.segments.first().filter(|place| place.disk == piece.disk);
        matches!(volume.stack, Some(Stack::Physical { .. }))
            && group_of(volume) == Some(group)
            && !piece.extent().is_empty()
            && place.is_some_and(|place| place.extent().contains(piece.extent()))
    };
    manifest.volumes.iter().find(holds)
}

fn group_of(volume: &Volume) -> Option<&str> {
    match &volume.stack {
        Some(Stack::Physical { group_id, .. } | Stack::Logical { group_id, .. }) => Some(group_id),
        _ => None,
    }
}

/// All targets as they are now, looked at together.
fn look(plan: &Plan) -> Result<Survey> {
    let source = |disk: &DiskPlan| {
        let source =
            Source { device: Arc::clone(&disk.target.reader), identity: disk.target.identity.clone() };
        (disk.disk.number, source)
    };
    survey::survey(plan.disks.iter().map(source).collect(), &Assigned::new())
}

/// The group on the targets must be the captured one, as far as the volume has to do with it.
fn check_group(seen: &Survey, manifest: &Manifest, planned: &[Volume], volume: &Volume) -> Result<()> {
    match &volume.stack {
        Some(Stack::Logical { group, .. }) => {
            // Where the physical volumes go back too, they are looked at themselves.
            let mut under = volume.segments.iter().filter_map(|piece| physical(manifest, volume, *piece));
            if under.all(|physical| planned.iter().any(|planned| planned.key == physical.key)) {
                return Ok(());
            }
            if is_in_place(seen, volume) {
                return Ok(());
            }
            let keys: Vec<_> = manifest
                .volumes
                .iter()
                .filter(|v| is_frame(v) && group_of(v) == group_of(volume))
                .map(|v| format!("--volume {}", v.key))
                .collect();
            Err(denied(format!(
                "volume {} does not lie where it was captured: volume group {group} is not there, or was changed since. If \
                 its metadata was lost, name its physical volumes too ({}); --bare-metal makes the disks anew",
                volume.key,
                keys.join(" ")
            )))
        }
        Some(Stack::Physical { group, group_id, id, .. }) => {
            let there = seen.volumes.iter().find(|there| is_at(there, volume));
            let Some(there) =
                there.filter(|there| there.filesystem.as_ref().is_some_and(|f| f.kind == "LVM2_member"))
            else {
                return Ok(());
            };
            let same = matches!(&there.stack, Some(Stack::Physical { group_id: its, id: own, .. }) if its == group_id && own == id);
            let moved = manifest
                .volumes
                .iter()
                .filter(|v| is_logical(v) && group_of(v) == Some(group_id))
                .find(|v| !is_in_place(seen, v));
            let more = seen
                .volumes
                .iter()
                .filter(|v| matches!(&v.stack, Some(Stack::Logical { group_id: its, .. }) if its == group_id))
                .count()
                != manifest.volumes.iter().filter(|v| is_logical(v) && group_of(v) == Some(group_id)).count();
            if same && moved.is_none() && !more {
                return Ok(());
            }
            let why = match (&there.map, moved) {
                (Some(map), _) if !same && matches!(map.certainty, Certainty::Whole(_)) => {
                    "is not understood"
                }
                (_, Some(_)) if same => "has volumes in other places than were captured",
                _ if same => "has other volumes than were captured",
                _ => "is another one than was captured",
            };
            Err(denied(format!(
                "the volume group of which volume {} is a part ({group}) {why}: its metadata would take volumes away. \
                 --bare-metal makes the disks anew",
                volume.key
            )))
        }
        _ => Ok(()),
    }
}

/// Whether a captured logical volume is on the targets, in the same place.
fn is_in_place(seen: &Survey, volume: &Volume) -> bool {
    seen.volumes.iter().any(|there| {
        let pieces = there.pieces.iter().map(|piece| (piece.disk, piece.extent));
        there.stack == volume.stack
            && pieces.eq(volume.segments.iter().map(|piece| (piece.disk, piece.extent())))
    })
}

fn is_at(there: &survey::Volume, volume: &Volume) -> bool {
    let place = volume.segments.first().map(|piece| (piece.disk, piece.extent()));
    place == Some((there.disk, there.extent))
}

/// Adds the physical volumes under planned logical ones to what is written through.
fn claim(disk: &mut DiskPlan, manifest: &Manifest, planned: &[Volume]) -> Result<()> {
    for volume in planned.iter().filter(|volume| is_logical(volume)) {
        for piece in volume.segments.iter().filter(|piece| piece.disk == disk.disk.number) {
            let under = physical(manifest, volume, *piece).and_then(|physical| physical.segments.first());
            let under =
                under.ok_or_else(|| Error::corrupt(format!("volume {} lies nowhere", volume.key)))?.extent();
            if !disk.parts.contains(&under) {
                disk.parts.push(under);
            }
        }
    }
    Ok(())
}

/// What lies in a physical volume that is written through is left alone piece by piece; but for a hibernated system in
/// it, which must not wake up beside a restored one.
fn leave(disk: &mut DiskPlan, seen: &Survey, planned: &[Volume], restores_os: bool) -> Result<()> {
    let number = disk.disk.number;
    let parts = disk.parts.clone();
    let through = |extent: &Extent| parts.iter().any(|part| part.contains(*extent));
    disk.untouched.retain(|(_, extent)| !through(extent));
    for there in &seen.volumes {
        let is_planned = planned.iter().any(|volume| volume.key == there.key);
        match &there.stack {
            Some(Stack::Logical { .. }) if !is_planned => {}
            Some(Stack::Physical { .. }) if !is_planned && there.disk == number && through(&there.extent) => {
                let by = there.extent.start();
                let own = there.used()?.extents;
                let own = own.iter().map(|part| {
                    let start = by.saturating_add(part.start().saturating_since(Default::default()));
                    Extent::between(start, start.saturating_add(part.len()))
                });
                disk.untouched.extend(own.map(|part| (there.key.clone(), part)));
                continue;
            }
            _ => continue,
        }
        let reset = match restores_os {
            true => swap_reset(there)?.filter(|_| there.disk == number),
            false => None,
        };
        let here = there.pieces.iter().filter(|piece| piece.disk == number && through(&piece.extent));
        match reset {
            Some(reset) => disk.swap_resets.push(reset_at(there, reset, &disk.parts)?),
            None => disk.untouched.extend(here.map(|piece| (there.key.clone(), piece.extent))),
        }
    }
    Ok(())
}

/// The page of a hibernated system must lie in one piece, and be written through the physical volume that holds it.
fn reset_at(there: &survey::Volume, reset: SwapReset, parts: &[Extent]) -> Result<SwapReset> {
    if reset.page.len() as u64 > there.extent.len().get() {
        let what = format!(
            "swap volume {} holds a hibernated system and is in pieces too small to discard it: make it anew with mkswap",
            there.key
        );
        return Err(denied(what));
    }
    if !parts.iter().any(|part| part.contains(there.extent)) {
        let what = format!(
            "swap volume {} holds a hibernated system, on a physical volume that is not written: make it anew with mkswap",
            there.key
        );
        return Err(denied(what));
    }
    Ok(reset)
}
