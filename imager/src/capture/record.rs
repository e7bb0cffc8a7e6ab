//! What a capture says about itself: the manifest.

use super::session::Written;
use super::skeleton::{Skeleton, Skeletons};
use super::streams::{Stream, Subject};
use super::{DataMode, Draft, Options};
use crate::survey::{self, Survey};
use base64::Engine;
use imager_disk::table::TableKind;
use imager_image::manifest::{
    Cost, Disk, Manifest, Map, Mode, Partition, RawSectors, Role, Run, Segment, System, Table, Truth, Volume,
};
use imager_volume::{Certainty, State};

/// Gives disks the numbers that an earlier capture gave them; new ones get the next.
pub fn number_disks(sources: Vec<survey::Source>, earlier: Option<&Manifest>) -> Vec<(u32, survey::Source)> {
    let known = earlier.map(|manifest| manifest.disks.as_slice()).unwrap_or_default();
    let mut taken: Vec<u32> = Vec::new();
    let mut numbered: Vec<(Option<u32>, survey::Source)> = Vec::new();
    for source in sources {
        let same =
            known.iter().filter(|disk| !taken.contains(&disk.number)).find(|disk| is_same(disk, &source));
        taken.extend(same.map(|disk| disk.number));
        numbered.push((same.map(|disk| disk.number), source));
    }
    let mut next = known.iter().map(|disk| disk.number).max().unwrap_or(0);
    let mut fresh = || {
        next += 1;
        next
    };
    let mut numbered: Vec<_> =
        numbered.into_iter().map(|(number, source)| (number.unwrap_or_else(&mut fresh), source)).collect();
    numbered.sort_by_key(|(number, _)| *number);
    numbered
}

/// A disk is known by its WWN or serial number; one without either (a virtual disk, an image file) by its table's id,
/// and failing that by where it was.
fn is_same(known: &Disk, source: &survey::Source) -> bool {
    let identity = &source.identity;
    if known.wwn.is_some() || identity.wwn.is_some() {
        return known.wwn == identity.wwn;
    }
    if known.serial.is_some() || identity.serial.is_some() {
        return known.serial == identity.serial;
    }
    let table = imager_disk::table::read(&*source.device).ok().and_then(|table| table.id);
    match (&known.table.id, table) {
        (Some(known), Some(id)) => *known == id,
        _ => known.path == identity.path.display().to_string(),
    }
}

