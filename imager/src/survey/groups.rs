//! LVM: the physical volumes on all disks make volume groups, whose logical volumes are volumes.
//!
//! Only a group that is understood and all there is taken apart. Otherwise its physical volumes are copied whole, with
//! the reason: a logical volume of which a part is elsewhere is none, and one that is moving is in two places.

use super::{Piece, Survey, Volume, name_of};
use imager_disk::{ReadAt, Segment, Window};
use imager_image::manifest::{Role, Stack};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};
use imager_volume::lvm::{self, Group, Logical, Member, Shape};
use imager_volume::{Certainty, UsedMap, chain};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The grain of what lies around extents.
const SECTOR: ByteLen = ByteLen::new(512);

/// A physical volume by its place among the volumes.
struct Found {
    volume: usize,
    member: Member,
}

/// Adds the logical volumes on all disks, and the maps of physical volumes without them.
pub(super) fn look_into(survey: &mut Survey) -> Result<()> {
    let found = members(survey)?;
    let mut groups = Vec::new();
    let mut seen = BTreeSet::new();
    for text in found.iter().flat_map(|found| &found.member.metadata).filter(|text| seen.insert(*text)) {
        match Group::parse(text) {
            Ok(group) => groups.push(group),
            Err(error) => {
                let holders = found.iter().filter(|found| found.member.metadata.contains(text));
                let holders: Vec<_> = holders.map(|found| found.volume).collect();
                copied_whole(survey, &holders, &chain(&error));
            }
        }
    }
    for group in &groups {
        let own: Vec<_> =
            found.iter().filter(|found| group.physical.iter().any(|p| p.id == found.member.id)).collect();
        let volumes: Vec<_> = own.iter().map(|found| found.volume).collect();
        match check(group, &groups, &own).and_then(|()| take_apart(survey, group, &own)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                copied_whole(survey, &volumes, &chain(&error));
            }
            Err(error) => return Err(error),
        }
    }
    let rest: Vec<_> = found.iter().map(|found| found.volume).collect();
    copied_whole(survey, &rest, "it belongs to no volume group that was found");
    Ok(())
}

fn members(survey: &mut Survey) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut broken = Vec::new();
    for (number, volume) in survey.volumes.iter_mut().enumerate() {
        if volume.filesystem.as_ref().is_none_or(|found| found.kind != "LVM2_member") {
            continue;
        }
        match lvm::read(&*volume.bytes) {
            Ok(member) => {
                if let Some(filesystem) = &mut volume.filesystem {
                    filesystem.head = member.head.clone();
                }
                found.push(Found { volume: number, member });
            }
            Err(error) => broken.push((number, chain(&error))),
        }
    }
    for (number, why) in broken {
        copied_whole(survey, &[number], &why);
    }
    Ok(found)
}

/// Has volumes of which nothing else is known copied whole.
fn copied_whole(survey: &mut Survey, volumes: &[usize], why: &str) {
    for &number in volumes {
        if let Some(volume) = survey.volumes.get_mut(number).filter(|volume| volume.map.is_none()) {
            volume.map = Some(UsedMap::whole(volume.size(), format!("LVM2_member: {why}")));
        }
    }
}

/// Whether the group is the only one of its name, all of it is here, and all copies of its metadata say the same.
fn check(group: &Group, groups: &[Group], own: &[&Found]) -> Result<()> {
    if groups.iter().filter(|other| other.id == group.id).count() > 1 {
        let what = format!("the copies of the metadata of volume group {} differ", group.name);
        return Err(Error::corrupt(what));
    }
    if groups.iter().filter(|other| other.name == group.name).count() > 1 {
        return Err(Error::unsupported(format!("two volume groups are called {}", group.name)));
    }
    for physical in &group.physical {
        match own.iter().filter(|found| found.member.id == physical.id).count() {
            1 => {}
            0 => {
                let what = format!(
                    "volume group {} lacks its physical volume {}, which is on none of these disks",
                    group.name, physical.id
                );
                return Err(Error::unsupported(what));
            }
            _ => {
                return Err(Error::unsupported(format!(
                    "two physical volumes have the UUID {}",
                    physical.id
                )));
            }
        }
    }
    let foreign = |found: &&&Found| {
        found.member.metadata.iter().any(|text| Group::parse(text).is_ok_and(|other| other.id != group.id))
    };
    match own.iter().find(foreign) {
        Some(found) => {
            Err(Error::corrupt(format!("two volume groups claim physical volume {}", found.member.id)))
        }
        None => Ok(()),
    }
}

