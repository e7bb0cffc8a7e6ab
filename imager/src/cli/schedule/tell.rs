//! Telling somebody: systemd's journal always, and a command or a webhook. What goes wrong with that is told, too, and
//! never what a capture fails of.

use crate::cli::failure::chain;
use crate::cli::output::tell;
use imager::schedule::{Event, Last, Settings};
use imager_units::{Context, Error, ErrorKind, Result};
use jiff::Timestamp;
use netshare_store::http::post_json;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command or a server may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// No secret is shorter than this; what is shorter would be found everywhere.
const LEAST_SECRET_BYTES: usize = 4;

/// Says a line to systemd's journal, with its priority, or to whoever reads stderr.
pub(super) fn log(priority: u8, line: &str) {
    let line = line.replace('\n', " ");
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        tell(format!("<{priority}>imager: {line}"));
    } else {
        tell(format!("imager: {line}"));
    }
}

/// Tells of an event, and notes in `last` what became of that.
pub(super) fn of(event: Event, settings: &Settings, last: &mut Last, now: Timestamp) {
    log(event.priority(), &event.line(last));
    let delivered = deliver(event, settings, last, now);
    if let Err(error) = &delivered {
        log(3, &format!("nobody was told of it: {}", chain(error)));
    }
    let delivered = delivered.map_err(|error| Error::new(error.kind(), chain(&error)));
    last.told(event, &delivered, &imager::clock::rfc3339(now));
}

fn deliver(event: Event, settings: &Settings, last: &Last, now: Timestamp) -> Result<()> {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let (every, secrets) = (settings.every.length(), secrets(settings));
    if let Some(command) = &settings.alarm.command {
        return run(command, &without(&secrets, event.text(last, &host, every, now)));
    }
    let Some(url) = &settings.alarm.webhook else { return Ok(()) };
    let text = without(&secrets, event.json(last, &host, every, now).to_string());
    // A webhook's URL often is its password.
    post_json(url, text.into_bytes(), PATIENCE).map_err(|error| error.within("the webhook"))
}

fn run(command: &str, text: &str) -> Result<()> {
    let say = || "running the alarm command".to_owned();
    let mut shell = Command::new("/bin/sh");
    for name in ["IMAGER_PASSWORD", "IMAGER_SHARE_PASSWORD", "IMAGER_TOKEN"] {
        shell.env_remove(name);
    }
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = shell.spawn().context(say)?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it may know enough.
        let _ignored = input.write_all(text.as_bytes());
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().context(say)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                return Err(Error::new(ErrorKind::Io, format!("the alarm command ended with {status}")));
            }
            None if Instant::now() > end => {
                child.kill().and_then(|()| child.wait()).context(say)?;
                let what = format!("the alarm command did not end within {} s", PATIENCE.as_secs());
                return Err(Error::new(ErrorKind::Io, what));
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// What must not be told, should an error ever contain it.
fn secrets(settings: &Settings) -> Vec<String> {
    let files = [&settings.password_file, &settings.token_file, &settings.share_password_file];
    let read = |file: &PathBuf| std::fs::read_to_string(file).ok();
    let lines = files.into_iter().flatten().filter_map(read);
    let first = |text: String| text.lines().next().map(str::to_owned);
    lines.filter_map(first).filter(|line| line.len() >= LEAST_SECRET_BYTES).collect()
}

fn without(secrets: &[String], text: String) -> String {
    secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "(secret)"))
}
