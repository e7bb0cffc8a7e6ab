//! The command line: what a person or a script says, and what it is told.
//!
//! Results go to stdout (for people, or one JSON object), progress and errors to stderr. A command ends with a
//! [`Status`]; a failure is an error chain with one line of advice and the documented exit status.

mod args;
mod boot;
mod capture;
mod confirm;
mod diff;
mod doctor;
mod documents;
mod export;
mod failure;
mod hold;
mod init;
mod inspect;
mod journal;
mod key;
mod list;
mod mount;
mod nbd;
mod output;
mod pins;
mod progress;
mod prune;
mod quantity;
mod reports;
mod restore;
mod running;
mod schedule;
mod secret;
mod session;
mod thaw;
mod verify;

use args::{Arguments, Command};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Everything asked for was done.
    Done,
    /// Something asked for is missing from the result.
    Missing,
    /// Damage was found.
    Damaged,
}

impl Status {
    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Missing => 2,
            Self::Damaged => 3,
        }
    }
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_error = error.use_stderr();
            if is_error && std::env::args_os().any(|argument| argument == "--json") {
                let message = error.render().to_string();
                let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
                Failure::usage(message).show_json();
            }
            // A closed pipe is no reason to fail.
            let _ignored = error.print();
            return if is_error { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    logging();
    let json = arguments.json();
    match run(arguments) {
        Ok(status) => ExitCode::from(status.code()),
        Err(failure) => {
            if json {
                failure.show_json();
            }
            failure.show();
            ExitCode::from(failure.code())
        }
    }
}

fn logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("IMAGER_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        // Told on stderr, which would panic where that went away.
        .log_internal_errors(false)
        .init();
}

fn run(arguments: Arguments) -> Result<Status, Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Init(options) => init::run(&global, &options),
        Command::Inspect(options) => inspect::run(&global, &options),
        Command::Capture(options) => capture::run(&global, &options),
        Command::List(options) => list::run(&global, &options),
        Command::Show(options) => list::show(&global, &options),
        Command::Diff(options) => diff::run(&global, &options),
        Command::Restore(options) => restore::run(&global, &options),
        Command::Reports(options) => reports::run(&global, &options),
        Command::Verify(options) => verify::run(&global, &options),
        Command::Prune(options) => prune::run(&global, &options),
        Command::Hold(options) => hold::run(&global, &options),
        Command::Export(options) => export::run(&global, &options),
        Command::Journal(options) => journal::run(&global, &options),
        Command::Schedule(options) => schedule::run(&global, &options),
        Command::Doctor(options) => doctor::run(&global, &options),
        Command::Mount(options) => mount::run(&global, &options),
        Command::Nbd(options) => nbd::run(&global, &options),
        Command::Key(options) => key::run(&global, &options),
        Command::Thaw => thaw::run(&global),
        Command::FreezeGuard => thaw::guard(),
        Command::Completions(options) => documents::completions(&options),
        Command::Man(options) => documents::man(&options),
    }
}
