//! The devices of one filesystem: they are of one moment, or the filesystem is lost. All of them go back, or none.
//!
//! How many there are each says itself, in the head that was captured. A device that stays behind would be taken for one
//! of the restored ones, whether it was never captured or came to the filesystem since.

use super::{DiskPlan, Plan, Scope};
use crate::repository::Repository;
use crate::view::CaptureView;
use imager_image::manifest::{Manifest, Volume};
use imager_units::{Error, ErrorKind, Extent, Result};
use imager_volume::Member;
use std::collections::BTreeMap;

/// Devices that are planned, by filesystem: how many it has, and their keys.
type Sets = BTreeMap<String, (u64, Vec<String>)>;

/// Refuses what would leave devices of different moments; a disk that is made anew may hold what is not complete.
///
/// # Errors
/// `Denied`; those of reading the capture and the targets.
pub(super) fn check(repository: &Repository, manifest: &Manifest, plan: &mut Plan) -> Result<()> {
    let planned: Vec<Volume> =
        plan.disks.iter().flat_map(|disk| &disk.volumes).map(|planned| planned.volume.clone()).collect();
    check_together(manifest, &planned)?;
    let sets = sets(repository, manifest, &planned)?;
    let in_place = plan.disks.iter().any(|disk| disk.scope == Scope::InPlace);
    for (of, keys) in sets.values() {
        if u64::try_from(keys.len()) == Ok(*of) {
            continue;
        }
        let what = incomplete(*of, keys);
        if in_place {
            return Err(denied(format!(
                "{what}: put back beside the others as they are now it would be lost. Capture all its disks together; \
                 --bare-metal puts what there is onto disks made anew"
            )));
        }
        plan.warnings.push(format!("{what}: without the others it cannot be used"));
    }
    if sets.is_empty() {
        return Ok(());
    }
    plan.disks.iter().filter(|disk| disk.scope == Scope::InPlace).try_for_each(|disk| check_live(disk, &sets))
}

fn incomplete(of: u64, keys: &[String]) -> String {
    let volumes = if keys.len() == 1 { "volume" } else { "volumes" };
    format!(
        "the filesystem of {volumes} {} lies on {of} devices, of which the capture has {}",
        keys.join(" and "),
        keys.len()
    )
}

fn denied(what: String) -> Error {
    Error::new(ErrorKind::Denied, what)
}

/// All volumes of a filesystem that were captured are planned, or none.
fn check_together(manifest: &Manifest, planned: &[Volume]) -> Result<()> {
    for volume in planned.iter().filter(|volume| volume.filesystem.as_deref() == Some("btrfs")) {
        let of_set = |other: &&Volume| other.filesystem == volume.filesystem && other.uuid == volume.uuid;
        let set: Vec<_> = manifest.volumes.iter().filter(of_set).collect();
        if set.iter().all(|member| planned.iter().any(|planned| planned.key == member.key)) {
            continue;
        }
        let keys: Vec<_> = set.iter().map(|member| member.key.as_str()).collect();
        let options: Vec<_> = keys.iter().map(|key| format!("--volume {key}")).collect();
        return Err(denied(format!(
            "volumes {} are one filesystem, which is lost when only some of them go back: restore them together ({}, and \
             --to for each of their disks)",
            keys.join(" and "),
            options.join(" ")
        )));
    }
    Ok(())
}

/// What the planned devices say of their filesystems.
fn sets(repository: &Repository, manifest: &Manifest, planned: &[Volume]) -> Result<Sets> {
    let view = CaptureView::new(repository, manifest.clone());
    let mut sets = Sets::new();
    for volume in planned.iter().filter(|volume| volume.filesystem.as_deref() == Some("btrfs")) {
        if let Some(Member { set, of, .. }) = captured_member(&view, volume)? {
            sets.entry(set).or_insert((of, Vec::new())).1.push(volume.key.clone());
        }
    }
    Ok(sets)
}

/// Which device a captured volume is. One whose head is damaged in the repository does not get it back either, so nobody
/// will take it for one.
fn captured_member(view: &CaptureView<'_>, volume: &Volume) -> Result<Option<Member>> {
    match view.volume(&volume.key).and_then(|bytes| imager_volume::member(&bytes)) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        member => member,
    }
}

/// The filesystem as it is on the target has no devices but those that are overwritten.
fn check_live(disk: &DiskPlan, sets: &Sets) -> Result<()> {
    let seen = match disk.target.survey(disk.disk.number) {
        Ok(seen) => seen,
        // Without a table or with a damaged one it holds no devices.
        Err(error) if error.kind() == ErrorKind::Corrupt || disk.target.geometry.size.is_zero() => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for volume in &seen.volumes {
        let Some(member) = &volume.member else { continue };
        let Some((of, keys)) = sets.get(&member.set) else { continue };
        let target = disk.target.path.display();
        if member.of != *of {
            return Err(denied(format!(
                "the filesystem of volume {} has {} devices on {target} now, and had {of} when it was captured: those that \
                 are not overwritten would be taken for its own. Make it one of these {of} again, or wipe its other devices \
                 (wipefs -a)",
                keys.join(" and "),
                member.of
            )));
        }
        if !is_planned(disk, volume.extent) {
            return Err(denied(format!(
                "volume {} of {target} is a device of the filesystem that is put back to volume {}, and was none when it \
                 was captured: wipe it (wipefs -a) if it is of no use",
                volume.key,
                keys.join(" and ")
            )));
        }
    }
    Ok(())
}

fn is_planned(disk: &DiskPlan, extent: Extent) -> bool {
    disk.volumes.iter().any(|planned| planned.extent == extent)
}