fn take_apart(survey: &mut Survey, group: &Group, own: &[&Found]) -> Result<()> {
    // In the group's order.
    let places: Vec<_> = group
        .physical
        .iter()
        .filter_map(|physical| own.iter().find(|found| found.member.id == physical.id))
        .map(|found| found.volume)
        .collect();
    let mut maps = Vec::new();
    for (number, &place) in places.iter().enumerate() {
        let size = survey.volumes.get(place).map(Volume::size).unwrap_or_default();
        maps.push(group.used(number, size)?);
    }
    let mut added = Vec::new();
    for logical in group.logical.iter().filter(|logical| logical.shape == Shape::Plain) {
        added.push(volume(survey, group, logical, &places)?);
    }
    let opaque = opaque(group);
    if !opaque.is_empty() {
        survey.warnings.push(format!(
            "of volume group {}, {} cannot be told apart from its disks and is copied whole with them",
            group.name,
            opaque.iter().map(|(name, kind)| format!("{name} ({kind})")).collect::<Vec<_>>().join(", ")
        ));
    }
    for ((&place, map), physical) in places.iter().zip(maps).zip(&group.physical) {
        let Some(volume) = survey.volumes.get_mut(place) else { continue };
        volume.map = Some(UsedMap { extents: map, unit: SECTOR, certainty: Certainty::Exact });
        volume.stack = Some(Stack::Physical {
            group: group.name.clone(),
            group_id: group.id.clone(),
            id: physical.id.clone(),
            opaque: opaque.keys().cloned().collect(),
        });
    }
    if let Some(text) = own.iter().find_map(|found| found.member.metadata.first()) {
        survey.files.insert(format!("LVM metadata of {}", group.name), text.clone());
    }
    survey.volumes.extend(added);
    Ok(())
}

/// The names of visible volumes that are not taken apart, with what they are.
fn opaque(group: &Group) -> BTreeMap<String, String> {
    let kind = |logical: &Logical| match &logical.shape {
        Shape::Opaque(kind) if logical.is_visible => Some((logical.name.clone(), kind.clone())),
        _ => None,
    };
    group.logical.iter().filter_map(kind).collect()
}

fn volume(survey: &mut Survey, group: &Group, logical: &Logical, places: &[usize]) -> Result<Volume> {
    let key = format!("{}/{}", group.name, logical.name);
    let mut pieces = Vec::new();
    for piece in &logical.pieces {
        let on = places.get(piece.physical).and_then(|&place| survey.volumes.get(place));
        let on = on.ok_or_else(|| Error::corrupt(format!("volume {key} lies nowhere")))?;
        let by = on.extent.start().saturating_since(ByteOffset::ZERO);
        let start = piece.extent.start().saturating_add(by);
        pieces.push(Piece {
            disk: on.disk,
            extent: Extent::between(start, start.saturating_add(piece.extent.len())),
        });
    }
    let disks: Vec<_> = survey.disks.iter().map(|disk| Arc::clone(&disk.device)).collect();
    let number = |disk: u32| survey.disks.iter().position(|known| known.number == disk).unwrap_or(usize::MAX);
    let segments = pieces.iter().map(|piece| Segment { disk: number(piece.disk), extent: piece.extent });
    let bytes: Arc<dyn ReadAt> = Arc::new(Window::new(disks, segments.collect::<Vec<_>>())?);
    let filesystem = survey.probe(&key, &*bytes)?;
    let first =
        pieces.first().copied().ok_or_else(|| Error::corrupt(format!("volume {key} lies nowhere")))?;
    let name = match filesystem.as_ref().and_then(|found| found.label.as_ref()) {
        Some(_) => name_of(&key, filesystem.as_ref(), None),
        None => logical.name.clone(),
    };
    Ok(Volume {
        disk: first.disk,
        name,
        partition: None,
        extent: first.extent,
        pieces,
        bytes,
        member: None,
        companions: Vec::new(),
        filesystem,
        stack: Some(Stack::Logical {
            group: group.name.clone(),
            group_id: group.id.clone(),
            id: logical.id.clone(),
        }),
        content: None,
        map: None,
        role: Role::Os,
        role_because: String::new(),
        key,
    })
}
