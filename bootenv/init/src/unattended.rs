//! A task that nobody watches: wait for its disks, open the share, run `imager`, say what became of it.

use crate::changes::Changes;
use crate::log;
use crate::operation::Operation;
use bootenv_init::{Settings, Task};
use imager_disk::System;
use imager_units::{ByteLen, Context, Error, ErrorKind, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a disk may take to appear: controllers that look at their shelves, USB.
const DISKS: Duration = Duration::from_secs(90);
/// Exit statuses: done, but something is missing from the result; the share was lost; stopped by a signal.
const MISSING: i32 = 2;
const LOST: i32 = 5;
const STOPPED: i32 = 130;
/// How often what lost its share is run again, and the pause before; each time has the whole patience of its own.
const AGAIN: u32 = 5;
const PAUSE: Duration = Duration::from_secs(15);
/// How often progress is shown, at most: a serial line is slow, and somebody has to read it.
const SHOW: Duration = Duration::from_secs(10);

/// Does it; `true` when all of it was done.
///
/// # Errors
/// Whatever kept it from being done, in words for the console.
pub(crate) fn run(task: &Task, settings: &Settings, changes: &Changes) -> Result<bool> {
    let mut words = task.words();
    let operation = Operation::begin(&format!("by itself: imager {}", words.join(" ")))?;
    for disk in task.disks() {
        await_disk(disk, changes)?;
    }
    let look: Vec<String> = match task {
        Task::Restore { capture, .. } => vec!["show".to_owned(), capture.clone()],
        Task::Capture { .. } => vec!["list".to_owned()],
    };
    let seen = imager(&look, settings, &operation)?;
    seen.result()?;
    let of = match task {
        Task::Restore { .. } => {
            seen.object["time"].as_str().map_or(String::new(), |time| format!(": capture of {time}"))
        }
        Task::Capture { .. } => String::new(),
    };
    log::say(&format!("share open{of}"));
    if matches!(task, Task::Restore { .. }) {
        words.extend(["--unprotect", "--report"].map(str::to_owned));
    }
    log::say(&format!("running imager {}", words.join(" ")));
    let ran = imager(&words, settings, &operation)?;
    ran.tell();
    ran.result()?;
    let name = words.first().map_or("task", String::as_str);
    let is_whole = ran.status.code() == Some(0);
    log::say(&format!("{name} {}", if is_whole { "complete" } else { "ended, but something is missing" }));
    Ok(is_whole)
}

/// Waits until a disk that is named by `serial:`, `wwn:` or path is there.
fn await_disk(name: &str, changes: &Changes) -> Result<()> {
    let name = match name.split_once('=') {
        Some((number, name)) if number.parse::<u32>().is_ok() => name,
        _ => name,
    };
    let system = System::new();
    let find = || {
        system.find(name).and_then(|path| {
            let gone = || Error::new(ErrorKind::NotFound, format!("{} is not there", path.display()));
            path.exists().then_some(()).ok_or_else(gone)
        })
    };
    if changes.wait_for(DISKS, || find().is_ok()) { Ok(()) } else { find() }
}

/// How a command ended.
struct Ran {
    status: ExitStatus,
    object: Value,
}

impl Ran {
    fn result(&self) -> Result<()> {
        let text = |field: &str| self.object["error"][field].as_str().unwrap_or_default().to_owned();
        let (message, advice) = (text("message"), text("advice"));
        let how = match (self.status.code(), self.status.signal()) {
            (Some(0 | MISSING), _) => return Ok(()),
            (Some(STOPPED), _) => "it was stopped; run it again to continue".to_owned(),
            (Some(code), _) if message.is_empty() => format!("imager ended with status {code}"),
            (Some(code), _) if advice.is_empty() => format!("{message}, exit status {code}"),
            (Some(code), _) => format!("{message} ({advice}), exit status {code}"),
            (None, signal) => format!(
                "imager was killed by signal {}; dmesg may say why; run it again to continue",
                signal.unwrap_or_default()
            ),
        };
        Err(Error::new(ErrorKind::Io, how))
    }

    /// What a person should know although it went well.
    fn tell(&self) {
        let bytes = |field: &str| self.object[field].as_u64().map(|n| ByteLen::new(n).to_string());
        for (field, what) in [
            ("written_bytes", "written"),
            ("matched_bytes", "there already"),
            ("new_bytes", "new"),
            ("stored_bytes", "stored"),
        ] {
            if let Some(size) = bytes(field) {
                log::say(&format!("{size} {what}"));
            }
        }
        for untouched in self.object["untouched"].as_array().into_iter().flatten() {
            let how = match (untouched["unchanged"].as_bool(), untouched["in_use"] == true) {
                (Some(true), _) => "untouched",
                (Some(false), _) => "CHANGED, though nothing of it was to be written",
                (None, true) => "in use, so not compared; the disk's counters say that we did not write it",
                (None, false) => "not compared",
            };
            log::say(&format!("volume {}: {how}", untouched["key"].as_str().unwrap_or("?")));
        }
        for list in ["warnings", "problems", "not_captured"] {
            for line in self.object[list].as_array().into_iter().flatten() {
                let text = line
                    .as_str()
                    .or_else(|| line["message"].as_str())
                    .map_or_else(|| line.to_string(), str::to_owned);
                log::say(&format!("{}: {text}", list.trim_end_matches('s')));
            }
        }
    }
}

/// Runs `imager`, again when the share is lost: it continues where it was.
fn imager(words: &[String], settings: &Settings, operation: &Operation) -> Result<Ran> {
    for left in (0..AGAIN).rev() {
        let ran = imager_once(words, settings, operation)?;
        if ran.status.code() != Some(LOST) || left == 0 {
            return Ok(ran);
        }
        let why = ran.result().err().map_or(String::new(), |error| error.to_string());
        log::say(&format!("{why}; running it again in {} s, {left} more times", PAUSE.as_secs()));
        thread::sleep(PAUSE);
    }
    Err(Error::new(ErrorKind::Io, "the share was lost"))
}

/// Runs `imager` with what the settings say about the share, showing its progress.
fn imager_once(words: &[String], settings: &Settings, operation: &Operation) -> Result<Ran> {
    let say = || "running imager".to_owned();
    let mut command = Command::new("imager");
    command.args(words).args(["--json", "--progress", "json"]).envs(environment(settings));
    if let Some(limit) = &settings.limit {
        command.args(["--limit", limit]);
    }
    command.stdin(operation.share()?).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(say)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let object = thread::scope(|scope| {
        scope
            .spawn(|| stderr.into_iter().for_each(|stderr| show_progress(BufReader::new(stderr), operation)));
        let mut out = String::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut out)).map(|_| out)
    })
    .context(say)?;
    let status = child.wait().context(say)?;
    let object = serde_json::from_str(&object).unwrap_or(Value::Null);
    Ok(Ran { status, object })
}

