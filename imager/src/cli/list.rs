//! `imager list` and `imager show`.

use super::args::{Global, List, Show};
use super::failure::Failure;
use super::output::{Columns, or_dash, print, print_json};
use super::{Status, capture, session};
use imager::captures::{self, Listed};
use imager::schedule::Standing;
use imager_image::manifest::{BootEntry, Manifest, System};
use imager_units::ByteLen;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

pub(crate) fn run(global: &Global, options: &List) -> Result<Status, Failure> {
    if let Some(machine) = &options.machine {
        imager_image::names::check_machine(machine)?;
    }
    let repository = session::repository(global)?;
    let (mut rows, mut damaged) = (Vec::new(), Vec::new());
    let mut each = |listed: Listed| match &listed.manifest {
        Ok(manifest) => rows.push(row_json(manifest)),
        Err(error) => damaged.push(format!("{}: {error}", listed.object)),
    };
    captures::list(&repository, options.machine.as_deref(), &mut each)?;
    rows.sort_by_key(|row| (row["machine"].to_string(), row["sequence"].as_u64()));
    against_schedule(&mut rows, Timestamp::now());
    let status = if damaged.is_empty() { Status::Done } else { Status::Damaged };
    if global.json {
        print_json(&json!({ "captures": rows, "damaged": damaged }));
    } else {
        let is_empty = rows.is_empty() && damaged.is_empty();
        print(&if is_empty { none_text(options.machine.as_deref()) } else { to_text(&rows) });
        damaged.iter().for_each(|damaged| print(&format!("DAMAGED: {damaged}\n")));
    }
    Ok(status)
}

pub(crate) fn show(global: &Global, options: &Show) -> Result<Status, Failure> {
    let repository = session::repository(global)?;
    let (manifest, warnings) = session::capture(&repository, &options.capture)?;
    if global.json {
        let mut object = capture::to_json(&manifest);
        object["system"] = json!(manifest.system);
        object["tables"] =
            manifest.disks.iter().map(|d| json!({ "disk": d.number, "sfdisk": d.table.sfdisk })).collect();
        print_json(&object);
        return Ok(Status::Done);
    }
    print(&capture::to_text(&manifest));
    for disk in &manifest.disks {
        print(&format!(
            "\ndisk {}: {}, {}, {}\n{}",
            disk.number,
            disk.path,
            disk.model.as_deref().unwrap_or("unknown model"),
            ByteLen::new(disk.size_bytes),
            indented(&disk.table.sfdisk)
        ));
    }
    print(&firmware_text(&manifest.system));
    for (name, text) in &manifest.system.files {
        print(&format!("\n{name} of the captured system:\n{}", indented(text)));
    }
    for warning in warnings {
        print(&format!("warning: {warning}\n"));
    }
    Ok(Status::Done)
}

/// What started the captured machine, and what it was told to start.
fn firmware_text(system: &System) -> String {
    let Some(kind) = system.firmware.as_deref() else { return String::new() };
    let Some(uefi) = &system.uefi else { return format!("\nfirmware: {}\n", kind.to_uppercase()) };
    let secure = match uefi.secure_boot {
        Some(true) => "enforced",
        Some(false) => "off",
        None => "unknown",
    };
    let mut out =
        format!("\nfirmware: {}, Secure Boot {secure}; what it starts, in order:\n", kind.to_uppercase());
    let mut columns = Columns::new(&["ENTRY", "NAME", "PARTITION", "FILE"], &[]);
    let place = |entry: &&BootEntry| uefi.boot_order.iter().position(|number| *number == entry.number);
    let mut entries: Vec<_> = uefi.entries.iter().collect();
    entries.sort_by_key(|entry| place(entry).unwrap_or(usize::MAX));
    for entry in entries {
        let partition =
            entry.partition.as_ref().map(|partition| format!("{} ({})", partition.number, partition.id));
        let ways = if !entry.active || place(&entry).is_none() { " (not by itself)" } else { "" };
        columns.row(vec![
            format!("{:04X}", entry.number),
            format!("{}{ways}", entry.description),
            or_dash(partition.as_deref()),
            or_dash(entry.file.as_deref()),
        ]);
    }
    out.push_str(&columns.render("  "));
    out
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Bytes of all volumes and remainders: size, used, new, stored.
fn totals(manifest: &Manifest) -> [u64; 4] {
    let costs =
        manifest.volumes.iter().map(|v| &v.cost).chain(manifest.disks.iter().map(|d| &d.remainder_cost));
    let mut totals = [manifest.disks.iter().map(|disk| disk.size_bytes).sum(), 0, 0, 0];
    for cost in costs {
        totals[1] += cost.used_bytes;
        totals[2] += cost.new_bytes;
        totals[3] += cost.stored_bytes;
    }
    totals
}

fn row_json(manifest: &Manifest) -> Value {
    let [size, used, new, stored] = totals(manifest);
    json!({
        "id": manifest.header.id,
        "machine": manifest.header.machine,
        "time": manifest.header.time,
        "sequence": manifest.header.sequence,
        "kind": manifest.header.kind,
        "parent": manifest.parent,
        "size_bytes": size,
        "used_bytes": used,
        "new_bytes": new,
        "stored_bytes": stored,
        "consistency": manifest.consistency,
        "verified": Value::Null,
        "schedule": manifest.schedule,
        "age_against_schedule": Value::Null,
        "problems": manifest.problems.len(),
    })
}

/// How old each capture is, against the schedule under which it was made. Overdue is only what should have been followed by
/// a newer good one of the same machine.
fn against_schedule(rows: &mut [Value], now: Timestamp) {
    let mut newest: HashMap<String, String> = HashMap::new();
    for row in rows.iter().filter(|row| row["consistency"] != "inconsistent") {
        newest.insert(row["machine"].to_string(), row["id"].to_string());
    }
    for row in rows {
        let every = row["schedule"]["every_seconds"].as_u64().map(Duration::from_secs);
        let time = row["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        if let (Some(every), Some(time)) = (every, time) {
            let is_newest = newest.get(&row["machine"].to_string()) == Some(&row["id"].to_string());
            let standing = Standing::new(time, every, is_newest, now);
            row["age_against_schedule"] = json!(standing);
            row["age_against_schedule"]["words"] = json!(standing.words());
        }
    }
}

/// An empty table would leave open whether a name is right.
fn none_text(machine: Option<&str>) -> String {
    match machine {
        Some(machine) => format!("there are no captures of {machine}\n"),
        None => "there are no captures\n".to_owned(),
    }
}

fn to_text(rows: &[Value]) -> String {
    let mut columns = Columns::new(
        &["MACHINE", "TIME", "ID", "KIND", "CONSISTENCY", "SIZE", "USED", "NEW", "STORED", "PROBLEMS", "AGE"],
        &[5, 6, 7, 8, 9],
    );
    for row in rows {
        let word = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let size = |field: &str| ByteLen::new(row[field].as_u64().unwrap_or(0)).to_string();
        let id: String = word("id").chars().take(12).collect();
        let mut cells =
            vec![word("machine"), word("time"), format!("id:{id}"), word("kind"), word("consistency")];
        cells.extend(["size_bytes", "used_bytes", "new_bytes", "stored_bytes"].map(size));
        cells.push(row["problems"].to_string());
        cells.push(or_dash(row["age_against_schedule"]["words"].as_str()));
        columns.row(cells);
    }
    columns.render("")
}
