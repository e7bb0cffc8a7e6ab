//! Process 1: the parent of orphans and of the manager, and the one who ends the machine. It does nothing that can fail
//! for good or wait for ever, because with it the kernel ends.

use crate::{consoles, log};
use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};
use std::process::{Child, Command};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

/// How long a restore or capture that runs may take to end in order: once asked, it stops and tells the share; asked
/// again, it leaves the latter.
const WORK: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(20)];
/// How long other programs have to end when the machine does.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long written data may take to reach disks that a person mounted.
const SYNC: Duration = Duration::from_secs(20);
/// How often it is looked whether they did.
const LOOK: Duration = Duration::from_millis(100);
/// How long to wait before the manager is started again; and when it ends sooner than this, again and again.
const PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(10);
const OFTEN: u32 = 4;
/// The program that writes disks and shares, as the kernel calls it.
const WORKER: &str = "imager";

/// Runs until the machine ends.
pub(crate) fn run() -> ! {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2] {
        signals.add(signal);
    }
    if let Err(error) = signals.thread_block().and_then(|()| set_cad_enabled(false)) {
        log::failed(&format!("signals: {error}"), "");
    }
    let mut manager = Manager::default();
    manager.start();
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                reap(&mut manager);
                if manager.child.is_none() {
                    manager.start_again();
                }
            }
            // As busybox's reboot, halt and poweroff ask for it; SIGINT is Ctrl-Alt-Del.
            Ok(Signal::SIGTERM | Signal::SIGINT) => end(RebootMode::RB_AUTOBOOT, &mut manager),
            Ok(_) => end(RebootMode::RB_POWER_OFF, &mut manager),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// The process that does everything else.
#[derive(Default)]
struct Manager {
    child: Option<Child>,
    starts: u32,
    /// How often in a row it ended at once.
    short: u32,
    begun: Option<Instant>,
}

impl Manager {
    fn start(&mut self) {
        self.starts = self.starts.saturating_add(1);
        self.begun = Some(Instant::now());
        let mut command = Command::new("/init");
        command.arg(self.starts.to_string()).env_clear().envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
        ]);
        let child = command.spawn();
        self.child =
            child.inspect_err(|error| log::failed(&format!("starting the manager: {error}"), "")).ok();
        if self.child.is_none() {
            // As if it had ended: there is another try, and other signals are heard too.
            let _cannot_fail = kill(Pid::this(), Signal::SIGCHLD);
        }
    }

    fn start_again(&mut self) {
        log::show_on(&consoles::terminals());
        let is_short = self.begun.is_some_and(|begun| begun.elapsed() < LONG_PAUSE);
        self.short = if is_short { self.short.saturating_add(1) } else { 0 };
        if self.short >= OFTEN {
            log::failed("the manager ends again and again", "it is tried on; meanwhile here is a shell");
            self.short = 0;
            shell();
            thread::sleep(LONG_PAUSE);
        } else {
            log::failed("the manager ended", "it is started again, without any task");
            thread::sleep(PAUSE);
        }
        self.start();
    }
}

/// A shell where nothing else works.
fn shell() {
    drop(Command::new("/init").arg(consoles::SHELL).spawn());
}

/// Takes leave of every process that ended; whether any are left.
fn reap(manager: &mut Manager) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(status) => {
                let ended = status.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok());
                if ended.is_some() && ended == manager.child.as_ref().map(Child::id) {
                    manager.child = None;
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Ends the machine: first what writes, in order, then everybody.
fn end(how: RebootMode, manager: &mut Manager) -> ! {
    log::show_on(&consoles::terminals());
    let what = if how == RebootMode::RB_POWER_OFF { "switching off" } else { "rebooting" };
    if workers().is_empty() {
        log::say(&format!("{what} now"));
    } else {
        log::say(&format!("{what} as soon as what runs has stopped in order"));
        let have_ended = WORK.into_iter().any(|most| {
            workers().into_iter().for_each(|pid| tell(pid, Signal::SIGTERM));
            until(most, || {
                reap(manager);
                workers().is_empty()
            })
        });
        if !have_ended {
            log::say("it does not stop; it is ended now, and continues when it is run again");
        }
    }
    let everyone = Pid::from_raw(-1);
    tell(everyone, Signal::SIGTERM);
    until(FAREWELL, || !reap(manager));
    tell(everyone, Signal::SIGKILL);
    // A disk or share that does not answer must not keep the machine on.
    let (sender, done) = sync_channel(1);
    drop(thread::Builder::new().spawn(move || {
        sync();
        let _nobody_waits_any_more = sender.send(());
    }));
    if done.recv_timeout(SYNC).is_err() {
        log::say("what was written to mounted disks may not be complete: a disk does not answer");
    }
    loop {
        let Err(error) = reboot(how);
        log::failed(&format!("ending the machine: {error}"), "switch it off");
        thread::sleep(Duration::from_secs(60));
    }
}

/// Fails only for who is gone.
fn tell(whom: Pid, signal: Signal) {
    let _gone = kill(whom, signal);
}

fn until(most: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < most {
        if is_so() {
            return true;
        }
        thread::sleep(LOOK);
    }
    false
}

/// The processes that write disks or shares.
fn workers() -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_worker = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        is_living(&status, WORKER)
    };
    pids.filter(is_worker).map(Pid::from_raw).collect()
}

/// Whether a process of this name lives, from its `stat` (proc_pid_stat(5)): one that ended and was not taken leave of
/// has the state Z.
fn is_living(status: &str, name: &str) -> bool {
    let found = status.split_once(" (").and_then(|(_, rest)| rest.rsplit_once(") "));
    found.is_some_and(|(called, rest)| called == name && !rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::is_living;

    #[test]
    fn a_process_is_known_by_its_name_and_state() {
        assert!(is_living("7 (imager) S 1 7 7 0", "imager"));
        assert!(!is_living("7 (imager) Z 1 7 7 0", "imager"));
        assert!(!is_living("7 (a) (imager) S 1 7 7 0", "imager"));
        assert!(!is_living("", "imager"));
    }
}