/// The variables by which `imager` learns about the share; secrets are never among its words.
pub(crate) fn environment(settings: &Settings) -> BTreeMap<&'static str, String> {
    let all = [
        ("IMAGER_REPO", &settings.repo),
        ("IMAGER_TOKEN", &settings.token),
        ("IMAGER_PASSWORD", &settings.password),
        ("IMAGER_SHARE_PASSWORD", &settings.share_password),
        ("IMAGER_PATIENCE", &settings.patience),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
}

/// Shows progress until it ends; all of it goes where others look, and what is new about it on the terminals.
fn show_progress(mut lines: impl BufRead, operation: &Operation) {
    let (mut shown, mut last) = (None::<Instant>, String::new());
    let mut line = Vec::new();
    // Whatever it says is read to the end: who does not read would stop it.
    while lines.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let Ok(seen) = serde_json::from_str::<Value>(&text) else {
            log::say(&text);
            continue;
        };
        let text = progress(&seen);
        operation.say(&format!("by itself: {text}"));
        let phase = seen["phase"].as_str().unwrap_or_default();
        if phase != last || shown.is_none_or(|shown| shown.elapsed() >= SHOW) {
            log::say(&text);
            (shown, last) = (Some(Instant::now()), phase.to_owned());
        }
    }
}

fn progress(seen: &Value) -> String {
    let size = |field: &str| seen[field].as_u64().map(|n| ByteLen::new(n).to_string());
    let mut text = seen["phase"].as_str().unwrap_or_default().to_owned();
    if let (Some(done), Some(total)) = (size("done_bytes"), size("total_bytes")) {
        text.push_str(&format!(": {done} of {total}"));
    }
    if let Some(left) = seen["eta_seconds"].as_f64() {
        text.push_str(&format!(", {left:.0} s left"));
    }
    if let Some(error) = seen["error"].as_str() {
        text.push_str(&format!(": {error}"));
    }
    text
}
