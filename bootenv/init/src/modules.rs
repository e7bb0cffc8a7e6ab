//! Drivers: for every device its name is asked of `modprobe`, at the start and as devices come. Names are asked together,
//! because starting the program costs more than what it does.

use crate::program;
use imager_units::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// So many names in one command.
const TOGETHER: usize = 200;
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

    /// Waits until everything that was asked for is done.
    pub(crate) fn wait(&self) {
        let (open, done) = &*self.open;
        let open = open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(done.wait_while(open, |open| *open > 0));
    }
}

fn load(wanted: &Receiver<String>, open: &(Mutex<u64>, Condvar)) {
    let mut known = HashSet::new();
    while let Ok(first) = wanted.recv() {
        let names: Vec<_> = std::iter::once(first).chain(wanted.try_iter()).collect();
        let new: Vec<_> =
            names.iter().map(String::as_str).filter(|name| known.insert((*name).to_owned())).collect();
        for some in new.chunks(TOGETHER) {
            // Most devices have no driver of their own, which is no failure.
            drop(program::run("modprobe", &[&["-a", "-b", "-q", "--"], some].concat()));
        }
        let mut left = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(names.len() as u64);
        open.1.notify_all();
    }
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
