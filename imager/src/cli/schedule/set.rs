//! `imager schedule set`: checks everything once, writes the schedule down, and has systemd keep to it.

use super::child::Caller;
use super::disks::{self, Chosen};
use super::place::Place;
use super::stop::Stop;
use super::{seen, show, systemd};
use crate::cli::Status;
use crate::cli::args::{DataArg, Global, ScheduleSet};
use crate::cli::failure::{Failure, chain};
use crate::cli::output::{print, print_json};
use crate::cli::session;
use imager::schedule::{self, AlarmSettings, Keep, SERVICE, Settings, TIMER};
use imager_image::names;
use imager_units::{Context, Error, ErrorKind, Result};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Who knows what changes on disks that are in use.
const JOURNAL: &str = "halfhour-journal.service";

pub(super) fn run(
    global: &Global,
    place: &Place,
    wanted: &ScheduleSet,
) -> std::result::Result<Status, Failure> {
    let location = session::location(global)?;
    let disks = disks::choose(&wanted.disk, location.path())?;
    let settings = settings(global, wanted, &disks)?;
    let mut notes = advice(&settings, &disks, place);
    let captures = match wanted.no_check {
        true => None,
        false => {
            let caller = Caller { global, place, settings: &settings };
            Some(seen::list(&caller, global.patience, &mut Stop::new()?)?.0.len())
        }
    };
    let done = install(place, &settings, &mut notes)?;
    let next = show::next(&settings);
    if global.json {
        print_json(&json!({
            "schedule": show::without_secrets(&settings), "done": done, "next": next, "captures": captures,
            "warnings": notes,
        }));
        return Ok(Status::Done);
    }
    print(&show::settings_text(&settings));
    if let Some(count) = captures {
        print(&format!("the share was opened; it has {count} captures of {}\n", settings.machine));
    }
    done.iter().for_each(|line| print(&format!("{line}\n")));
    notes.iter().for_each(|note| print(&format!("warning: {note}\n")));
    print(&format!("the next captures are due {}\n", next.join(", ")));
    Ok(Status::Done)
}

fn settings(
    global: &Global,
    wanted: &ScheduleSet,
    disks: &[Chosen],
) -> std::result::Result<Settings, Failure> {
    let paths: Vec<PathBuf> = disks.iter().map(|disk| disk.path.clone()).collect();
    let machine = match &wanted.machine {
        Some(machine) => machine.clone(),
        None => super::super::capture::default_machine(&paths, disks.iter().any(|disk| disk.is_block))?,
    };
    names::check_machine(&machine)?;
    Ok(Settings {
        repo: repository(global)?,
        machine,
        disks: disks.iter().map(|disk| disk.name.clone()).collect(),
        every: wanted.every,
        at: wanted.at,
        full: wanted.full.map(Into::into),
        differential: wanted.differential.map(Into::into),
        roles: wanted.role.iter().map(|(key, role)| format!("{key}={}", word(json!(role)))).collect(),
        data: wanted.data.map(|data| {
            match data {
                DataArg::Skeleton => "skeleton",
                DataArg::Used => "used",
                DataArg::None => "none",
            }
            .to_owned()
        }),
        keep_files: wanted.keep.clone(),
        limit: global.limit.map(|limit| limit.get().to_string()),
        password_file: secret("IMAGER_PASSWORD", "--password-file", wanted.password_file.as_deref())?,
        token_file: secret("IMAGER_TOKEN", "--token-file", wanted.token_file.as_deref())?,
        share_password_file: secret(
            "IMAGER_SHARE_PASSWORD",
            "--share-password-file",
            wanted.share_password_file.as_deref(),
        )?,
        keep: Keep {
            last: wanted.keep_last,
            hourly: wanted.keep_hourly,
            daily: wanted.keep_daily,
            weekly: wanted.keep_weekly,
            monthly: wanted.keep_monthly,
        },
        alarm: AlarmSettings {
            command: wanted.alarm_command.clone(),
            webhook: wanted.alarm_webhook.clone().map(webhook).transpose()?,
            after_failures: wanted.after_failures,
        },
    })
}

fn word(value: serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The repository's URL, wherever the command that uses it is started.
fn repository(global: &Global) -> std::result::Result<String, Failure> {
    match session::location(global)?.path() {
        Some(path) => {
            Ok(std::path::absolute(path).context(|| "resolving --repo".to_owned())?.display().to_string())
        }
        None => Ok(global.repo.clone().unwrap_or_default()),
    }
}

fn webhook(url: String) -> std::result::Result<String, Failure> {
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(url);
    }
    Err(Failure::usage("--alarm-webhook wants an http:// or https:// URL"))
}

