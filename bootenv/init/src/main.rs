//! The first process of the rescue environment.
//!
//! It comes in two: process 1 only reaps, answers the power switch, and starts the second one again if that ever ends;
//! the second, of the same program, does everything else (`manager`). So whatever goes wrong, the machine does not stop
//! with a kernel panic, and somebody at the console can look what it was.

mod changes;
mod consoles;
mod events;
mod first;
mod guard;
mod log;
mod manager;
mod modules;
mod mounts;
mod network;
mod operation;
mod power;
mod program;
mod protect;
mod ssh;
mod unattended;

use nix::sys::signal::SigSet;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        first::run();
    }
    // Process 1 waits for its signals with them blocked, which children inherit: nothing that is started from here would
    // ever hear a SIGTERM, or that a child of its own has ended.
    if let Err(error) = SigSet::all().thread_unblock() {
        log::failed(&format!("signals: {error}"), "programs may not end when they are asked to");
    }
    // Said on the consoles rather than where nobody looks; a thread that ends so leaves the others running.
    std::panic::set_hook(Box::new(|panic| log::failed(&format!("a mistake of ours: {panic}"), "")));
    let word = std::env::args().nth(1).unwrap_or_default();
    match word.parse() {
        // Nobody starts a second manager at a shell.
        Ok(starts) if nix::unistd::getppid().as_raw() == 1 => {
            manager::run(starts);
            ExitCode::SUCCESS
        }
        Err(_) if word == consoles::SHELL => {
            consoles::emergency();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("bootenv-init is the first process of the rescue environment; it does nothing here");
            ExitCode::from(64)
        }
    }
}
