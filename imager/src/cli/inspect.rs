//! `imager inspect`: what a person can take in at one look.

use super::args::{Global, Inspect};
use super::failure::Failure;
use super::output::{Columns, or_dash, print, print_json};
use super::{Status, session};
use imager::survey::{self, Assigned, Disk, Piece, Survey, Volume};
use imager_disk::table::TableKind;
use imager_units::{ByteLen, Result};
use imager_volume::{Certainty, State, UsedMap};
use serde_json::{Value, json};

pub(crate) fn run(global: &Global, options: &Inspect) -> Result<Status, Failure> {
    let sector = session::sector(options.sector_bytes)?;
    let mut sources = Vec::new();
    for (number, name) in (1..).zip(&options.disks) {
        sources.push((number, survey::open(&session::disk(name)?, sector)?));
    }
    let mut survey = survey::survey(sources, &Assigned::new())?;
    let maps: Vec<UsedMap> = survey.volumes.iter().map(Volume::used).collect::<Result<_>>()?;
    for (volume, map) in survey.volumes.iter().zip(&maps) {
        if let Certainty::Whole(why) = &map.certainty {
            survey.warnings.push(format!("volume {} would be copied whole: {why}", volume.key));
        }
        match volume.filesystem.as_ref().map(|f| &f.state) {
            Some(State::Dirty(why)) => {
                survey.warnings.push(format!("volume {} was not left in order: {why}", volume.key));
            }
            Some(State::Hibernated) => {
                survey.warnings.push(format!("volume {} holds a hibernated system", volume.key));
            }
            _ => {}
        }
    }
    if global.json {
        print_json(&to_json(&survey, &maps, options.extents));
    } else {
        print(&to_text(&survey, &maps, options.extents));
    }
    Ok(Status::Done)
}

fn table_kind(disk: &Disk) -> &'static str {
    match disk.table.kind {
        TableKind::Gpt => "gpt",
        TableKind::Mbr => "mbr",
        TableKind::None => "none",
    }
}

fn to_json(survey: &Survey, maps: &[UsedMap], extents: bool) -> Value {
    let disks = survey.disks.iter().map(|disk| {
        json!({
            "disk": disk.number,
            "path": disk.identity.path,
            "size_bytes": disk.geometry.size.get(),
            "logical_sector_bytes": disk.geometry.logical.get(),
            "physical_sector_bytes": disk.geometry.physical.get(),
            "model": disk.identity.model,
            "serial": disk.identity.serial,
            "wwn": disk.identity.wwn,
            "table": { "kind": table_kind(disk), "id": disk.table.id },
        })
    });
    let disks: Vec<_> = disks.collect();
    let volumes = survey.volumes.iter().zip(maps).map(|(volume, map)| volume_json(volume, map, extents));
    let hostname = survey.files.get("/etc/hostname").map(|text| text.trim());
    json!({
        "disks": disks, "volumes": volumes.collect::<Vec<_>>(), "warnings": survey.warnings, "hostname": hostname,
    })
}

fn volume_json(volume: &Volume, map: &UsedMap, extents: bool) -> Value {
    let filesystem = volume.filesystem.as_ref();
    let partition = volume.partition.as_ref();
    let mut object = json!({
        "disk": volume.disk,
        "key": volume.key,
        "name": volume.name,
        "number": partition.map(|p| p.number),
        "start_byte": volume.extent.start().get(),
        "size_bytes": volume.size().get(),
        "segments": volume.pieces.iter().map(segment_json).collect::<Vec<_>>(),
        "stack": volume.stack,
        "type": partition.map(|p| &p.type_id),
        "partition_uuid": partition.and_then(|p| p.unique_id.as_ref()),
        "role": volume.role,
        "role_because": volume.role_because,
        "filesystem": filesystem.map(|f| f.kind),
        "uuid": filesystem.and_then(|f| f.uuid.as_ref()),
        "label": filesystem.and_then(|f| f.label.as_ref()),
        "used_bytes": map.extents.total().get(),
        "exact": map.certainty == Certainty::Exact,
        "block_bytes": filesystem.map(|f| f.block.get()),
        "clean": filesystem.and_then(|f| imager::capture::is_clean(&f.state)),
    });
    if extents {
        let list: Vec<_> = map.extents.iter().map(|e| [e.start().get(), e.len().get()]).collect();
        object["used_extents"] = json!(list);
    }
    object
}

fn segment_json(piece: &Piece) -> Value {
    json!({
        "disk": piece.disk, "start_byte": piece.extent.start().get(), "len_bytes": piece.extent.len().get(),
    })
}

fn to_text(survey: &Survey, maps: &[UsedMap], extents: bool) -> String {
    let mut out = String::new();
    for disk in &survey.disks {
        out.push_str(&heading(disk));
        let mut columns =
            Columns::new(&["KEY", "ROLE", "SIZE", "USED", "FILESYSTEM", "NAME", "BECAUSE"], &[2, 3]);
        for (volume, map) in survey.volumes.iter().zip(maps).filter(|(v, _)| v.disk == disk.number) {
            columns.row(row(volume, map));
        }
        out.push_str(&columns.render("  "));
    }
    for warning in &survey.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    for (volume, map) in survey.volumes.iter().zip(maps).filter(|_| extents) {
        out.push_str(&format!("volume {}: used extents\n", volume.key));
        for extent in map.extents.iter() {
            out.push_str(&format!("  {extent}\n"));
        }
    }
    out
}

fn heading(disk: &Disk) -> String {
    let id = &disk.identity;
    let serial = id.serial.as_ref().map_or(String::new(), |serial| format!(", serial {serial}"));
    let table = match (&disk.table.kind, &disk.table.id) {
        (TableKind::None, _) => "no partition table".to_owned(),
        (_, Some(id)) => format!("{} {id}", table_kind(disk)),
        _ => table_kind(disk).to_owned(),
    };
    format!(
        "disk {}: {}, {}{serial}, {}, sectors of {} bytes, {table}\n",
        disk.number,
        id.path.display(),
        id.model,
        disk.geometry.size,
        disk.geometry.logical.get()
    )
}

fn row(volume: &Volume, map: &UsedMap) -> Vec<String> {
    let role = serde_json::to_value(volume.role).unwrap_or_default();
    let used = match map.certainty {
        Certainty::Exact => map.extents.total().to_string(),
        Certainty::Whole(_) => "all".to_owned(),
    };
    let size: ByteLen = volume.size();
    vec![
        volume.key.clone(),
        role.as_str().unwrap_or("?").to_owned(),
        size.to_string(),
        used,
        or_dash(volume.filesystem.as_ref().map(|f| f.kind)),
        or_dash(Some(volume.name.as_str()).filter(|name| *name != volume.key)),
        volume.role_because.clone(),
    ]
}