/// Where a secret is: in a file that nobody else may read. One that only this shell knows is not there at night.
fn secret(variable: &str, flag: &str, file: Option<&Path>) -> std::result::Result<Option<PathBuf>, Failure> {
    let given = std::env::var_os(format!("{variable}_FILE")).map(PathBuf::from);
    let Some(file) = file.map(Path::to_owned).or(given) else {
        let is_here = [variable.to_owned(), format!("{variable}_COMMAND")]
            .iter()
            .any(|n| std::env::var_os(n).is_some());
        if is_here {
            let advice = format!("put it into a file that root alone may read, and say {flag} FILE");
            let what =
                format!("{variable} is set for this shell alone, and scheduled captures would not have it");
            return Err(Failure::new(4, Error::new(ErrorKind::Denied, what), advice));
        }
        return Ok(None);
    };
    let say = || format!("looking at {}", file.display());
    let file = std::fs::canonicalize(&file).context(say)?;
    let metadata = std::fs::metadata(&file).context(say)?;
    let is_ours = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
    if is_ours && metadata.mode() & 0o077 == 0 {
        return Ok(Some(file));
    }
    let what = format!("{} may be read or changed by others than root", file.display());
    let advice = format!("chown root {0} && chmod 600 {0}; nothing was set", file.display());
    Err(Failure::new(4, Error::new(ErrorKind::Denied, what), advice))
}

/// What a person should know before the first night.
fn advice(settings: &Settings, disks: &[Chosen], place: &Place) -> Vec<String> {
    let mut notes = Vec::new();
    let in_use: Vec<_> =
        disks.iter().filter(|disk| !disk.users.is_empty()).map(|disk| disk.name.as_str()).collect();
    let journal = systemd::word(&["is-active", JOURNAL]);
    if place.other_root().is_none() && !in_use.is_empty() && journal.as_deref() != Some("active") {
        notes.push(format!(
            "{} is in use, and no journal of its changes runs ({JOURNAL} is {}): captures of it may be refused, or read \
             everything each time; systemctl enable --now {JOURNAL} starts it, and again with the machine",
            in_use.join(", "),
            journal.as_deref().unwrap_or("not there")
        ));
    }
    for disk in disks.iter().filter(|disk| disk.is_block && disk.name == disk.path.display().to_string()) {
        notes.push(format!(
            "{} has no serial number: after a restart another disk may be called so",
            disk.name
        ));
    }
    if settings.keep.is_empty() {
        notes.push("there is no --keep rule: captures stay until somebody prunes".to_owned());
    }
    if settings.alarm.command.is_none() && settings.alarm.webhook.is_none() {
        notes.push(
            "failures are told to systemd's journal only: --alarm-command or --alarm-webhook tells somebody"
                .to_owned(),
        );
    }
    notes
}

/// Writes what is new, and has systemd know of it. What was done.
fn install(place: &Place, settings: &Settings, notes: &mut Vec<String>) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let mut put = |file: PathBuf, text: String, mode: u32| -> Result<()> {
        let is_there = std::fs::read(&file).is_ok_and(|there| there == text.as_bytes());
        if !is_there {
            schedule::write(&file, text.as_bytes(), mode)?;
        }
        done.push(format!("{} {}", if is_there { "unchanged:" } else { "written:" }, file.display()));
        Ok(())
    };
    put(place.settings(), settings.text()?, 0o600)?;
    if !place.has_packaged(SERVICE) {
        put(place.unit(SERVICE), schedule::service(&program(place)?), 0o644)?;
    }
    put(place.unit(TIMER), schedule::timer(settings.every, settings.at), 0o644)?;
    let steps: &[&[&str]] = match systemd::runs(place) {
        true => &[&["daemon-reload"], &["enable", TIMER], &["restart", TIMER]],
        false => &[&["enable", TIMER]],
    };
    match steps.iter().try_for_each(|step| systemd::control(place, step)) {
        Ok(()) => done.push(format!("enabled: {TIMER}")),
        Err(error) => notes.push(format!("systemd was not told: {}", chain(&error))),
    }
    if !systemd::runs(place) {
        notes.push("systemd does not run that system now: the timer starts with it".to_owned());
    }
    Ok(done)
}

/// Where the program is for systemd.
fn program(place: &Place) -> Result<PathBuf> {
    match place.other_root() {
        Some(_) => Ok("/usr/bin/imager".into()),
        None => std::env::current_exe().context(|| "looking for this program".to_owned()),
    }
}
