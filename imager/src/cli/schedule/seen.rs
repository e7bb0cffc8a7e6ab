//! The captures of the machine, as `imager list` shows them.

use super::child::{Caller, words};
use super::stop::Stop;
use crate::cli::failure::Failure;
use imager::schedule::Past;
use imager_image::manifest::Kind;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// A capture.
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) time: String,
    pub(super) kind: Option<Kind>,
    /// Whether it is one to go back to.
    pub(super) is_good: bool,
}

impl Seen {
    /// Of an object that has its id under that name.
    pub(super) fn of(object: &Value, id: &str) -> Self {
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        Self {
            id: text(id),
            time: text("time"),
            kind: serde_json::from_value(object["kind"].clone()).ok(),
            is_good: object["consistency"] != "inconsistent",
        }
    }

    /// When it began.
    pub(super) fn when(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// As it decides about later ones.
    pub(super) fn past(&self) -> Option<Past> {
        Some(Past { kind: self.kind?, time: self.when()? })
    }
}

/// All of them in their order, and what is damaged.
pub(super) fn list(
    caller: &Caller<'_>,
    patience: Duration,
    stop: &mut Stop,
) -> Result<(Vec<Seen>, Vec<String>), Failure> {
    let asked = words(&["list", &caller.settings.machine]);
    let answer = caller.ask(&asked, patience, None, stop)?.expect(&[0, 3])?;
    let rows = |name: &str| answer.object[name].as_array().cloned().unwrap_or_default();
    let captures = rows("captures").iter().map(|row| Seen::of(row, "id")).collect();
    let damaged =
        rows("damaged").iter().filter_map(|text| Some(format!("damaged: {}", text.as_str()?))).collect();
    Ok((captures, damaged))
}
