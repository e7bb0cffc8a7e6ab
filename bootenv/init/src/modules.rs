//! Drivers: for every device its name is asked of `modprobe`, at the start and as devices come. Names are asked together,
//! because starting the program costs more than what it does; one by one after a driver did not come back, so that it
//! keeps nobody else waiting.

use crate::{log, program};
use imager_units::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// So many names in one command.
const TOGETHER: usize = 200;
/// How long drivers may take to look at their devices.
const PATIENCE: Duration = Duration::from_secs(20);
/// Whether drivers look at their devices in their own time; Linux 6.3 or newer (kernel/module/main.c).
const IN_THEIR_TIME: &str = "/sys/module/module/parameters/async_probe";
/// What no device asks for.
const ALWAYS: [&str; 5] = ["efivarfs", "loop", "usbhid", "atkbd", "sd_mod"];

/// Takes names of devices and loads what drives them.
#[derive(Clone)]
pub(crate) struct Modules {
    names: Sender<String>,
    /// Names that were asked for and are not done.
    open: Arc<(Mutex<u64>, Condvar)>,
}

impl Modules {
    /// Starts to load.
    ///
    /// # Errors
    /// `Io` without a thread.
    pub(crate) fn start() -> Result<Self> {
        let (names, wanted) = channel();
        let modules = Self { names, open: Arc::default() };
        let open = Arc::clone(&modules.open);
        let spawned = thread::Builder::new().name("modules".to_owned()).spawn(move || load(&wanted, &open));
        spawned.context(|| "loading drivers".to_owned())?;
        Ok(modules)
    }

    /// Loads what drives the device of this name, some time.
    pub(crate) fn want(&self, name: &str) {
        *self.open.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if self.names.send(name.to_owned()).is_err() {
            *self.open.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        }
    }

    /// Looks at all devices there are.
    pub(crate) fn look(&self) {
        ALWAYS.iter().for_each(|name| self.want(name));
        walk(Path::new("/sys/devices"), &mut |alias| self.want(alias));
    }

    /// Waits until everything that was asked for is done, for at most `most`; whether it is.
    pub(crate) fn wait(&self, most: Duration) -> bool {
        let (open, done) = &*self.open;
        let open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = done.wait_timeout_while(open, most, |open| *open > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

fn load(wanted: &Receiver<String>, open: &(Mutex<u64>, Condvar)) {
    let mut known = HashSet::new();
    while let Ok(first) = wanted.recv() {
        let names: Vec<_> = std::iter::once(first).chain(wanted.try_iter()).collect();
        let new: Vec<_> =
            names.iter().map(String::as_str).filter(|name| known.insert((*name).to_owned())).collect();
        for some in new.chunks(TOGETHER) {
            load_some(some);
        }
        let mut left = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(names.len() as u64);
        open.1.notify_all();
    }
}

fn load_some(names: &[&str]) {
    let begun = std::time::Instant::now();
    // Most devices have no driver of their own, which is no failure.
    drop(program::run_within(PATIENCE, "modprobe", &[&["-a", "-b", "-q", "--"], names].concat()));
    if begun.elapsed() < PATIENCE {
        return;
    }
    // A controller may take minutes to look at its shelves, so this is no failure yet.
    log::say(&format!(
        "a driver has not come back for {} s; the others are loaded meanwhile, dmesg may say more",
        PATIENCE.as_secs()
    ));
    // Loading any driver ends with a wait for every disk that is being looked at (`async_synchronize_full`), so one that
    // never answers would keep all others waiting, even a driver for what it builds on.
    drop(fs::write(IN_THEIR_TIME, "1"));
    for name in names {
        let name = (*name).to_owned();
        let load = move || drop(program::run_within(PATIENCE, "modprobe", &["-b", "-q", "--", &name]));
        drop(thread::Builder::new().name("modprobe".to_owned()).spawn(load));
    }
    // All of them have had their time then.
    thread::sleep(PATIENCE / 4);
}

/// Calls `each` with the content of every file `modalias` below a folder.
fn walk(folder: &Path, each: &mut dyn FnMut(&str)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, each),
            Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                if let Ok(alias) = fs::read_to_string(&path) {
                    each(alias.trim());
                }
            }
            _ => {}
        }
    }
}
