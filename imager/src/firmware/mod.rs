//! The firmware of this machine: which kind it is, what it was told to start, and how it is told again after a restore.
//!
//! A machine with UEFI keeps its boot menu in its own memory, not on a disk: a capture takes it along, and a restore
//! writes the entries that point to restored partitions anew. Everything read here was written by firmware or by
//! somebody else's installer, so every parser is bounds-checked and takes plain bytes.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)
)]

pub mod device_path;
pub mod entries;
mod facts;
pub mod load_option;
pub mod variables;

pub use facts::Facts;

use std::fmt;
use std::path::PathBuf;
use variables::Variables;

/// Which kind of firmware started the running system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It starts the code in sector 0.
    Bios,
    /// It starts files on a FAT volume.
    Uefi,
}

/// The firmware of this machine, as its kernel shows it.
#[derive(Clone, Debug)]
pub struct Firmware {
    root: PathBuf,
}

impl Default for Firmware {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Firmware {
    /// This machine's.
    pub fn new() -> Self {
        Self::default()
    }

    /// That of a machine described by the folder `sys` below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Which kind it is; `None` where the system does not show its firmware at all, as in a container.
    pub fn kind(&self) -> Option<Kind> {
        let firmware = self.root.join("sys/firmware");
        if firmware.join("efi").exists() {
            return Some(Kind::Uefi);
        }
        // What every PC has, whatever started it.
        let is_shown = ["acpi", "dmi", "memmap"].iter().any(|part| firmware.join(part).exists());
        is_shown.then_some(Kind::Bios)
    }

    /// Its variables.
    pub fn variables(&self) -> Variables {
        Variables::at(self.root.join("sys/firmware/efi/efivars"))
    }
}

impl Kind {
    /// `bios` or `uefi`, as a manifest says it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }

    /// The kind that a manifest says.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Bios, Self::Uefi].into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Firmware, Kind};

    #[test]
    fn a_container_does_not_tell_what_started_its_machine() {
        let root = tempfile::tempdir().unwrap();
        let kind = |folder: &str| {
            std::fs::create_dir_all(root.path().join("sys/firmware").join(folder)).unwrap();
            Firmware::below(root.path()).kind()
        };
        assert_eq!(Firmware::below(root.path()).kind(), None);
        assert_eq!((kind(""), kind("acpi"), kind("efi")), (None, Some(Kind::Bios), Some(Kind::Uefi)));
        assert_eq!(Kind::parse("uefi"), Some(Kind::Uefi));
        assert_eq!(Kind::parse("coreboot"), None);
    }
}
