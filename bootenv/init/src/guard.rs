//! Puts back the write protection that a restore lifted and did not put back itself, because it was killed.
//!
//! Nobody tells when a process of somebody else's child ended and gave its lock back, so it is looked each second: at a
//! folder in memory that is nearly always empty. A restore that still runs holds its note, and keeps what it lifted.

use crate::{log, protect};
use imager_disk::lifted;
use imager_units::{Context, Error, ErrorKind, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(1);
/// How long a disk may take to answer before the others are looked after.
const ANSWER: Duration = Duration::from_secs(10);

/// Watches from now on.
///
/// # Errors
/// `Io` without a thread.
pub(crate) fn watch() -> Result<()> {
    let spawned = thread::Builder::new().name("guard".to_owned()).spawn(|| {
        let mut told = HashSet::new();
        loop {
            for note in lifted::notes(Path::new(lifted::FOLDER)) {
                look_after(note, &mut told);
            }
            thread::sleep(LOOK);
        }
    });
    spawned.context(|| "watching over write protection".to_owned()).map(drop)
}

/// What fails is tried on, and told once.
fn look_after(note: PathBuf, told: &mut HashSet<PathBuf>) {
    match settle(&note) {
        Ok(nodes) => {
            told.remove(&note);
            if !nodes.is_empty() {
                let names: Vec<_> = nodes.iter().map(|node| node.display().to_string()).collect();
                log::say(&format!("a restore ended early; protected again: {}", names.join(", ")));
            }
        }
        Err(error) => {
            let what = format!("write-protecting again what a restore left: {}", log::chain(&error));
            if told.insert(note) {
                log::failed(&what, protect::NEXT);
            }
        }
    }
}

/// A disk that does not answer keeps its own thread, and the note that this holds; it is not asked again meanwhile.
fn settle(note: &Path) -> Result<Vec<PathBuf>> {
    let (sender, answer) = sync_channel(1);
    let own = note.to_owned();
    let spawned = thread::Builder::new().name("settle".to_owned());
    let say = || "starting a thread".to_owned();
    spawned.spawn(move || drop(sender.send(lifted::settle(&own)))).context(say)?;
    answer.recv_timeout(ANSWER).unwrap_or_else(|_| {
        let what = format!("the disk of {} does not answer for {} s", note.display(), ANSWER.as_secs());
        Err(Error::new(ErrorKind::Io, what))
    })
}
