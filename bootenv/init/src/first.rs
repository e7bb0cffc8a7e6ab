//! Process 1: the parent of orphans and of the manager, and the one who ends the machine.

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

/// How long programs have to end when the machine does.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long to wait before the manager is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the machine ends.
pub(crate) fn run() -> ! {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2] {
        signals.add(signal);
    }
    // Nobody else can be told: there is no console program yet.
    if let Err(error) = signals.thread_block().and_then(|()| set_cad_enabled(false)) {
        println!("halfhour: signals: {error}");
    }
    let mut starts = 0;
    let mut manager = start(&mut starts);
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if reap(manager.as_ref().map(Child::id)) || manager.is_none() {
                    println!("halfhour: failed: the manager ended; it is started again");
                    thread::sleep(PAUSE);
                    manager = start(&mut starts);
                }
            }
            // As busybox's reboot, halt and poweroff ask for it; SIGINT is Ctrl-Alt-Del.
            Ok(Signal::SIGTERM | Signal::SIGINT) => end(RebootMode::RB_AUTOBOOT),
            Ok(_) => end(RebootMode::RB_POWER_OFF),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn start(starts: &mut u32) -> Option<Child> {
    *starts = starts.saturating_add(1);
    let mut command = Command::new("/init");
    command.arg(starts.to_string()).env_clear().envs([
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
    ]);
    let manager = command.spawn();
    manager.inspect_err(|error| println!("halfhour: failed: starting the manager: {error}")).ok()
}

/// Takes leave of every process that ended; whether the manager was among them.
fn reap(manager: Option<u32>) -> bool {
    let mut is_over = false;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return is_over,
            Ok(status) => {
                let ended = status.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok());
                is_over |= ended.is_some() && ended == manager;
            }
            Err(Errno::EINTR) => {}
            Err(_) => return is_over,
        }
    }
}

fn end(how: RebootMode) -> ! {
    let everyone = Pid::from_raw(-1);
    // Fails only where nobody is left.
    let _nobody_left = kill(everyone, Signal::SIGTERM);
    thread::sleep(FAREWELL);
    let _nobody_left = kill(everyone, Signal::SIGKILL);
    sync();
    loop {
        let Err(error) = reboot(how);
        println!("halfhour: failed: ending the machine: {error}; switch it off");
        thread::sleep(Duration::from_secs(60));
    }
}
