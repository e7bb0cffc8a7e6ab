//! The Python that runs the stand-alone reader.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's own python3 if there is one, for which its packages are installed.
pub fn python() -> PathBuf {
    let debian = PathBuf::from("/usr/bin/python3");
    if debian.exists() { debian } else { PathBuf::from("python3") }
}

/// Whether the modules are there. Where they must be, it is an error if they are not.
pub fn has_modules(modules: &str) -> bool {
    let import = Command::new(python()).args(["-c", &format!("import {modules}")]).output();
    let there = import.is_ok_and(|output| output.status.success());
    assert!(there || std::env::var_os("CI").is_none(), "python3 lacks one of the modules {modules}");
    if !there {
        println!("skipped: python3 lacks one of the modules {modules}");
    }
    there
}

/// The stand-alone reader.
pub fn reader() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reader/restore.py")
}
