//! `imager schedule show`.

use super::child::Caller;
use super::place::Place;
use super::stop::Stop;
use super::{seen, systemd};
use crate::cli::Status;
use crate::cli::args::Global;
use crate::cli::failure::{Failure, chain};
use crate::cli::output::{print, print_json};
use imager::clock;
use imager::schedule::{self, Cadence, Last, Settings, Standing, TIMER};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::time::Duration;

/// A person waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many of the next captures are told.
const NEXT: usize = 3;

pub(super) fn run(global: &Global, place: &Place) -> Result<Status, Failure> {
    let settings = super::settings(place)?;
    let (last, trouble) = match schedule::read(&place.last()) {
        Ok(last) => (last, None),
        Err(error) => (None, Some(chain(&error))),
    };
    let is_running = place.take_turn().is_ok_and(|turn| turn.is_none());
    let caller = Caller { global, place, settings: &settings };
    let captures = seen::list(&caller, global.patience.min(PATIENCE), &mut Stop::new()?);
    let newest = newest(&settings, &captures);
    let timer = timer(place);
    if global.json {
        print_json(&json!({
            "schedule": without_secrets(&settings),
            "timer": timer,
            "under_way": is_running,
            "last": last,
            "last_error": trouble,
            "next": next(&settings),
            "newest": newest,
            "share_error": captures.as_ref().err().map(Failure::json),
        }));
        return Ok(Status::Done);
    }
    let mut out = settings_text(&settings);
    let word = |name: &str| timer[name].as_str().unwrap_or("unknown").to_owned();
    line(&mut out, "timer", &format!("{TIMER}, {}, {}", word("enabled"), word("active")));
    line(&mut out, "next", &next(&settings).join(", "));
    if is_running {
        line(&mut out, "now", "a run is under way");
    }
    out.push_str(&last_text(last.as_ref(), trouble.as_deref()));
    let age = match (&captures, &newest) {
        (Err(failure), _) => format!("not known: {}", failure.told()),
        (Ok(_), Some(newest)) => format!(
            "id:{} of {}, {}",
            newest["id"].as_str().unwrap_or_default(),
            newest["time"].as_str().unwrap_or_default(),
            newest["words"].as_str().unwrap_or_default()
        ),
        (Ok(_), None) => "none".to_owned(),
    };
    line(&mut out, "newest capture", &age);
    print(&out);
    Ok(Status::Done)
}

type Captures = Result<(Vec<seen::Seen>, Vec<String>), Failure>;

/// The newest good capture, and how old it is.
fn newest(settings: &Settings, captures: &Captures) -> Option<Value> {
    let newest = captures.as_ref().ok()?.0.iter().rev().find(|seen| seen.is_good)?;
    let standing = Standing::new(newest.when()?, settings.every.length(), true, Timestamp::now());
    let mut object = json!(standing);
    (object["id"], object["time"]) = (json!(newest.id), json!(newest.time));
    let late = if standing.overdue_seconds == 0 { " old" } else { "" };
    object["words"] = json!(format!("{}{late}", standing.words()));
    Some(object)
}

fn timer(place: &Place) -> Value {
    if !systemd::runs(place) {
        let word = if place.unit(TIMER).exists() { "installed" } else { "missing" };
        return json!({ "enabled": word, "active": "systemd does not run that system now" });
    }
    json!({ "enabled": systemd::word(&["is-enabled", TIMER]), "active": systemd::word(&["is-active", TIMER]) })
}

/// When the next captures are due.
pub(super) fn next(settings: &Settings) -> Vec<String> {
    let (zone, mut now) = (TimeZone::system(), Timestamp::now());
    let mut times = Vec::new();
    for _ in 0..NEXT {
        now = settings.every.next(now, settings.at, &zone);
        times.push(clock::rfc3339(now));
    }
    times
}

/// The settings without what gives somebody access.
pub(super) fn without_secrets(settings: &Settings) -> Value {
    let mut object = json!(settings);
    if let Some(url) = &settings.alarm.webhook {
        object["alarm"]["webhook"] = json!(without_path(url));
    }
    object
}

/// A webhook's path often is its password.
fn without_path(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/…")
}

/// The settings in words.
pub(super) fn settings_text(settings: &Settings) -> String {
    let mut out = String::new();
    line(&mut out, "machine", &settings.machine);
    line(&mut out, "disks", &settings.disks.join(", "));
    line(&mut out, "share", &settings.repo);
    line(&mut out, "every", &format!("{} ({})", settings.every, settings.every.calendar(settings.at)));
    let kinds = [("full", settings.full), ("differential", settings.differential)];
    let say = |(kind, cadence): (&str, Option<Cadence>)| {
        cadence.map(|cadence| format!("{kind} {}", cadence.word()))
    };
    line(&mut out, "kinds", &kinds.into_iter().filter_map(say).collect::<Vec<_>>().join(", "));
    let rules = settings.keep.rules().map(|(name, count)| format!("{name} {count}"));
    line(&mut out, "keep", &rules.collect::<Vec<_>>().join(", "));
    let alarm =
        settings.alarm.command.clone().or_else(|| settings.alarm.webhook.as_deref().map(without_path));
    line(&mut out, "alarm", &alarm.unwrap_or_default());
    out
}

fn last_text(last: Option<&Last>, trouble: Option<&str>) -> String {
    let mut out = String::new();
    let Some(last) = last else {
        line(&mut out, "last run", trouble.unwrap_or("none yet"));
        return out;
    };
    let result = json!(last.result);
    let result = result.as_str().unwrap_or_default();
    line(&mut out, "last run", &format!("{} to {}: {result}", last.started, last.ended));
    if let Some(id) = &last.capture {
        line(&mut out, "", &format!("capture id:{id}, {}", last.why));
    }
    line(&mut out, "", last.error["message"].as_str().unwrap_or_default());
    line(&mut out, "", last.error["advice"].as_str().unwrap_or_default());
    if let Some(error) = last.prune["error"]["message"].as_str() {
        line(&mut out, "", &format!("old captures were not removed: {error}"));
    }
    if last.failures > 0 {
        line(&mut out, "failed runs", &format!("{} in a row", last.failures));
    }
    if let Some(trouble) = &last.alarm.trouble {
        line(&mut out, "alarm", &format!("nobody was told: {trouble}"));
    }
    out
}

fn line(out: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        out.push_str(&format!("{name:<16}{value}\n"));
    }
}
