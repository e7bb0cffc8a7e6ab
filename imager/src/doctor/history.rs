//! What there is of a machine on the share, and how old it is.

use super::design::{Design, is_recovered};
use super::{Finding, Level};
use crate::captures::{self, Selector};
use crate::repository::Repository;
use crate::schedule::Standing;
use imager_image::manifest::{Manifest, Mode, Role};
use imager_units::{ErrorKind, Result};
use jiff::Timestamp;
use std::time::Duration;

/// A capture that no schedule made is old after this.
const OLD: Duration = Duration::from_secs(7 * 86_400);

/// The captures of a machine.
pub struct History {
    /// Whose they are.
    pub machine: String,
    /// The newest that a restore would take.
    pub newest: Option<Manifest>,
    /// What is there and cannot be used.
    pub unusable: Vec<String>,
}

impl History {
    /// Reads it.
    ///
    /// # Errors
    /// Those of the share.
    pub fn read(repository: &Repository, machine: &str) -> Result<Self> {
        let (newest, unusable) = match captures::find(repository, &Selector::Latest(machine.to_owned())) {
            Ok((newest, unusable)) => (Some(newest), unusable),
            Err(error) if error.kind() == ErrorKind::NotFound => (None, Vec::new()),
            Err(error) if error.kind() == ErrorKind::Corrupt => (None, vec![error.to_string()]),
            Err(error) => return Err(error),
        };
        Ok(Self { machine: machine.to_owned(), newest, unusable })
    }
}

/// Looks at the captures of a machine that is so by now.
pub fn examine(history: &History, design: &Design, now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<_> = history.unusable.iter().map(|what| unusable(what)).collect();
    let Some(newest) = &history.newest else {
        findings.push(Finding::new(
            Level::Problem,
            "captures",
            format!("there is no capture of {} that a restore would take", history.machine),
            "what was never captured cannot be put back",
            "imager capture, or imager schedule set",
        ));
        return findings;
    };
    findings.extend(age(newest, now));
    findings.extend(newest.problems.iter().map(|problem| {
        Finding::new(
            Level::Problem,
            "captures",
            format!("the newest capture lacks something of volume {}: {}", problem.volume, problem.message),
            "a restore of it gives that back as zeros, or not at all",
            "mend the cause and capture again; an earlier capture may have it",
        )
    }));
    findings.extend(changed(newest, design));
    findings.extend(data(newest, design));
    findings
}

fn unusable(what: &str) -> Finding {
    Finding::new(
        Level::Warning,
        "captures",
        what,
        "a capture that cannot be used is one point in time less",
        "imager verify names what is damaged",
    )
}

fn age(newest: &Manifest, now: Timestamp) -> Option<Finding> {
    const CHECK: &str = "age";
    let time: Timestamp = newest.header.time.parse().ok()?;
    let every = newest.schedule.as_ref().map(|schedule| Duration::from_secs(schedule.every_seconds));
    let standing = Standing::new(time, every.unwrap_or(OLD), true, now);
    let said = format!("the newest capture is of {}", newest.header.time);
    if standing.overdue_seconds > 0 {
        return Some(Finding::new(
            Level::Problem,
            CHECK,
            format!("{said}: {}", standing.words()),
            "what changed since is lost in a recovery",
            "imager schedule show says what the last runs came to; imager schedule set makes captures regular",
        ));
    }
    Some(match every {
        Some(_) => Finding::good(CHECK, format!("{said}, {} ago, by its schedule", standing.words())),
        None => Finding::new(
            Level::Advice,
            CHECK,
            format!("{said}, {} ago, and no schedule made it", standing.words()),
            "the next one is made only if somebody thinks of it",
            "imager schedule set",
        ),
    })
}

/// Volumes that a recovery would not find in the capture as they are now.
fn changed(newest: &Manifest, design: &Design) -> Vec<Finding> {
    let now = design.parts.iter().filter(|part| matches!(part.role, Role::Boot | Role::Os));
    let captured = |key: &str| is_recovered(newest).find(|volume| volume.key == key);
    let finding = |what: String| {
        Finding::new(
            Level::Problem,
            "layout",
            what,
            "the plan of a restore in place compares places and refuses what has moved",
            "capture again; imager inspect shows what there is now",
        )
    };
    now.filter_map(|part| match captured(&part.key) {
        None => {
            Some(finding(format!("{} is not in the newest capture as boot or system volume", part.said())))
        }
        Some(then) if then.size_bytes != part.size_bytes => {
            Some(finding(format!("{} had another size when it was captured", part.said())))
        }
        Some(_) => None,
    })
    .collect()
}

/// What a new machine would get of the data volumes.
fn data(newest: &Manifest, design: &Design) -> Vec<Finding> {
    const CHECK: &str = "skeletons";
    let captured =
        |key: &str| newest.volumes.iter().find(|volume| volume.key == key && volume.mode != Mode::None);
    let (there, missing): (Vec<_>, Vec<_>) =
        design.of_role(Role::Data).partition(|part| captured(&part.key).is_some());
    let names = |parts: &[&super::Part]| parts.iter().map(|part| part.said()).collect::<Vec<_>>().join(", ");
    let mut findings = Vec::new();
    if !there.is_empty() {
        findings
            .push(Finding::good(CHECK, format!("the newest capture has the structure of {}", names(&there))));
    }
    if !missing.is_empty() {
        findings.push(Finding::new(
            Level::Warning,
            CHECK,
            format!("nothing of {} is in the newest capture", names(&missing)),
            "after a total loss nobody recreates these filesystems and their folders but you",
            "capture without --data none",
        ));
    }
    findings
}
