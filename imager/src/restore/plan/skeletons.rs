//! A skeleton has no data, so it never takes the place of a filesystem that may have some, unless a person says so. One that
//! is there already, from a restore that was interrupted, has none.

use super::refuse::denied;
use super::{DiskPlan, Plan, Request, VolumePlan, is_called};
use crate::repository::Repository;
use crate::view::{CaptureView, DiskView, Status};
use imager_disk::{ReadAt, Segment, Window};
use imager_image::manifest::{Manifest, Mode, Volume};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use imager_volume::Filesystem;
use std::sync::Arc;

/// What is compared at once, in bytes.
const PIECE: usize = 1 << 20;

/// Whether every skeleton that is planned comes to a place where nothing is, or where what is may go.
///
/// # Errors
/// `Denied` with what is there; `Invalid` when a volume is to be given up for no skeleton; `Io`.
pub(super) fn check(
    repository: &Repository,
    manifest: &Manifest,
    plan: &Plan,
    request: &Request,
) -> Result<()> {
    let view = CaptureView::new(repository, manifest.clone());
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
        if let Some(found) = there(&view, plan, disk, planned)? {
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
fn there(
    view: &CaptureView<'_>,
    plan: &Plan,
    disk: &DiskPlan,
    planned: &VolumePlan,
) -> Result<Option<String>> {
    if let Some(place) = place(plan, &planned.volume)?
        && let Some(found) = imager_volume::probe(&place)?
    {
        let is_ours = found.uuid.is_some() && found.uuid == planned.volume.uuid;
        let is_same = is_ours && is_there(&view.volume(&planned.volume.key)?, &place)?;
        return Ok((!is_same).then(|| described(&found)));
    }
    // A table that cannot be read tells of no volume.
    let Ok(seen) = disk.target.survey(disk.disk.number) else { return Ok(None) };
    let pieces = || planned.volume.segments.iter().filter(|piece| piece.disk == disk.disk.number);
    let overlaps = |extent: Extent| pieces().any(|piece| piece.extent().overlaps(extent));
    let found = seen.volumes.iter().filter(|volume| volume.pieces.iter().any(|piece| overlaps(piece.extent)));
    Ok(found.filter_map(|volume| volume.filesystem.as_ref()).map(described).next())
}

/// Whether all that counts of a captured volume is in its place, byte for byte.
fn is_there(captured: &DiskView<'_>, place: &dyn ReadAt) -> Result<bool> {
    let whole = captured.geometry().extent();
    if place.geometry().extent() != whole {
        return Ok(false);
    }
    let counts = captured.extents(whole)?.into_iter().filter(|(_, status)| *status != Status::Unused);
    let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
    for (extent, _) in counts {
        let mut rest = extent;
        while !rest.is_empty() {
            let len = rest.len().min(ByteLen::new(PIECE as u64));
            let [expected, found] = &mut buffers;
            let len_bytes = len.to_usize().unwrap_or(0);
            let (expected, found) = (&mut expected[..len_bytes], &mut found[..len_bytes]);
            captured.read_exact_at(rest.start(), expected)?;
            place.read_exact_at(rest.start(), found)?;
            if expected != found {
                return Ok(false);
            }
            rest = Extent::between(rest.start().saturating_add(len), rest.end());
        }
    }
    Ok(true)
}

/// Where a volume will be, as it is now; what of it the targets do not have yet is left out.
fn place(plan: &Plan, volume: &Volume) -> Result<Option<Window<Arc<dyn ReadAt>>>> {
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
    Window::new(readers, segments).map(Some)
}

fn described(found: &Filesystem) -> String {
    match (&found.label, &found.uuid) {
        (Some(label), _) => format!("{} {label:?}", found.kind),
        (None, Some(uuid)) => format!("{} {uuid}", found.kind),
        (None, None) => found.kind.to_owned(),
    }
}
