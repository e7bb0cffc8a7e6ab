//! The command line. A person needs none of it: the rescue environment starts the console.

use clap::Parser;
use std::path::PathBuf;

/// Restore or capture a server, question by question. Every screen shows the imager command that does the same.
#[derive(Debug, Parser)]
#[command(name = "bootenv-console", version, max_term_width = 110)]
pub(crate) struct Arguments {
    /// Ask line by line, for terminals that draw badly
    #[arg(long)]
    pub(crate) plain: bool,
    /// Only this disk, or image file; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) disk: Vec<PathBuf>,
    /// The program that does the work
    #[arg(long, default_value = "imager", value_name = "PROGRAM")]
    pub(crate) imager: PathBuf,
    /// The settings of the medium
    #[arg(long, default_value = bootenv_init::FILE, value_name = "FILE")]
    pub(crate) settings: PathBuf,
    /// Where the log is, and the lock by which consoles know of each other
    #[arg(long, default_value = "/run/halfhour", value_name = "DIR")]
    pub(crate) state: PathBuf,
}
