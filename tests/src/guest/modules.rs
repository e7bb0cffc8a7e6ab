//! Which kernel modules a guest carries: those asked for, all they depend on, and what the kernel asks for by itself
//! (ciphers, checksums, character sets).

use super::cpio::Archive;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Folders that the kernel loads from on its own account.
const ALWAYS: [&str; 4] = ["kernel/crypto/", "kernel/arch/x86/crypto/", "kernel/lib/", "kernel/fs/nls/"];

/// Puts modules with their tables into the archive, where `modprobe` looks for them; the names of those that are to be
/// loaded, without what is part of the kernel itself.
pub(super) fn add(
    archive: &mut Archive,
    folder: &Path,
    release: &str,
    wanted: &[String],
) -> io::Result<Vec<String>> {
    let builtin = std::fs::read_to_string(folder.join("modules.builtin"))?;
    let builtin: BTreeSet<_> = builtin.lines().map(module).collect();
    let wanted: Vec<_> = wanted.iter().filter(|name| !builtin.contains(*name)).cloned().collect();
    let table = std::fs::read_to_string(folder.join("modules.dep"))?;
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    let needs: BTreeMap<&str, Vec<&str>> =
        lines.map(|(path, needs)| (path, needs.split_whitespace().collect())).collect();
    let taken: BTreeSet<&str> = needs
        .iter()
        .filter(|(path, _)| {
            ALWAYS.iter().any(|folder| path.starts_with(folder)) || wanted.contains(&module(path))
        })
        .flat_map(|(path, needs)| needs.iter().copied().chain([*path]))
        .collect();
    for name in &wanted {
        assert!(taken.iter().any(|path| module(path) == *name), "the kernel has no module {name}");
    }
    let to = format!("lib/modules/{release}");
    let names: BTreeSet<_> = taken.iter().map(|path| module(path)).collect();
    for path in &taken {
        archive.file(&folder.join(path), &format!("{to}/{path}"))?;
    }
    let dep = table.lines().filter(|line| line.split(':').next().is_some_and(|path| taken.contains(path)));
    archive.bytes(lines_of(dep).as_bytes(), &format!("{to}/modules.dep"))?;
    for file in ["modules.alias", "modules.symbols"] {
        let table = std::fs::read_to_string(folder.join(file))?;
        let kept = table.lines().filter(|line| {
            line.split(' ').next_back().is_some_and(|name| names.contains(&name.replace('-', "_")))
        });
        archive.bytes(lines_of(kept).as_bytes(), &format!("{to}/{file}"))?;
    }
    Ok(wanted)
}

fn lines_of<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// The name of the module in a file, as the kernel spells it.
fn module(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}
