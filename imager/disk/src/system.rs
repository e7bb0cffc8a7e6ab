//! What the kernel tells about block devices: `/sys`, `/proc` and udev's database.
//!
//! Everything is read below one root, so that tests describe a machine by a folder. `/sys/dev/block/MAJ:MIN` leads
//! to a device (Documentation/ABI/stable/sysfs-dev), its folder's name is the kernel's name for it.

use imager_units::{Context, Error, ErrorKind, Result};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The kernel's number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    major: u64,
    minor: u64,
}

impl DeviceNumber {
    /// The number as `stat` returns it.
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self { major: nix::sys::stat::major(raw), minor: nix::sys::stat::minor(raw) }
    }

    /// The device that the node at `path` stands for; `None` when it is no block device.
    pub fn of_node(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        metadata.file_type().is_block_device().then(|| Self::from_raw(metadata.rdev()))
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text
            .split_once(':')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }));
        number.ok_or_else(|| Error::corrupt(format!("{text:?} is no device number")))
    }
}

/// The machine we run on, as its kernel describes it.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl System {
    /// This machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine described by the folders `sys`, `proc`, `dev` and `run` below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path below the root.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The folder that describes a device.
    pub(crate) fn folder(&self, number: DeviceNumber) -> Result<PathBuf> {
        let link = self.at(&format!("sys/dev/block/{number}"));
        fs::canonicalize(&link).context(|| format!("looking up block device {number} in {}", link.display()))
    }

    /// The kernel's name of a device (`sda1`, `nvme0n1`, `dm-3`).
    pub(crate) fn kernel_name(&self, number: DeviceNumber) -> Result<String> {
        self.folder(number).map(|folder| leaf(&folder))
    }

    /// The folder of the disk that a partition is on; a disk's own.
    pub(crate) fn disk_folder(&self, number: DeviceNumber) -> Result<PathBuf> {
        let folder = self.folder(number)?;
        match folder.parent() {
            Some(parent) if folder.join("partition").exists() => Ok(parent.to_owned()),
            _ => Ok(folder),
        }
    }

    /// The node of a device by its kernel name, in which `!` stands for `/`.
    pub(crate) fn node(&self, kernel_name: &str) -> PathBuf {
        self.at("dev").join(kernel_name.replace('!', "/"))
    }

    /// The folders of all disks, in the order of their names.
    pub(crate) fn disks(&self) -> Result<Vec<PathBuf>> {
        let mut disks = folders(&self.at("sys/block"))?;
        disks.retain(|disk| text(&disk.join("hidden")).as_deref() != Some("1"));
        Ok(disks)
    }
}

/// What is in a folder of sysfs, by its real path, in the order of the names; nothing, when the folder is not there.
pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let say = || format!("reading {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(say)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        // A device may be unplugged while we look.
        if let Ok(path) = fs::canonicalize(entry.context(say)?.path()) {
            found.extend(path.is_dir().then_some(path));
        }
    }
    found.sort();
    Ok(found)
}

/// The trimmed text of an attribute; `None` when it is absent or empty.
pub(crate) fn text(path: &Path) -> Option<String> {
    fs::read(path).ok().and_then(|bytes| printable(&bytes))
}

/// An attribute that holds a number.
pub(crate) fn number<T: FromStr>(path: &Path) -> Result<T> {
    let text =
        text(path).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{} is absent", path.display())))?;
    text.parse().map_err(|_| Error::corrupt(format!("{} holds {text:?} and no number", path.display())))
}

/// What firmware wrote, made fit to be shown and compared: printable ASCII, single spaces, none around it. `None` when
/// nothing remains.
pub(crate) fn printable(bytes: &[u8]) -> Option<String> {
    let clean: String =
        bytes.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { ' ' }).collect();
    let words: Vec<_> = clean.split_ascii_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The last part of a path, as text.
pub(crate) fn leaf(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod described;
