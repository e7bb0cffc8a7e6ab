//! `imager schedule`: captures that are made by themselves.
//!
//! What runs at night is this program as a person would run it: a run lists, captures and prunes by starting itself with
//! the settings' share and secrets, and reads the documented JSON. So a capture that crashes or is killed for its memory
//! is a failure like any other, and whoever tells of it lives on.

mod broken;
mod child;
mod disks;
mod place;
mod remove;
mod run;
mod seen;
mod set;
mod show;
mod stop;
mod systemd;
mod tell;

use super::Status;
use super::args::{Global, Schedule, ScheduleCommand};
use super::failure::Failure;
use imager::schedule::Settings;
use imager_disk::System;
use imager_units::{Error, ErrorKind};
use place::Place;
use std::os::unix::fs::MetadataExt;

/// The disks that a schedule would capture if none were named.
pub(super) fn fixed_disks() -> Result<Vec<String>, Failure> {
    Ok(disks::fixed(&System::new(), None)?)
}

pub(crate) fn run(global: &Global, options: &Schedule) -> Result<Status, Failure> {
    let place = Place::new(&options.root);
    match &options.command {
        ScheduleCommand::Set(wanted) => set::run(global, &place, wanted),
        ScheduleCommand::Show => show::run(global, &place),
        ScheduleCommand::Remove => remove::run(global, &place),
        ScheduleCommand::Run(how) => run::run(global, &place, how.due),
    }
}

/// The schedule of a system. What it says is done as root, so nobody else may have a say in it.
fn settings(place: &Place) -> Result<Settings, Failure> {
    let file = place.settings();
    if let Ok(metadata) = std::fs::metadata(&file) {
        let is_ours = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
        if !is_ours || metadata.mode() & 0o022 != 0 {
            let what = format!("{} may be changed by others than root", file.display());
            let advice =
                format!("look at what it says, then chown root {0} && chmod 600 {0}", file.display());
            return Err(Failure::new(4, Error::new(ErrorKind::Denied, what), advice));
        }
    }
    Settings::read(&file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(1, error, "there is no schedule; imager schedule set makes one"),
        ErrorKind::Invalid => Failure::new(
            super::failure::USAGE,
            error,
            "correct it, or have imager schedule set write it anew; no capture is made until then",
        ),
        _ => error.into(),
    })
}
