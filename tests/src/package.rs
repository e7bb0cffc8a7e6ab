//! The Debian package of the agent, built from the program under test.

use crate::{Scratch, binary, need, tool};

/// Builds it into a folder of the scratch: its path. `None`, with the reason printed, where that cannot be done.
pub fn build(scratch: &Scratch, folder: &str) -> Option<String> {
    if !need::programs(&["dpkg-deb", "dpkg-shlibdeps", "gzip", "strip"]) {
        return None;
    }
    let script = binary::repository().join("scripts/package").display().to_string();
    let program = binary::imager().display().to_string();
    let said = tool(&script, &["--binary", &program, "--output", &scratch.name(folder)]);
    let path = said.lines().find_map(|line| line.split_once(".deb: ")).expect("it says where it is").0;
    Some(format!("{path}.deb"))
}