/// The manifest of a capture whose streams were written.
pub(super) fn manifest(
    survey: &Survey,
    options: &Options,
    draft: &Draft,
    streams: &[Stream<'_>],
    skeletons: &Skeletons,
    written: Vec<Written>,
) -> Manifest {
    let mut manifest = Manifest {
        header: draft.header.clone(),
        agent: concat!("imager ", env!("CARGO_PKG_VERSION")).to_owned(),
        schedule: options.schedule.clone(),
        parent: draft.parent.as_ref().map(|parent| parent.header.id),
        consistency: options.consistency,
        system: System {
            hostname: survey.files.get("/etc/hostname").map(|name| name.trim().to_owned()),
            hardware_uuid: options.hardware_uuid.clone(),
            firmware: survey.firmware.kind.map(|kind| kind.word().to_owned()),
            uefi: survey.firmware.uefi.clone(),
            files: survey.files.clone(),
        },
        disks: Vec::new(),
        volumes: Vec::new(),
        warnings: survey.warnings.iter().chain(&survey.firmware.warnings).cloned().collect(),
        problems: Vec::new(),
        not_captured: Vec::new(),
        elapsed_seconds: 0.0,
        running: None,
    };
    for (stream, written) in streams.iter().zip(written) {
        manifest.problems.extend(written.problems);
        match &stream.subject {
            Subject::Remainder(seen) => manifest.disks.push(disk(seen, written.map, written.cost)),
            Subject::Skeleton(seen, skeleton) => {
                let (map, cost) = (Some(written.map), written.cost);
                manifest.volumes.push(Volume {
                    truth: stream.truth,
                    map,
                    cost,
                    ..of_skeleton(volume(seen), skeleton)
                });
            }
            Subject::Volume(seen, mode, because) => {
                if let Some(why) = because {
                    manifest.warnings.push(format!("volume {} is copied whole: {why}", seen.key));
                }
                let captured = Volume { truth: stream.truth, whole_because: because.clone(), ..volume(seen) };
                let (map, cost) = (Some(written.map), written.cost);
                manifest.volumes.push(Volume { mode: *mode, map, cost, ..captured });
            }
        }
    }
    let missing = survey.volumes.iter().filter(|v| !manifest.volumes.iter().any(|done| done.key == v.key));
    let missing: Vec<_> = missing.map(volume).collect();
    manifest.volumes.extend(missing);
    manifest.volumes.sort_by_key(|v| (v.disk, v.segments.first().map_or(0, |s| s.start_byte)));
    manifest.not_captured = manifest.volumes.iter().filter_map(not_captured).collect();
    let given_up = manifest.volumes.iter().filter_map(|volume| given_up(volume, draft)).collect::<Vec<_>>();
    manifest.warnings.extend(given_up);
    let is_looked_at =
        |volume: &&survey::Volume| skeletons.of(volume).is_some_and(|skeleton| skeleton.is_live);
    let others = survey.volumes.iter().filter(|volume| !is_looked_at(volume));
    manifest.warnings.extend(others.filter_map(unclean));
    manifest.warnings.extend(skeletons.warnings.iter().cloned());
    manifest.problems.extend(skeletons.problems.iter().cloned());
    if options.data == DataMode::Skeleton {
        let late = skeletons.late(&survey.volumes);
        manifest.problems.extend(late);
    }
    manifest.elapsed_seconds = draft.started.elapsed().as_secs_f64();
    manifest
}

/// Whoever had the content of a data volume in captures so far may count on it.
fn given_up(volume: &Volume, draft: &Draft) -> Option<String> {
    let is_less = matches!(volume.mode, Mode::Skeleton | Mode::None) && draft.held.contains(&volume.key);
    (is_less && volume.role == Role::Data).then(|| {
        format!(
            "volume {}: the capture before this one has what is in its files, this one has not (--data used takes it)",
            volume.key
        )
    })
}

fn disk(seen: &survey::Disk, remainder: Map, remainder_cost: Cost) -> Disk {
    let text = |kind| match kind {
        TableKind::Gpt => "gpt",
        TableKind::Mbr => "mbr",
        TableKind::None => "none",
    };
    let path = seen.identity.path.display().to_string();
    let raw = seen.table.raw.iter().map(|area| RawSectors {
        start_byte: area.start.get(),
        base64: base64::engine::general_purpose::STANDARD.encode(&area.bytes),
    });
    Disk {
        number: seen.number,
        size_bytes: seen.geometry.size.get(),
        logical_sector_bytes: seen.geometry.logical.get(),
        physical_sector_bytes: seen.geometry.physical.get(),
        model: Some(seen.identity.model.clone()),
        serial: seen.identity.serial.clone(),
        wwn: seen.identity.wwn.clone(),
        table: Table {
            kind: text(seen.table.kind).to_owned(),
            id: seen.table.id.clone(),
            sfdisk: seen.table.sfdisk_dump(&path),
            raw: raw.collect(),
        },
        path,
        remainder,
        remainder_cost,
    }
}

/// Where a volume lies.
pub(super) fn segments(seen: &survey::Volume) -> Vec<Segment> {
    let segment = |piece: &survey::Piece| Segment {
        disk: piece.disk,
        start_byte: piece.extent.start().get(),
        len_bytes: piece.extent.len().get(),
    };
    seen.pieces.iter().map(segment).collect()
}

/// A volume of which nothing was taken so far.
fn volume(seen: &survey::Volume) -> Volume {
    let filesystem = seen.filesystem.as_ref();
    let partition = seen.partition.as_ref().map(|entry| Partition {
        number: entry.number,
        type_id: entry.type_id.clone(),
        unique_id: entry.unique_id.clone(),
        name: entry.name.clone(),
    });
    Volume {
        disk: seen.disk,
        key: seen.key.clone(),
        name: seen.name.clone(),
        role: seen.role,
        filesystem: filesystem.map(|f| f.kind.to_owned()),
        uuid: filesystem.and_then(|f| f.uuid.clone()),
        label: filesystem.and_then(|f| f.label.clone()),
        block_bytes: filesystem.map(|f| f.block.get()),
        clean: filesystem.and_then(|f| is_clean(&f.state)),
        partition,
        segments: segments(seen),
        size_bytes: seen.size().get(),
        mode: Mode::None,
        whole_because: None,
        truth: Truth::Scan,
        consistency: None,
        head: filesystem.map(|f| f.head.iter().map(Run::from).collect()).unwrap_or_default(),
        stack: seen.stack.clone(),
        skeleton: None,
        map: None,
        cost: Cost::default(),
    }
}

/// A volume of which the skeleton is in the capture: what is said of a filesystem is said of that.
fn of_skeleton(seen: Volume, skeleton: &Skeleton) -> Volume {
    let found = &skeleton.filesystem;
    Volume {
        mode: Mode::Skeleton,
        filesystem: Some(found.kind.to_owned()),
        uuid: found.uuid.clone(),
        label: found.label.clone(),
        block_bytes: Some(found.block.get()),
        clean: is_clean(&found.state),
        head: found.head.iter().map(Run::from).collect(),
        whole_because: match &skeleton.used.certainty {
            Certainty::Exact => None,
            Certainty::Whole(why) => Some(why.clone()),
        },
        skeleton: Some(skeleton.made.clone()),
        ..seen
    }
}

/// Whether a filesystem was left in order, as far as it says.
pub fn is_clean(state: &State) -> Option<bool> {
    match state {
        State::Clean => Some(true),
        State::Dirty(_) | State::Hibernated => Some(false),
        State::Unknown => None,
    }
}

fn not_captured(volume: &Volume) -> Option<String> {
    let named =
        format!("volume {} ({}, {})", volume.key, volume.name, imager_units::ByteLen::new(volume.size_bytes));
    match (volume.mode, volume.role) {
        (Mode::None, Role::Ignore) => Some(format!("{named}: ignored")),
        (Mode::None, _) => Some(format!("{named}: data left out")),
        (Mode::Signature, _) => Some(format!("{named}: swap, only its header")),
        (Mode::Skeleton, _) => Some(format!("{named}: its structure only")),
        (Mode::Used | Mode::Raw, _) => None,
    }
}

fn unclean(volume: &survey::Volume) -> Option<String> {
    match &volume.filesystem.as_ref()?.state {
        State::Dirty(why) => Some(format!("volume {} was not left in order: {why}", volume.key)),
        State::Hibernated => {
            Some(format!("volume {} holds a hibernated system, which is not captured", volume.key))
        }
        State::Clean | State::Unknown => None,
    }
}
