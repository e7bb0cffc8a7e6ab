//! A schedule that cannot be read: whoever is told when captures fail is told of that, too, as far as the file still says
//! who that is.

use super::place::Place;
use super::tell;
use crate::cli::failure::{Failure, USAGE};
use imager::clock;
use imager::schedule::{self, AlarmSettings, Every, Keep, Last, Outcome, Settings};
use jiff::Timestamp;

/// Takes down that a run failed of its settings, and tells of it as of any other failure. Only where they make no sense: a
/// file that others may have changed, or that is not there, says nothing that may be run.
pub(super) fn tell_of(place: &Place, failure: &Failure) {
    let text = std::fs::read_to_string(place.settings()).ok();
    let Some(text) = text.filter(|_| failure.code() == USAGE) else { return };
    let now = Timestamp::now();
    let mut last = schedule::read(&place.last()).ok().flatten().unwrap_or_default();
    let time = clock::rfc3339(now);
    last = Last {
        machine: if last.machine.is_empty() { "this machine".to_owned() } else { last.machine },
        started: time.clone(),
        ended: time,
        result: Outcome::Failed,
        exit_status: failure.code(),
        failures: last.failures.saturating_add(1),
        error: failure.json(),
        repo: last.repo,
        alarm: last.alarm,
        newest: last.newest,
        kinds: last.kinds,
        ..Last::default()
    };
    let settings = known(&text, &last);
    let event = schedule::after(&last, settings.every.length(), settings.alarm.after_failures, now);
    if let Some(event) = event {
        tell::of(event, &settings, &mut last, now);
    }
    let saved = serde_json::to_vec_pretty(&last).map(|text| schedule::write(&place.last(), &text, 0o600));
    if !matches!(saved, Ok(Ok(()))) {
        tell::log(4, "how this run went is not remembered");
    }
}

/// What can be said of the settings.
fn known(text: &str, last: &Last) -> Settings {
    Settings {
        repo: last.repo.clone(),
        machine: last.machine.clone(),
        disks: Vec::new(),
        // Nobody knows; so nothing is overdue that soon.
        every: Every::Week,
        at: schedule::Clock::default(),
        full: None,
        differential: None,
        roles: Vec::new(),
        data: None,
        keep_files: Vec::new(),
        limit: None,
        password_file: None,
        token_file: None,
        share_password_file: None,
        keep: Keep::default(),
        alarm: AlarmSettings::found_in(text),
    }
}
