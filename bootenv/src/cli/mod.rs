//! The command: options in, a report out.

mod args;
mod failure;

use args::{Arguments, Build, Command};
use bootenv::cache::Freshness;
use bootenv::medium::{Options, Replace, Report};
use bootenv::monitor::Monitor;
use bootenv::system::Firmware;
use clap::Parser;
use failure::{Failure, USAGE};
use imager_units::{Error, ErrorKind};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Shows steps on stderr, each with the time since the beginning.
struct Lines {
    begun: Instant,
}

impl Monitor for Lines {
    fn step(&self, what: &str) {
        tell(&format!("{:4} s  {what}", self.begun.elapsed().as_secs()));
    }
}

/// Runs the command.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let Command::Build(build) = arguments.command;
    let monitor = Lines { begun: Instant::now() };
    match options(&build).and_then(|options| Ok((bootenv::build(&options, &monitor)?, options))) {
        Ok((report, options)) => {
            if build.json {
                print(&json_of(&report, &options, monitor.begun.elapsed().as_secs_f64()));
            } else {
                tell(&text_of(&report, &options));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let failure = Failure::from(error);
            if build.json {
                print(&failure.to_json())
            } else {
                tell(&failure.to_lines())
            }
            ExitCode::from(failure.code())
        }
    }
}

fn options(build: &Build) -> Result<Options, Error> {
    let beside = || std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let nowhere = |what: &str| Error::new(ErrorKind::Invalid, format!("{what} has to be given"));
    Ok(Options {
        output: build.output.clone(),
        boot_files: build.boot_files.clone(),
        replace: if build.overwrite { Replace::Allowed } else { Replace::Refused },
        programs: build.programs.clone().or_else(beside).ok_or_else(|| nowhere("--programs"))?,
        cache: build.cache.clone().or_else(cache).ok_or_else(|| nowhere("--cache"))?,
        freshness: if build.refresh { Freshness::Renewed } else { Freshness::Kept },
        config: build.config.clone(),
        firmware: if build.firmware { Firmware::With } else { Firmware::Without },
        kernel_options: build.kernel_option.clone(),
    })
}

/// Where caches are, by the XDG base directory specification.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Some(folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?.join("halfhour"))
}

fn json_of(report: &Report, options: &Options, elapsed_seconds: f64) -> Value {
    json!({
        "output": options.output,
        "boot_files": options.boot_files,
        "iso_bytes": report.iso_bytes,
        "initrd_bytes": report.initrd_bytes,
        "kernel": report.kernel,
        "packages": report.packages.lines().collect::<Vec<_>>(),
        "warnings": report.warnings,
        "elapsed_seconds": elapsed_seconds,
    })
}

fn text_of(report: &Report, options: &Options) -> String {
    const MIB: f64 = 1_048_576.0;
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mib = |bytes: u64| bytes as f64 / MIB;
    let mut lines = Vec::new();
    if let (Some(output), Some(bytes)) = (&options.output, report.iso_bytes) {
        lines.push(format!("{}: {:.1} MiB, kernel {}", output.display(), mib(bytes), report.kernel));
    }
    if let Some(folder) = &options.boot_files {
        lines.push(format!(
            "{}: kernel {}, archive {:.1} MiB",
            folder.display(),
            report.kernel,
            mib(report.initrd_bytes)
        ));
    }
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
}

fn print(object: &Value) {
    drop(writeln!(std::io::stdout(), "{object}"));
}

/// Says something on stderr; that nobody listens is no failure.
fn tell(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
