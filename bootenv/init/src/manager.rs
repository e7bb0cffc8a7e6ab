//! Everything in its order: the kernel's filesystems, write protection and drivers, the network, then the task, or a
//! person. A step that fails says so, and the next one is tried all the same.

use crate::consoles::{self, Busy};
use crate::events::{self, Changed};
use crate::modules::Modules;
use crate::{log, mounts, network, program, protect, unattended};
use bootenv_init::{After, FILE, Settings, Task, gather};
use imager_units::{Context, Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// The longest wait for devices that have their own time.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs until the machine ends. After the first start, only the consoles come back: a task that may have been what
/// ended it is not tried again by itself.
pub(crate) fn run(starts: u32) {
    step("mounting the kernel's filesystems", mounts::mount_all());
    let terminals = consoles::terminals();
    log::show_on(&terminals);
    drop(program::run("dmesg", &["-n", "3"]));
    let version = std::fs::read_to_string("/etc/halfhour/release").unwrap_or_default();
    log::say(&format!("started {}", version.trim()));
    let changed = step("looking for devices", devices()).unwrap_or_else(|| channel().1);
    step("mounting the firmware's variables", mounts::mount_firmware());
    let line = std::fs::read_to_string("/proc/cmdline").context(|| "reading /proc/cmdline".to_owned());
    let settings = line.and_then(|line| gather(Path::new(FILE), &line));
    // Settings that are wrong are not half believed.
    let settings = step("reading the settings", settings);
    let task = settings.as_ref().and_then(|settings| step("reading the task", Task::of(settings)).flatten());
    let settings = settings.unwrap_or_default();
    step("setting up the network", network::up(&settings, &changed));
    if let Some(key) = &settings.ssh_key {
        step("letting SSH in", unattended::open_ssh(key));
    }
    let busy = Busy::default();
    let task = task.filter(|_| starts == 1);
    busy.set(task.is_some());
    if task.is_none() {
        log::show_on(&[]);
    }
    step("attending to the consoles", consoles::attend(&terminals, &busy, &settings));
    if let Some(task) = task {
        log::say("a task is set; Enter brings a shell meanwhile");
        work(&task, &settings, &changed);
        log::show_on(&[]);
        busy.set(false);
    }
    // The consoles go on; uevents are read by their own thread.
    loop {
        thread::park();
    }
}

/// Runs the task and does what comes after it.
fn work(task: &Task, settings: &Settings, changed: &Receiver<Changed>) {
    let done = step("the task", unattended::run(task, settings, changed));
    match (done, settings.after) {
        (Some(true), After::Reboot) => end("rebooting", Signal::SIGTERM),
        (Some(true), After::PowerOff) => end("switching off", Signal::SIGUSR2),
        (Some(true), After::Console) => {}
        (Some(false), _) => {
            log::say("something is missing from the result, see above: the machine stays as it is")
        }
        (None, _) => log::say("the machine stays as it is"),
    }
}

/// Asks process 1, which ends everybody, us too.
fn end(what: &str, signal: Signal) {
    log::say(what);
    let asked = kill(Pid::from_raw(1), signal).map_err(std::io::Error::from);
    if step(what, asked.context(|| "asking process 1".to_owned())).is_some() {
        loop {
            thread::park();
        }
    }
}

/// Protects what is there, then loads drivers, protecting what they bring, until nothing more comes.
fn devices() -> Result<Receiver<Changed>> {
    let modules = Modules::start()?;
    let changed = events::listen(modules.clone())?;
    let mut count = 0;
    count += protect_known()?;
    modules.look();
    modules.wait();
    events::settle(&changed, SETTLE);
    modules.wait();
    // Again by name: what the events brought is protected already, and counted here.
    count = count.max(protect_known()?);
    log::say(&format!("disks {count} protected"));
    Ok(changed)
}

fn protect_known() -> Result<usize> {
    let mut count = 0;
    for name in protect::known()? {
        count +=
            usize::from(step(&format!("write-protecting {name}"), protect::protect(&name)) == Some(true));
    }
    Ok(count)
}

/// The result of a step; what failed is told.
fn step<T>(what: &str, result: Result<T>) -> Option<T> {
    result.map_err(|error| log::failed(&format!("{what}: {}", chain(&error)), "")).ok()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
