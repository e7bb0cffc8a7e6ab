//! `imager journal`: the record of changed blocks, begun, looked at and ended.

use super::args::{Global, Journal as Options, JournalCommand};
use super::failure::{Failure, chain};
use super::output::{print, print_json};
use super::{Status, session};
use imager::clock;
use imager_disk::System;
use imager_journal::{Disk, FollowedStatus, Journal, Status as DiskStatus};
use imager_units::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) fn run(global: &Global, options: &Options) -> Result<Status, Failure> {
    match &options.command {
        JournalCommand::Start { disks } if disks.is_empty() => start_all(global),
        JournalCommand::Start { disks } => start(global, disks),
        JournalCommand::Status => status(global),
        JournalCommand::Stop { disks } => stop(global, disks),
    }
}

fn start(global: &Global, names: &[String]) -> Result<Status, Failure> {
    let disks = names.iter().map(|name| Ok(Disk::at_node(&session::disk(name)?)?));
    let disks = disks.collect::<Result<Vec<_>, Failure>>()?;
    let mut done = Vec::new();
    for disk in &disks {
        done.push((disk.name().to_owned(), Journal::start(disk).map_err(refused)?));
    }
    report_start(global, &done, &[]);
    Ok(Status::Done)
}

/// Starts what can be, and says what cannot.
fn start_all(global: &Global) -> Result<Status, Failure> {
    let (mut done, mut warnings, mut first) = (Vec::new(), Vec::new(), None);
    for disk in disks_in_use()? {
        match Journal::start(&disk) {
            Ok(is_new) => done.push((disk.name().to_owned(), is_new)),
            Err(error) => {
                warnings.push(format!("{} is not recorded: {}", disk.name(), chain(&error)));
                first.get_or_insert(error);
            }
        }
    }
    if done.is_empty() {
        let none = || Error::new(ErrorKind::NotFound, "no disk has a filesystem mounted for writing");
        return Err(refused(first.unwrap_or_else(none)));
    }
    report_start(global, &done, &warnings);
    Ok(if warnings.is_empty() { Status::Done } else { Status::Missing })
}

/// The disks under all that is mounted for writing; not loop devices, which lie on these.
fn disks_in_use() -> Result<Vec<Disk>> {
    let filesystems = System::new().filesystems()?;
    let beneath = filesystems.iter().filter(|filesystem| !filesystem.read_only);
    let numbers: BTreeSet<_> = beneath.flat_map(|filesystem| filesystem.beneath.iter().copied()).collect();
    let disks = numbers.into_iter().filter_map(|number| Disk::numbered(&number.to_string()).ok());
    Ok(disks.filter(|disk| disk.is_of_its_own()).collect())
}

fn report_start(global: &Global, done: &[(String, bool)], warnings: &[String]) {
    if global.json {
        let disks: Vec<_> = done.iter().map(|(disk, new)| json!({ "disk": disk, "started": new })).collect();
        return print_json(&json!({ "disks": disks, "warnings": warnings }));
    }
    for (disk, is_new) in done {
        let what = if *is_new { "changes are recorded from now on" } else { "changes are recorded already" };
        print(&format!("{disk}: {what}\n"));
    }
    warnings.iter().for_each(|warning| print(&format!("warning: {warning}\n")));
}

fn stop(global: &Global, names: &[String]) -> Result<Status, Failure> {
    let mut all = Journal::names()?;
    if !names.is_empty() {
        // A disk that is gone has no node, and a name.
        let named = |name: &String| {
            let disk = session::disk(name).ok().and_then(|path| Disk::at_node(&path).ok());
            disk.map_or_else(|| name.clone(), |disk| disk.name().to_owned())
        };
        let wanted: BTreeSet<_> = names.iter().map(named).collect();
        if let Some(name) = wanted.iter().find(|name| !all.contains(*name)) {
            let what = Error::new(ErrorKind::NotFound, format!("changes of {name} are not recorded"));
            return Err(Failure::new(1, what, "imager journal status names the disks"));
        }
        all.retain(|name| wanted.contains(name));
    }
    for name in &all {
        Journal::stop(name).map_err(refused)?;
    }
    if global.json {
        print_json(&json!({ "stopped": all }));
    } else if all.is_empty() {
        print("nothing was recorded\n");
    } else {
        print(&format!("no longer recorded: {}\n", all.join(", ")));
    }
    Ok(Status::Done)
}

