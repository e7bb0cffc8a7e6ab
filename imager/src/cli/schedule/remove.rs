//! `imager schedule remove`.

use super::place::Place;
use super::systemd;
use crate::cli::Status;
use crate::cli::args::Global;
use crate::cli::failure::{Failure, chain};
use crate::cli::output::{print, print_json};
use imager::schedule::{SERVICE, TIMER};
use imager_units::{Context, Result};
use serde_json::json;
use std::path::Path;

pub(super) fn run(global: &Global, place: &Place) -> std::result::Result<Status, Failure> {
    let (mut removed, mut warnings) = (Vec::new(), Vec::new());
    let mut try_to = |done: Result<()>| warnings.extend(done.err().map(|error| chain(&error)));
    if systemd::runs(place) {
        if place.unit(TIMER).exists() {
            try_to(systemd::control(place, &["disable", "--now", TIMER]));
        }
    } else if place.unit(TIMER).exists() {
        try_to(systemd::control(place, &["disable", TIMER]));
    }
    for file in [place.unit(TIMER), place.unit(SERVICE), place.settings(), place.last()] {
        if remove(&file)? {
            removed.push(file.display().to_string());
        }
    }
    if systemd::runs(place) && !removed.is_empty() {
        try_to(systemd::control(place, &["daemon-reload"]));
    }
    if global.json {
        print_json(&json!({ "removed": removed, "warnings": warnings }));
        return Ok(Status::Done);
    }
    removed.iter().for_each(|file| print(&format!("removed {file}\n")));
    warnings.iter().for_each(|warning| print(&format!("warning: {warning}\n")));
    print(if removed.is_empty() {
        "there was no schedule\n"
    } else {
        "nothing is captured by itself any more; captures, passphrases and tokens are where they were\n"
    });
    Ok(Status::Done)
}

fn remove(file: &Path) -> Result<bool> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).context(|| format!("removing {}", file.display())),
    }
}
