//! What the rescue environment says: lines with the seconds since the start, on every console that no program has, and
//! in a file for later.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Where everything is kept.
pub(crate) const FILE: &str = "/run/halfhour/log";

/// The consoles that show lines now.
static SHOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on lines are shown on these terminals.
pub(crate) fn show_on(terminals: &[String]) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = terminals.to_vec();
}

/// A line for everybody.
pub(crate) fn say(line: &str) {
    let seconds = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = seconds.split(' ').next().unwrap_or_default();
    let text = format!("[{seconds:>8}] halfhour: {line}\n");
    append(Path::new(FILE), &text);
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    for terminal in &*shown {
        // A terminal in raw mode wants the carriage return too.
        if let Ok(mut terminal) = OpenOptions::new().write(true).open(terminal) {
            drop(terminal.write_all(text.replace('\n', "\r\n").as_bytes()));
        }
    }
    if shown.is_empty() {
        print!("{text}");
    }
}

/// A line about what failed, with what a person can do about it.
pub(crate) fn failed(what: &str, next: &str) {
    say(&format!("failed: {what}"));
    if !next.is_empty() {
        say(&format!("  next: {next}"));
    }
}

fn append(path: &Path, text: &str) {
    let file: std::io::Result<File> = OpenOptions::new().append(true).create(true).open(path);
    drop(file.and_then(|mut file| file.write_all(text.as_bytes())));
}
