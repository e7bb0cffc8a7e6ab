//! The command line of `netshare`.
//!
//! What was asked for goes to stdout, the log and failures to stderr. Exit status: 0 done or told to stop, 1 failed,
//! 64 usage, 130 interrupted from the keyboard.

mod args;
mod failure;
mod serve;
mod token;

use args::{Arguments, Command};
use clap::Parser;
use imager_units::{Context, Error, ErrorKind};
use std::path::Path;
use std::process::ExitCode;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is no reason to fail.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    logging();
    let result = match &arguments.command {
        Command::Serve(options) => serve::run(options),
        Command::Token(command) => token::run(command).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|failure| {
        failure.show();
        ExitCode::from(failure.code())
    })
}

/// Checks that a share is there before anything is made in it.
fn check_folder(folder: &Path) -> Result<(), Error> {
    let metadata = std::fs::metadata(folder).context(|| format!("opening {}", folder.display()))?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("{} is no folder", folder.display())))
}

fn logging() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("NETSHARE_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Told on stderr, which would panic where the log's disk is full, and so fail the request.
        .log_internal_errors(false)
        .init();
}
