//! The first process of the rescue environment.
//!
//! It comes in two: process 1 only reaps, answers the power switch, and starts the second one again if that ever ends;
//! the second, of the same program, does everything else (`manager`). So whatever goes wrong, the machine does not stop
//! with a kernel panic, and somebody at the console can look what it was.

mod consoles;
mod events;
mod first;
mod log;
mod manager;
mod modules;
mod mounts;
mod network;
mod program;
mod protect;
mod unattended;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        first::run();
    }
    let starts = std::env::args().nth(1).and_then(|number| number.parse().ok());
    match starts {
        Some(starts) => {
            manager::run(starts);
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("bootenv-init is the first process of the rescue environment; it does nothing here");
            ExitCode::from(64)
        }
    }
}
