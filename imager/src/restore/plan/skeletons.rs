//! A skeleton has no data, so it never takes the place of a filesystem that may have some, unless a person says so.

use super::refuse::denied;
use super::{DiskPlan, Plan, Request, VolumePlan, is_called};
use imager_disk::{Segment, Window};
use imager_image::manifest::{Mode, Volume};
use imager_units::{Error, ErrorKind, Extent, Result};
use imager_volume::Filesystem;
use std::sync::Arc;

/// Whether every skeleton that is planned comes to a place where nothing is, or where what is may go.
///
/// # Errors
/// `Denied` with what is there; `Invalid` when a volume is to be given up for no skeleton; `Io`.
pub(super) fn check(plan: &Plan, request: &Request) -> Result<()> {
    let all = || plan.disks.iter().flat_map(|disk| disk.volumes.iter().map(move |volume| (disk, volume)));
    let skeletons = || all().filter(|(_, planned)| planned.volume.mode == Mode::Skeleton);
    for key in &request.erase_volumes {
        if !skeletons().any(|(_, planned)| is_called(&planned.volume, key)) {
            let what = format!(
                "--erase-volume {key}: the plan puts no skeleton there, so nothing has to be given up"
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
    }
    for (disk, planned) in skeletons() {
        let volume = &planned.volume;
        if request.erase_volumes.iter().any(|key| is_called(volume, key)) {
            continue;
        }
        if let Some(found) = there(plan, disk, planned)? {
            let what = format!(
                "holds {found} where volume {0} goes, of which the capture has the structure alone: its data would be lost. \
                 --erase-volume {0} gives them up; without --bare-metal or --volume {0} they stay",
                volume.key
            );
            return Err(denied(&disk.target, what));
        }
    }
    Ok(())
}

/// What is recognised in a volume's place: from its beginning, or in what the target's own table has there.
fn there(plan: &Plan, disk: &DiskPlan, planned: &VolumePlan) -> Result<Option<String>> {
    if let Some(found) = at(plan, &planned.volume)? {
        return Ok(Some(described(&found)));
    }
    // A table that cannot be read tells of no volume.
    let Ok(seen) = disk.target.survey(disk.disk.number) else { return Ok(None) };
    let pieces = || planned.volume.segments.iter().filter(|piece| piece.disk == disk.disk.number);
    let overlaps = |extent: Extent| pieces().any(|piece| piece.extent().overlaps(extent));
    let found = seen.volumes.iter().filter(|volume| volume.pieces.iter().any(|piece| overlaps(piece.extent)));
    Ok(found.filter_map(|volume| volume.filesystem.as_ref()).map(described).next())
}

/// What begins where a volume will begin.
fn at(plan: &Plan, volume: &Volume) -> Result<Option<Filesystem>> {
    let mut readers = Vec::new();
    let mut segments = Vec::new();
    for piece in &volume.segments {
        let target = plan.disks.iter().find(|disk| disk.disk.number == piece.disk);
        let Some(target) = target.map(|disk| &disk.target) else { break };
        let extent = piece.extent().intersection(target.geometry.extent());
        if extent.is_empty() {
            break;
        }
        segments.push(Segment { disk: readers.len(), extent });
        readers.push(Arc::clone(&target.reader));
    }
    if segments.is_empty() {
        return Ok(None);
    }
    imager_volume::probe(&Window::new(readers, segments)?)
}

fn described(found: &Filesystem) -> String {
    match (&found.label, &found.uuid) {
        (Some(label), _) => format!("{} {label:?}", found.kind),
        (None, Some(uuid)) => format!("{} {uuid}", found.kind),
        (None, None) => found.kind.to_owned(),
    }
}
