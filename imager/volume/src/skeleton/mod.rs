//! Skeletons: how an empty filesystem like the one on a volume is made.
//!
//! A recipe is read from the superblock alone. It is a list of programs with their arguments, the filesystem's own `mkfs`
//! first, and the parameters that the result must have: whoever carries a recipe out reads the parameters of what it
//! made, and compares.

mod btrfs;
mod ext;
#[cfg(test)]
mod tests;
mod xfs;

use imager_disk::ReadAt;
use imager_units::{Error, ExtentSet, Result};
use std::collections::BTreeMap;

/// Stands for the device or file among the arguments of a step.
pub const DEVICE: &str = "DEVICE";

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub program: &'static str,
    /// Its arguments; [`DEVICE`] among them.
    pub arguments: Vec<String>,
    /// What it gets on its standard input.
    pub input: Option<String>,
}

/// How an empty filesystem like the one on a volume is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What the kernel calls this kind of filesystem.
    pub kind: &'static str,
    /// The package that has its programs, as Debian calls it.
    pub package: &'static str,
    /// What makes it, in this order, on something that reads as zeros.
    pub steps: Vec<Step>,
    /// The mount options that leave their mark in it, or without which it must not be mounted.
    pub mount: Vec<&'static str>,
    /// What has to be done when its tree is in it and it is not mounted.
    pub finish: Vec<Step>,
    /// What says whether it is in order.
    pub check: Step,
    /// The mount options with which one that is not mounted anywhere is read without anything being written to it.
    pub look: &'static [&'static str],
    /// Those with which all of it is read, wherever it is mounted.
    pub look_all: &'static [&'static str],
    /// What it was made with, by name.
    pub parameters: BTreeMap<&'static str, String>,
}

/// How an empty filesystem like the one on `volume` is made, which is of this kind (as `blkid` has it).
///
/// # Errors
/// `Unsupported` when nothing makes one like it, with the reason; `Corrupt`, `Io`.
pub fn recipe(kind: &str, volume: &dyn ReadAt) -> Result<Recipe> {
    match kind {
        "ext2" | "ext3" | "ext4" => ext::recipe(volume),
        "btrfs" => btrfs::recipe(volume),
        "xfs" => xfs::recipe(volume),
        _ => Err(Error::unsupported(format!("no skeleton is made of {kind}"))),
    }
}

/// What of a filesystem that was made by a recipe need not be put back: its map has it, since it is the filesystem's, but
/// nobody reads it before it was written. Inode tables of ext4 would take 16 GiB a TiB.
///
/// # Errors
/// `Corrupt`, `Io`.
pub fn unwritten(kind: &str, volume: &dyn ReadAt) -> Result<ExtentSet> {
    match kind {
        "ext2" | "ext3" | "ext4" => crate::ext::unwritten(volume),
        _ => Ok(ExtentSet::new()),
    }
}

impl Recipe {
    /// What is other in a filesystem that was made by it.
    pub fn differences(&self, made: &Self) -> Vec<String> {
        let value = |of: &Self, name: &str| of.parameters.get(name).cloned().unwrap_or_default();
        let names = self
            .parameters
            .keys()
            .chain(made.parameters.keys().filter(|name| !self.parameters.contains_key(*name)));
        let differing = names.filter(|name| value(self, name) != value(made, name));
        differing
            .map(|name| format!("{name} is {:?} and not {:?}", value(made, name), value(self, name)))
            .collect()
    }
}

impl Step {
    fn new(program: &'static str, arguments: Vec<String>) -> Self {
        Self { program, arguments, input: None }
    }
}

/// Owned texts of borrowed ones.
fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}
