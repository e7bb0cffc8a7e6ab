//! A machine described by a folder, for tests: real folders below `sys/devices`, links to them as in sysfs.

use super::System;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

pub(crate) struct Machine {
    root: tempfile::TempDir,
    pub(crate) system: System,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let system = System::below(root.path());
        let machine = Self { root, system };
        machine.file("proc/self/mountinfo", "");
        machine
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn disk(&self, name: &str, number: &str) -> &Self {
        self.device(name, number, name);
        symlink(self.path(&format!("sys/devices/{name}")), self.folder("sys/block").join(name)).unwrap();
        self
    }

    /// A partition; `start` and `size` in sectors of 512 bytes.
    pub(crate) fn partition(&self, disk: &str, index: u32, number: &str, start: u64, size: u64) -> &Self {
        let name = format!("{disk}{index}");
        let folder = format!("{disk}/{name}");
        self.device(&folder, number, &name);
        for (attribute, value) in [("partition", index.into()), ("start", start), ("size", size)] {
            self.attribute(&folder, attribute, value.to_string());
        }
        self
    }

    pub(crate) fn attribute(&self, device: &str, attribute: &str, text: impl AsRef<[u8]>) {
        self.file(&format!("sys/devices/{device}/{attribute}"), text);
    }

    /// `above` is built on `below`; both by their folders below `sys/devices`.
    pub(crate) fn stack(&self, below: &str, above: &str) -> &Self {
        for (folder, other) in [(format!("{below}/holders"), above), (format!("{above}/slaves"), below)] {
            let folder = self.folder(&format!("sys/devices/{folder}"));
            symlink(
                self.path(&format!("sys/devices/{other}")),
                folder.join(other.rsplit('/').next().unwrap()),
            )
            .unwrap();
        }
        self
    }

    fn device(&self, folder: &str, number: &str, name: &str) {
        self.attribute(folder, "dev", format!("{number}\n"));
        let target = self.path(&format!("sys/devices/{folder}"));
        symlink(&target, self.folder("sys/dev/block").join(number)).unwrap();
        symlink(&target, self.folder("sys/class/block").join(name)).unwrap();
    }

    fn folder(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(&path).unwrap();
        path
    }
}
