//! The console of the rescue environment: it asks a person at a dead server what to do, question by question, and has
//! `imager` do it.
//!
//! Data goes one way: an answer or news goes into the state machine ([`app`]), which shows another page or says what is
//! to be done ([`effect`]); [`engine`] does it and brings news. How a page is drawn ([`full`], [`plain`]) is nobody
//! else's business, so every flow is tested without a terminal. Nothing is restored or captured here: that is always an
//! `imager` command, which every screen shows.

mod app;
mod args;
mod child;
mod console;
mod disk;
mod documents;
mod effect;
mod engine;
mod finding;
#[cfg(test)]
mod flows;
mod full;
mod known;
mod lock;
mod network;
mod order;
mod page;
mod place;
mod plain;
mod say;
mod screen;
mod screens;
mod share;
mod terminal;
mod wrap;

use args::Arguments;
use clap::Parser;
use console::Console;
use engine::Means;
use full::Look;
use std::process::ExitCode;
use terminal::{Manner, Signals};

/// The exit status of whatever is asked in a wrong way, as `imager` has it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(said) => {
            drop(said.print());
            return if said.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    terminal::give_back_on_panic();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bootenv-console: {error}; the imager command does the same, imager --help says how");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> std::io::Result<()> {
    let signals = Signals::attend()?;
    let (known, plain) = place::known(&arguments.settings);
    let means = Means { imager: arguments.imager, disks: arguments.disk, state: arguments.state };
    let look = Look { ascii: known.place.ascii, colour: terminal::has_colour() };
    let manner = terminal::manner(arguments.plain || plain);
    let console = Console::new(known, means);
    match manner {
        Manner::Full => full::run(console, &signals, look),
        Manner::Plain => plain::run(console, &signals, look.ascii),
    }
}
