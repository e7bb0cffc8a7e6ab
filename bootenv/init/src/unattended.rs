//! A task that nobody watches: wait for its disks, open the share, run `imager`, say what became of it.

use crate::events::{self, Changed};
use crate::{log, program};
use bootenv_init::{Settings, Task};
use imager_disk::System;
use imager_units::{ByteLen, Context, Error, ErrorKind, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

/// How long a disk may take to appear: controllers that look at their shelves, USB.
const DISKS: Duration = Duration::from_secs(90);
/// What the exit status 2 means: done, but something is missing from the result.
const MISSING: i32 = 2;

/// Does it; `true` when all of it was done.
///
/// # Errors
/// Whatever kept it from being done, in words for the console.
pub(crate) fn run(task: &Task, settings: &Settings, changed: &Receiver<Changed>) -> Result<bool> {
    for disk in task.disks() {
        await_disk(disk, changed)?;
    }
    let look: Vec<String> = match task {
        Task::Restore { capture, .. } => vec!["show".to_owned(), capture.clone()],
        Task::Capture { .. } => vec!["list".to_owned()],
    };
    let seen = imager(&look, settings)?;
    seen.result()?;
    let of = match task {
        Task::Restore { .. } => {
            seen.object["time"].as_str().map_or(String::new(), |time| format!(": capture of {time}"))
        }
        Task::Capture { .. } => String::new(),
    };
    log::say(&format!("share open{of}"));
    let mut words = task.words();
    if matches!(task, Task::Restore { .. }) {
        words.extend(["--unprotect", "--report"].map(str::to_owned));
    }
    log::say(&format!("running imager {}", words.join(" ")));
    let ran = imager(&words, settings)?;
    ran.tell();
    ran.result()?;
    let name = words.first().map_or("task", String::as_str);
    log::say(&format!("{name} complete"));
    Ok(ran.code == 0)
}

/// Waits until a disk that is named by `serial:`, `wwn:` or path is there.
fn await_disk(name: &str, changed: &Receiver<Changed>) -> Result<()> {
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
    if events::wait_for(changed, DISKS, || find().is_ok()) { Ok(()) } else { find() }
}

/// How a command ended.
struct Ran {
    code: i32,
    object: Value,
}

impl Ran {
    fn result(&self) -> Result<()> {
        if self.code == 0 || self.code == MISSING {
            return Ok(());
        }
        let text = |field: &str| self.object["error"][field].as_str().unwrap_or_default().to_owned();
        let message = Some(text("message")).filter(|text| !text.is_empty());
        let message = message.unwrap_or_else(|| format!("imager ended with status {}", self.code));
        let advice = text("advice");
        let advice = if advice.is_empty() { String::new() } else { format!(" ({advice})") };
        Err(Error::new(ErrorKind::Io, format!("{message}{advice}, exit status {}", self.code)))
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
            let how = if untouched["unchanged"] == true { "untouched" } else { "not proven untouched" };
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

/// Runs `imager` with what the settings say about the share, showing its progress.
fn imager(words: &[String], settings: &Settings) -> Result<Ran> {
    let say = || "running imager".to_owned();
    let mut command = Command::new("imager");
    command.args(words).args(["--json", "--progress", "json"]).envs(environment(settings));
    if let Some(limit) = &settings.limit {
        command.args(["--limit", limit]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(say)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let object = thread::scope(|scope| {
        scope.spawn(|| stderr.into_iter().for_each(|stderr| show_progress(BufReader::new(stderr))));
        let mut out = String::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut out)).map(|_| out)
    })
    .context(say)?;
    let status = child.wait().context(say)?;
    let object = serde_json::from_str(&object).unwrap_or(Value::Null);
    Ok(Ran { code: status.code().unwrap_or(-1), object })
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

fn show_progress(lines: impl BufRead) {
    for line in lines.lines().map_while(std::result::Result::ok) {
        let Ok(seen) = serde_json::from_str::<Value>(&line) else {
            log::say(&line);
            continue;
        };
        let phase = seen["phase"].as_str().unwrap_or_default();
        let size = |field: &str| seen[field].as_u64().map(|n| ByteLen::new(n).to_string());
        let mut text = phase.to_owned();
        if let (Some(done), Some(total)) = (size("done_bytes"), size("total_bytes")) {
            text.push_str(&format!(": {done} of {total}"));
        }
        if let Some(left) = seen["eta_seconds"].as_f64() {
            text.push_str(&format!(", {left:.0} s left"));
        }
        if let Some(error) = seen["error"].as_str() {
            text.push_str(&format!(": {error}"));
        }
        log::say(&text);
    }
}

/// Lets somebody with the key in.
pub(crate) fn open_ssh(key: &str) -> Result<()> {
    let say = || "letting SSH in".to_owned();
    std::fs::create_dir_all("/root/.ssh")
        .and_then(|()| std::fs::create_dir_all("/etc/dropbear"))
        .context(say)?;
    std::fs::write("/root/.ssh/authorized_keys", format!("{key}\n")).context(say)?;
    if !Path::new("/usr/sbin/dropbear").exists() {
        return Err(Error::new(ErrorKind::NotFound, "this medium has no SSH server"));
    }
    // Keys of its own, no passwords.
    program::run("/usr/sbin/dropbear", &["-R", "-s"]).map(drop)
}
