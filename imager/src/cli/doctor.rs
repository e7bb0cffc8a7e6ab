//! `imager doctor`.

use super::args::{Doctor, Global};
use super::failure::Failure;
use super::output::{print, print_json};
use super::progress::Shown;
use super::schedule::fixed_disks;
use super::{Status, capture, session};
use imager::doctor::{self, Design, Finding, History, Level, Tree};
use imager::firmware::{Facts, Firmware};
use imager::repository::Repository;
use imager::survey::{self, Assigned};
use imager::view::CaptureView;
use imager_image::manifest::Manifest;
use imager_units::ErrorKind;
use jiff::Timestamp;
use serde_json::json;

pub(crate) fn run(global: &Global, options: &Doctor) -> Result<Status, Failure> {
    let monitor = Shown::new(global);
    let (mut findings, mut warnings) = (Vec::new(), Vec::new());
    match &options.capture {
        Some(name) => {
            let repository = session::repository(global)?;
            let (manifest, told) = session::capture(&repository, name)?;
            warnings.extend(told);
            let history = History {
                machine: manifest.header.machine.clone(),
                newest: Some(manifest),
                unusable: Vec::new(),
            };
            look_at_capture(&repository, history, None, &monitor, &mut findings)?;
        }
        None => warnings.extend(look_at_machine(global, options, &monitor, &mut findings)?),
    }
    drop(monitor);
    doctor::worst_first(&mut findings);
    if global.json {
        print_json(&json!({ "findings": findings, "warnings": warnings }));
    } else {
        print(&to_text(&findings, &warnings));
    }
    let is_sound = !findings.iter().any(|finding| finding.level == Level::Problem);
    Ok(if is_sound { Status::Done } else { Status::Missing })
}

/// The machine that this runs on, and its captures where a repository was named.
fn look_at_machine(
    global: &Global,
    options: &Doctor,
    monitor: &Shown,
    findings: &mut Vec<Finding>,
) -> Result<Vec<String>, Failure> {
    let tree = Tree::default();
    let names = if options.disk.is_empty() { fixed_disks()? } else { options.disk.clone() };
    if names.is_empty() {
        return Err(Failure::usage(
            "which disks? This machine shows none of its own: say --disk DISK, or name a capture",
        ));
    }
    let paths = names.iter().map(|name| session::disk(name)).collect::<Result<Vec<_>, _>>()?;
    let mut sources = Vec::new();
    for (number, path) in (1..).zip(&paths) {
        sources.push((number, survey::open(path, None)?));
    }
    let mut survey = survey::survey(sources, &Assigned::new())?;
    survey.firmware = Facts::of(&Firmware::new());
    let design = Design::of_survey(&survey, &tree);
    findings.extend(doctor::design(&design, Some(&tree)));
    let mut warnings = survey.warnings;
    if global.repo.as_deref().is_none_or(str::is_empty) {
        warnings.push(
            "no repository was named (--repo): captures and the time of a recovery were not looked at"
                .to_owned(),
        );
        return Ok(warnings);
    }
    let machine = match &options.machine {
        Some(machine) => machine.clone(),
        None => capture::default_machine(&paths, true)?,
    };
    imager_image::names::check_machine(&machine)?;
    let repository = session::repository(global)?;
    let history = History::read(&repository, &machine)?;
    look_at_capture(&repository, history, Some(&design), monitor, findings)?;
    Ok(warnings)
}

/// The newest capture, or the one that was named, beside the machine as it is now or by itself.
fn look_at_capture(
    repository: &Repository,
    history: History,
    now: Option<&Design>,
    monitor: &Shown,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let view = history.newest.clone().map(|manifest| CaptureView::new(repository, manifest));
    let captured = match (&view, now) {
        (Some(view), None) => Some(Design::of_capture(view).map_err(Failure::damaged)?),
        _ => None,
    };
    if let Some(captured) = &captured {
        findings.extend(doctor::design(captured, None));
    }
    if let Some(design) = now.or(captured.as_ref()) {
        findings.extend(doctor::history(&history, design, Timestamp::now()));
    }
    if let Some(view) = &view {
        findings.extend(speed(view, monitor)?);
    }
    Ok(())
}

/// How long a recovery would take; damage on the way is a finding of its own command.
fn speed(view: &CaptureView<'_>, monitor: &Shown) -> Result<Option<Finding>, Failure> {
    let manifest: &Manifest = view.manifest();
    match doctor::measure(view, monitor) {
        Ok(measured) => Ok(measured.map(|measured| doctor::recovery(manifest, measured))),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
            Err(Failure::damaged(error))
        }
        Err(error) => Err(error.into()),
    }
}

fn to_text(findings: &[Finding], warnings: &[String]) -> String {
    let mut out = String::new();
    for finding in findings {
        let word = match finding.level {
            Level::Good => "good",
            Level::Advice => "advice",
            Level::Warning => "WARNING",
            Level::Problem => "PROBLEM",
        };
        out.push_str(&format!("{word}: {}\n", finding.what));
        if finding.level > Level::Good {
            out.push_str(&format!("  why: {}\n  do:  {}\n", finding.why, finding.todo));
        }
    }
    for warning in warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, warned, advised) = (count(Level::Problem), count(Level::Warning), count(Level::Advice));
    out.push_str(&format!("problems: {problems}, warnings: {warned}, advice: {advised}\n"));
    out
}
