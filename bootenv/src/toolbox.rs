//! Debian's tools, run from the unpacked packages by their own loader and libraries: nothing of them needs to be
//! installed, and every machine uses the same version.

use crate::program;
use crate::root::Root;
use imager_units::{Error, ErrorKind, Result};
use std::process::Command;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib"];

/// The tools of a root.
#[derive(Clone, Debug)]
pub struct Toolbox {
    root: Root,
}

impl Toolbox {
    /// Those of this root.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    /// Where the packages are unpacked.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A tool to be given its arguments.
    ///
    /// # Errors
    /// When the packages have no such tool.
    pub fn command(&self, name: &str) -> Result<Command> {
        let missing = || Error::new(ErrorKind::NotFound, format!("the packages have no {name}"));
        let loader = self.root.resolve(LOADER)?.ok_or_else(missing)?;
        let places = ["usr/sbin", "usr/bin"].map(|folder| self.root.resolve(format!("{folder}/{name}")));
        let program = places.into_iter().find_map(Result::transpose).ok_or_else(missing)??;
        let libraries = LIBRARIES.map(|folder| self.root.path(folder).display().to_string()).join(":");
        let mut command = Command::new(loader);
        program::plain(command.env_clear().env("MTOOLSRC", "/dev/null").env("MTOOLS_SKIP_CHECK", "1"));
        // By name, because some of them are one program with many.
        command.args(["--inhibit-cache", "--argv0", name, "--library-path", &libraries]).arg(program);
        Ok(command)
    }
}
