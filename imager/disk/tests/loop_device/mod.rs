//! A disk of the kernel's for a test: a loop device on a temporary file, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    folder: tempfile::TempDir,
}

impl LoopDevice {
    /// A disk of `size` bytes with logical sectors of `sector` bytes, and what `sfdisk` makes of `table`. `None`, with
    /// the reason printed, where there are no loop devices; that is a failure in CI.
    pub(crate) fn new(size: u64, sector: u32, table: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("disk.img");
        std::fs::File::create(&file).and_then(|file| file.set_len(size)).expect("a sparse file");
        let sector = sector.to_string();
        let made = Command::new("losetup").args(["--show", "-f", "-P", "-b", &sector]).arg(&file).output();
        match made {
            Ok(made) if made.status.success() => {
                let path = String::from_utf8_lossy(&made.stdout).trim().into();
                let disk = Self { path, folder };
                if !table.is_empty() {
                    disk.write_table(table);
                }
                Some(disk)
            }
            failed => {
                assert!(std::env::var_os("CI").is_none(), "no loop device: {failed:?}");
                println!("skipped: no loop device can be made here (needs root and losetup): {failed:?}");
                None
            }
        }
    }

    pub(crate) fn write_table(&self, table: &str) {
        let mut sfdisk = Command::new("sfdisk");
        let sfdisk =
            sfdisk.args(["-q", "--wipe", "never", "--no-reread", "--no-tell-kernel"]).arg(&self.path);
        let mut child = sfdisk.stdin(Stdio::piped()).spawn().expect("sfdisk is installed");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), table.as_bytes())
            .expect("sfdisk reads");
        assert!(child.wait().expect("sfdisk ends").success(), "sfdisk takes {table:?}");
        run("partx", &["-u".as_ref(), self.path.as_ref()]);
    }

    /// The file behind the disk.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }

    /// A path beside that file.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn partition(&self, number: u32) -> PathBuf {
        PathBuf::from(format!("{}p{number}", self.path.display()))
    }

    /// The kernel's name of the disk.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().expect("a node has a name").to_string_lossy().into_owned()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("-d").arg(&self.path).status());
    }
}

/// Something that a command undoes when dropped.
pub(crate) struct Undo(&'static [&'static str], PathBuf);

impl Drop for Undo {
    fn drop(&mut self) {
        let Self([program, options @ ..], path) = self else { return };
        drop(Command::new(program).args(options).arg(path).status());
    }
}

pub(crate) fn mount(node: &Path, at: &Path, options: &str) -> Undo {
    std::fs::create_dir_all(at).expect("a folder to mount at");
    run("mount", &["-o".as_ref(), options.as_ref(), node, at]);
    Undo(&["umount"], at.to_owned())
}

pub(crate) fn swap_on(node: &Path) -> Undo {
    run("mkswap", &["-q".as_ref(), node]);
    run("swapon", &[node]);
    Undo(&["swapoff"], node.to_owned())
}

/// A loop device on any path, without the scan for partitions.
pub(crate) fn loop_on(path: &Path) -> (PathBuf, Undo) {
    let made =
        Command::new("losetup").args(["--show", "-f"]).arg(path).output().expect("losetup is installed");
    assert!(made.status.success(), "{made:?}");
    let node = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
    (node.clone(), Undo(&["losetup", "-d"], node))
}

pub(crate) fn run(program: &str, arguments: &[&Path]) {
    let done = Command::new(program).args(arguments).output().expect("the program is installed");
    assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
}
