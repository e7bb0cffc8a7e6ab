//! Which of the kernel's modules go on the medium: those of `files/modules`, and what they depend on.

use imager_units::{Context, Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The list.
pub const LIST: &str = include_str!("../files/modules");
/// Loaded by others that only say so in words.
const SOFT: &str = "modules.softdep";

/// The modules of a kernel, what each depends on, and those that are part of it, as depmod wrote them.
#[derive(Debug, Default)]
pub struct Modules {
    depends: BTreeMap<String, Vec<String>>,
    soft: BTreeMap<String, Vec<String>>,
    builtin: Vec<String>,
}

impl Modules {
    /// Reads what depmod wrote into a folder `lib/modules/RELEASE`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).context(|| format!("reading {}", path.display()))
        };
        Ok(Self::parse(&read("modules.dep")?, &read(SOFT)?, &read("modules.builtin")?))
    }

    fn parse(depends: &str, soft: &str, builtin: &str) -> Self {
        let line = |line: &str| {
            let (module, needs) = line.split_once(':')?;
            Some((module.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
        };
        let mut softly: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in soft.lines() {
            let mut words = line.strip_prefix("softdep ").unwrap_or_default().split_whitespace();
            if let Some(module) = words.next() {
                let needs = words.filter(|word| !word.ends_with(':')).map(str::to_owned);
                softly.entry(module.to_owned()).or_default().extend(needs);
            }
        }
        let builtin = builtin.lines().map(str::to_owned).collect();
        Self { depends: depends.lines().filter_map(line).collect(), soft: softly, builtin }
    }

    /// The files, by path below the folder, that a list takes.
    ///
    /// # Errors
    /// When a line of the list takes nothing: then it is misspelt, or the kernel has changed.
    pub fn select(&self, list: &str) -> Result<BTreeSet<String>> {
        let lines = || list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let without: Vec<_> = lines().filter_map(|line| line.strip_prefix("- ")).collect();
        let begins =
            |path: &str, line: &str| path.strip_prefix("kernel/").is_some_and(|path| path.starts_with(line));
        let mut left = Vec::new();
        for line in lines().filter(|line| !line.starts_with("- ")) {
            let before = left.len();
            let taken = self.depends.keys().filter(|path| begins(path, line));
            left.extend(taken.filter(|path| !without.iter().any(|line| begins(path, line))).cloned());
            if left.len() == before && !self.builtin.iter().any(|path| begins(path, line)) {
                return Err(Error::new(ErrorKind::NotFound, format!("the kernel has no module {line}")));
            }
        }
        let mut selected = BTreeSet::new();
        while let Some(path) = left.pop() {
            if selected.insert(path.clone()) {
                left.extend(self.depends.get(&path).into_iter().flatten().cloned());
                let soft = self.soft.get(&name_of(&path)).into_iter().flatten();
                left.extend(soft.filter_map(|name| self.path_of(name)));
            }
        }
        Ok(selected)
    }

    fn path_of(&self, name: &str) -> Option<String> {
        self.depends.keys().find(|path| name_of(path) == name.replace('-', "_")).cloned()
    }
}

/// A module's name: its file's, with underscores.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::Modules;

    const DEPENDS: &str = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz\nkernel/fs/jbd2/jbd2.ko.xz:\n\
        kernel/fs/ext4/test.ko.xz:\nkernel/crypto/crc-32c.ko.xz:\nkernel/sound/snd.ko.xz:\n";

    #[test]
    fn what_is_selected_brings_what_it_depends_on() {
        let modules =
            Modules::parse(DEPENDS, "# comment\nsoftdep ext4 pre: crc_32c\n", "kernel/fs/proc.ko\n");
        let selected = modules.select("# list\nfs/ext4\nfs/proc\n- fs/ext4/test\n").unwrap();
        let selected: Vec<_> = selected.iter().map(String::as_str).collect();
        assert_eq!(
            selected,
            ["kernel/crypto/crc-32c.ko.xz", "kernel/fs/ext4/ext4.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz"]
        );
    }

    #[test]
    fn a_line_that_takes_nothing_is_an_error() {
        let error = Modules::parse(DEPENDS, "", "").select("fs/ext5\n").unwrap_err();
        assert!(error.to_string().contains("fs/ext5"));
    }
}