fn status(global: &Global) -> Result<Status, Failure> {
    let mut disks = Vec::new();
    for name in Journal::names()? {
        disks.extend(DiskStatus::of(&name)?);
    }
    if global.json {
        let disks: Vec<_> = disks.iter().map(to_json).collect();
        print_json(&json!({ "disks": disks }));
    } else if disks.is_empty() {
        print("changes are not recorded; imager journal start begins\n");
    } else {
        disks.iter().for_each(|disk| print(&to_text(disk)));
    }
    let is_well = |disk: &DiskStatus| disk.followed.as_ref().is_some_and(|followed| followed.doubt.is_none());
    Ok(if disks.iter().all(is_well) { Status::Done } else { Status::Missing })
}

fn since(followed: &FollowedStatus) -> Option<String> {
    Timestamp::try_from(followed.since?).ok().map(clock::rfc3339)
}

fn to_json(status: &DiskStatus) -> Value {
    let Some(followed) = &status.followed else {
        return json!({ "disk": status.disk, "recorded": false, "last_trouble": status.last_trouble });
    };
    let cursors: Vec<_> = followed
        .cursors
        .iter()
        .map(|cursor| json!({ "capture": cursor.capture, "epoch": cursor.epoch, "good": cursor.is_good }))
        .collect();
    let trouble = followed.trouble;
    let [issued, completed] = followed.cost.map(|(runs, time)| json!({ "runs": runs, "nanoseconds": time }));
    json!({
        "disk": status.disk,
        "recorded": true,
        "since": since(followed),
        "size_bytes": followed.size.get(),
        "epochs": followed.epochs,
        "written_bytes": followed.written.get(),
        "discarded_bytes": followed.discarded.get(),
        "doubt": followed.doubt,
        "cursors": cursors,
        "last_trouble": status.last_trouble,
        "cost": { "issued": issued, "completed": completed },
        "counted": {
            "passed_through": trouble.passed_through, "failed": trouble.failed, "beyond": trouble.beyond,
            "overflowed": trouble.overflowed, "missed": trouble.missed,
        },
    })
}

fn to_text(status: &DiskStatus) -> String {
    let disk = &status.disk;
    let Some(followed) = &status.followed else {
        return format!(
            "{disk}: gone, or another disk now; imager journal stop {disk} forgets it, start begins anew\n"
        );
    };
    let mut out = format!(
        "{disk}: {}, recorded since {}, {} epochs; since the last {} written, {} discarded\n",
        followed.size,
        since(followed).unwrap_or_else(|| "-".to_owned()),
        followed.epochs,
        followed.written,
        followed.discarded
    );
    for cursor in &followed.cursors {
        let known = if cursor.is_good { "all changes since are known" } else { "the next after it compares" };
        out.push_str(&format!("  capture {}: {known}\n", cursor.capture));
    }
    match (&followed.doubt, &status.last_trouble) {
        (Some(doubt), _) => {
            out.push_str(&format!("  in doubt: {doubt}; the next capture compares, and begins anew\n"));
        }
        (None, Some(why)) => out.push_str(&format!("  every write was seen; it began anew because: {why}\n")),
        (None, None) => out.push_str("  every write was seen\n"),
    }
    out
}

fn refused(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Unsupported => Failure::new(
            1,
            error,
            "without it a disk is captured while nothing writes to it: from the rescue medium, or unmounted",
        ),
        ErrorKind::Denied if error.to_string().contains("another process") => {
            Failure::new(4, error, "wait until the capture that uses it is over")
        }
        ErrorKind::Denied => Failure::new(1, error, "run it as root"),
        ErrorKind::NotFound => Failure::new(1, error, "name the disks to record"),
        _ => error.into(),
    }
}
