//! Disks of the kernel's: loop devices with partitions, mounts, swap in use; each undone on drop.

use crate::need;
use crate::tool::{judge, tool, try_tool};
use std::path::{Path, PathBuf};

/// A loop device on a file, with the partitions of its table.
pub struct LoopDisk {
    /// Its node.
    pub path: String,
    /// The file behind it.
    pub file: String,
}

impl LoopDisk {
    /// Attaches a file as a disk with logical sectors of `sector` bytes. `None`, with the reason printed, where that
    /// cannot be done.
    pub fn attach(file: &str, sector: u32) -> Option<Self> {
        if !need::root() || !need::programs(&["losetup", "partx"]) {
            return None;
        }
        // Some kernels make a device that ends with a part of a sector, and then fail to read it.
        let size = std::fs::metadata(file).expect("the file of a disk").len();
        let whole = (size - size % u64::from(sector)).to_string();
        let arguments = ["--show", "-f", "-P", "-b", &sector.to_string(), "--sizelimit", &whole, file];
        let (status, said) = judge("losetup", &arguments);
        if status != Some(0) {
            need::skip(&format!("no loop device: {said}"));
            return None;
        }
        let disk = Self { path: said.trim().to_owned(), file: file.to_owned() };
        disk.add_partitions();
        Some(disk)
    }

    /// Has the kernel know the partitions of the table; some kernels do not read tables themselves.
    pub fn add_partitions(&self) {
        // Without a table partx has nothing to say, and fails.
        let _nothing = judge("partx", &["--update", &self.path]);
    }

    /// The node of a partition.
    pub fn partition(&self, number: u32) -> String {
        format!("{}p{number}", self.path)
    }

    /// The kernel's name for it.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the kernel refuses writes to a partition.
    pub fn is_read_only(&self, number: u32) -> bool {
        tool("blockdev", &["--getro", &self.partition(number)]).trim() == "1"
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Partitions that were added outlive the disk otherwise.
        let _none = judge("partx", &["--delete", &self.path]);
        let (status, said) = judge("losetup", &["-d", &self.path]);
        if status != Some(0) && !std::thread::panicking() {
            println!("{} stays: {said}", self.path);
        }
    }
}

/// Something that a command undoes when dropped.
pub struct Undo(&'static [&'static str], String);

impl Drop for Undo {
    fn drop(&mut self) {
        let Self([program, options @ ..], what) = self else { return };
        if *program == "umount" {
            return unmount(what);
        }
        let arguments: Vec<_> = options.iter().copied().chain([what.as_str()]).collect();
        let (status, said) = judge(program, &arguments);
        if status != Some(0) {
            println!("{said}");
        }
    }
}

/// Unmounts; where somebody looks in at that moment, as soon as they are gone.
pub(crate) fn unmount(at: &str) {
    for _ in 0..20 {
        if judge("umount", &[at]).0 == Some(0) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    println!("{at} is unmounted later: {:?}", judge("umount", &["--lazy", at]));
}

/// Mounts something, until dropped.
pub fn mount(what: &str, at: &Path, options: &str) -> Undo {
    try_mount(what, at, options).unwrap_or_else(|said| panic!("{said}"))
}

/// The same where it may be what cannot be mounted; `Err` says why.
///
/// # Errors
/// What `mount` said.
pub fn try_mount(what: &str, at: &Path, options: &str) -> Result<Undo, String> {
    std::fs::create_dir_all(at).expect("a folder to mount at");
    let at = at.display().to_string();
    try_tool("mount", &["-o", options, what, &at])?;
    Ok(Undo(&["umount"], at))
}

/// A filesystem in memory of so many bytes, mounted until dropped.
pub fn tmpfs(at: &Path, bytes: u64) -> Undo {
    std::fs::create_dir_all(at).expect("a folder to mount at");
    let at = at.display().to_string();
    tool("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", &at]);
    Undo(&["umount"], at)
}

/// Swaps to a device that has its header, until dropped.
pub fn swap_on(node: &str) -> Undo {
    tool("swapon", &[node]);
    Undo(&["swapoff"], node.to_owned())
}

/// A read-only loop device on a file that holds a device of a Btrfs, known to the kernel as such until dropped.
pub(crate) fn scanned(path: &str) -> (String, [Undo; 2]) {
    let node = tool("losetup", &["--show", "--read-only", "-f", path]).trim().to_owned();
    tool("btrfs", &["device", "scan", &node]);
    let forget = Undo(&["btrfs", "device", "scan", "--forget"], node.clone());
    (node.clone(), [forget, Undo(&["losetup", "-d"], node)])
}

/// A second loop device on any file or device, without partitions, until dropped.
pub fn loop_over(path: &str) -> (PathBuf, Undo) {
    let node = tool("losetup", &["--show", "-f", path]).trim().to_owned();
    (node.clone().into(), Undo(&["losetup", "-d"], node))
}
