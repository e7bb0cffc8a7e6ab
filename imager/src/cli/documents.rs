//! Man pages and completions, from the same definitions as the help.

use super::Status;
use super::args::{Arguments, Completions, Man};
use super::failure::Failure;
use super::output::print;
use clap::CommandFactory;
use imager_units::Context;

pub(crate) fn completions(options: &Completions) -> Result<Status, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "imager", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Status::Done)
}

pub(crate) fn man(options: &Man) -> Result<Status, Failure> {
    let say = || format!("writing man pages into {}", options.dir.display());
    std::fs::create_dir_all(&options.dir).context(say)?;
    clap_mangen::generate_to(Arguments::command(), &options.dir).context(say)?;
    Ok(Status::Done)
}
