//! `imager schedule`: captures that are made by themselves.
//!
//! What runs at night is this program as a person would run it: a run lists, captures and prunes by starting itself with
//! the settings' share and secrets, and reads the documented JSON. So a capture that crashes or is killed for its memory
//! is a failure like any other, and whoever tells of it lives on.

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
use imager_units::ErrorKind;
use place::Place;

pub(crate) fn run(global: &Global, options: &Schedule) -> Result<Status, Failure> {
    let place = Place::new(&options.root);
    match &options.command {
        ScheduleCommand::Set(wanted) => set::run(global, &place, wanted),
        ScheduleCommand::Show => show::run(global, &place),
        ScheduleCommand::Remove => remove::run(global, &place),
        ScheduleCommand::Run(how) => run::run(global, &place, how.due),
    }
}

/// The schedule of a system.
fn settings(place: &Place) -> Result<Settings, Failure> {
    Settings::read(&place.settings()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(1, error, "there is no schedule; imager schedule set makes one"),
        ErrorKind::Invalid => Failure::new(
            super::failure::USAGE,
            error,
            "correct it, or have imager schedule set write it anew; no capture is made until then",
        ),
        _ => error.into(),
    })
}
