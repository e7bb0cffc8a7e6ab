//! Everything in its order: the kernel's filesystems, write protection and drivers, the network, then the task, or a
//! person. A step that fails says so, and the next one is tried all the same; none is waited for without end.

use crate::changes::Changes;
use crate::consoles::{self, Use, Uses};
use crate::log::chain;
use crate::modules::Modules;
use crate::{events, guard, log, mounts, network, operation, power, program, protect, ssh, unattended};
use bootenv_init::{After, FILE, Settings, Task, gather};
use imager_units::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// The longest wait for drivers, and for devices that have their own time.
const DRIVERS: Duration = Duration::from_secs(45);
const SETTLE: Duration = Duration::from_secs(30);
/// The longest wait for the network before a person is asked; it goes on being set up meanwhile.
const NETWORK: Duration = Duration::from_secs(12);
/// The same before a task, which can do nothing without it, but may have its share elsewhere.
const NETWORK_FOR_TASK: Duration = Duration::from_secs(90);

/// Runs until the machine ends. After the first start, only the consoles come back: a task that may have been what
/// ended it is not tried again by itself.
pub(crate) fn run(starts: u32) {
    let unmounted = mounts::mount_all();
    let terminals = consoles::terminals();
    log::show_on(&terminals);
    for error in &unmounted {
        log::failed(&chain(error), "the rest may work without it");
    }
    drop(program::run("dmesg", &["-n", "3"]));
    let version = std::fs::read_to_string("/etc/halfhour/release").unwrap_or_default();
    log::say(&format!("started {}{}", version.trim(), if starts == 1 { "" } else { " again" }));
    let changes = Changes::default();
    devices(&changes);
    step("watching over write protection", guard::watch());
    step("mounting the firmware's variables", mounts::mount_firmware());
    let line = std::fs::read_to_string("/proc/cmdline").context(|| "reading /proc/cmdline".to_owned());
    let settings = line.and_then(|line| gather(Path::new(FILE), &line));
    // Settings that are wrong are not half believed: nothing is done by itself.
    let settings = step("reading the settings", settings);
    let task = settings.as_ref().map(|settings| step("reading the task", Task::of(settings)));
    let is_wrong = !matches!(task, Some(Some(_)));
    let task = task.flatten().flatten().filter(|_| starts == 1);
    let settings = settings.unwrap_or_default();
    connect(&settings, &changes, if task.is_some() { NETWORK_FOR_TASK } else { NETWORK });
    if let Some(running) = operation::running() {
        log::say(&format!("{running}: this goes on; nothing else is begun by itself"));
    }
    let uses = Uses::new(if task.is_some() { Use::Task } else { Use::Person });
    if task.is_none() && is_wrong {
        log::say(
            "nothing is done by itself; correct the settings and start again, or press Enter to go on by hand",
        );
        uses.set(Use::Report);
    }
    step("attending to the consoles", consoles::attend(&terminals, &uses, &settings));
    if let Some(task) = task {
        log::say("a task is set; Enter brings a shell meanwhile");
        work(&task, &settings, &changes);
        log::say("press Enter for the console");
        uses.set(Use::Report);
    }
    // The consoles go on; uevents are read by their own thread.
    loop {
        thread::park();
    }
}

/// Runs the task and does what comes after it.
fn work(task: &Task, settings: &Settings, changes: &Changes) {
    let done = step("the task", unattended::run(task, settings, changes));
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

/// Sets the network up and lets SSH in, waiting for at most `most`.
fn connect(settings: &Settings, changes: &Changes, most: Duration) {
    let (own, changes) = (settings.clone(), changes.clone());
    let (sender, done) = sync_channel(1);
    let spawned = thread::Builder::new().name("network".to_owned()).spawn(move || {
        step("setting up the network", network::up(&own, &changes));
        if let Some(key) = &own.ssh_key {
            step("letting SSH in", ssh::open(key));
        }
        let _nobody_waits_any_more = sender.send(());
    });
    let spawned = spawned.context(|| "starting a thread".to_owned());
    if step("setting up the network", spawned).is_some() && done.recv_timeout(most).is_err() {
        log::say("the network is not there yet; it is tried on");
    }
}

/// Protects what is there, then loads drivers, protecting what they bring, until nothing more comes.
fn devices(changes: &Changes) {
    // Before anything else, and whatever comes of the rest.
    protect_known();
    let modules = step("loading drivers", Modules::start());
    step("listening for devices", events::listen(modules.clone(), changes.clone()));
    // What came before we listened.
    protect_known();
    power::watch_known();
    if let Some(modules) = modules {
        modules.look();
        let are_loaded = modules.wait(DRIVERS);
        changes.settle(SETTLE);
        if !are_loaded || !modules.wait(DRIVERS) {
            log::say(
                "some drivers are still busy: what they drive comes later, and is write-protected then too",
            );
        }
    }
    // Again by name: what the events brought is protected already, and counted here.
    log::say(&format!("disks {} protected", protect_known()));
}

fn protect_known() -> usize {
    protect::protect(&step("looking for disks", protect::known()).unwrap_or_default())
}

/// The result of a step; what failed is told.
fn step<T>(what: &str, result: Result<T>) -> Option<T> {
    result.map_err(|error| log::failed(&format!("{what}: {}", chain(&error)), "")).ok()
}
