//! Small files of a Btrfs filesystem, by their paths: what a system says about itself.
//!
//! All that leads to a file is under a checksum and says whose it is, and so is nearly all data. What the last superblock
//! refers to is always in order; where the log of `fsync` would change one of the files or folders on the way, nothing is
//! read, for an fstab of yesterday may call a volume what it no longer is. All reads are bounded, whatever the filesystem
//! claims.

mod extent;
mod folder;
mod inode;
mod log;
mod sums;
#[cfg(test)]
mod tests;

use super::chunk::Chunks;
use super::devices::{self, Devices};
use super::map::read_chunks;
use super::node::Key;
use super::roots;
use super::superblock::{Root, Superblock};
use super::tree::{Each, FS_TREE, Forest, is_of_files};
use crate::path::{self, Kind, Tree};
use imager_disk::ReadAt;
use imager_units::{Error, Result};
use inode::Inode;
use log::Changes;
use std::ops::RangeInclusive;

/// `BTRFS_FIRST_FREE_OBJECTID`: the top folder of every subvolume.
const TOP_FOLDER: u64 = 256;
/// `PATH_MAX`: a link is not longer.
const LONGEST_LINK_BYTES: u64 = 4096;

/// The files of a filesystem.
pub struct Files<'a> {
    devices: Devices<'a>,
    chunks: Chunks,
    sb: Superblock,
    changes: Changes,
}

/// A subvolume in which there may be a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subvolume {
    tree: u64,
    /// What it is called in the top one; `None` for the top one, and for the one that is mounted when none is named.
    pub name: Option<String>,
}

impl<'a> Files<'a> {
    /// Looks at the devices of a filesystem; `None` when there is no Btrfs on the first.
    ///
    /// # Errors
    /// `Io`; `Corrupt` or `Unsupported` when what is on them cannot be relied on, or some are missing.
    pub fn open(volumes: &[&'a dyn ReadAt]) -> Result<Option<Self>> {
        match volumes.first().map(|first| devices::superblock(*first)).transpose()?.flatten() {
            None => return Ok(None),
            Some(sb) => sb.check()?,
        }
        let devices = Devices::open(volumes)?;
        let sb = devices.first()?.sb.clone();
        let chunks = read_chunks(&mut Forest::new(&devices, &sb), &devices, &sb)?;
        let mut files = Self { devices, chunks, sb, changes: Changes::default() };
        files.changes = Changes::read(&files)?;
        Ok(Some(files))
    }

    /// Where a system may have its root: the subvolume that is mounted when none is named, the one at the top, and
    /// those that have a name in that.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        let default = folder::default_subvolume(self)?.unwrap_or(FS_TREE);
        let mut found = vec![Subvolume { tree: default, name: None }];
        if default != FS_TREE {
            found.push(Subvolume { tree: FS_TREE, name: None });
        }
        for (name, tree) in folder::subvolumes(self, &self.top(FS_TREE)?)? {
            if tree != default {
                found.push(Subvolume { tree, name: Some(name) });
            }
        }
        Ok(found)
    }

    /// The content of the regular file at `path` of a subvolume, symbolic links followed as if that were the root
    /// filesystem.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for what is not a regular file, is longer than `most_bytes` or compressed otherwise
    /// than by zstd; `Io`; `Corrupt`.
    pub fn read(&self, subvolume: &Subvolume, path: &str, most_bytes: u64) -> Result<Vec<u8>> {
        let file = path::find(self, self.top(subvolume.tree)?, path)?;
        if file.kind != Kind::File || file.size > most_bytes {
            return Err(Error::unsupported(format!("{path} is not a small file")));
        }
        extent::content(self, &file)
    }

    /// The top folder of a subvolume.
    fn top(&self, tree: u64) -> Result<Inode> {
        let root = self.tree(tree)?.filter(|_| is_of_files(tree));
        let root = root.ok_or_else(|| Error::corrupt(format!("there is no subvolume {tree}")))?;
        Inode::read(self, root, TOP_FOLDER)
    }

    /// The root of a tree by its number.
    fn tree(&self, tree: u64) -> Result<Option<Root>> {
        roots::of_tree(&mut self.forest(), &self.chunks, &self.sb, tree)
    }

    /// Calls `each` with the items of a tree in `range`.
    fn walk(&self, root: Root, range: RangeInclusive<Key>, each: &mut Each<'_>) -> Result<()> {
        self.forest().walk_between(&self.chunks, root, &range, each)
    }

    fn forest(&self) -> Forest<'_> {
        Forest::new(&self.devices, &self.sb)
    }
}

impl Tree for Files<'_> {
    type Node = Inode;

    fn kind(node: &Inode) -> Kind {
        node.kind
    }

    fn look_up(&self, folder: &Inode, name: &[u8]) -> Result<Option<Inode>> {
        folder::look_up(self, folder, name)
    }

    fn link(&self, inode: &Inode) -> Result<Vec<u8>> {
        if !(1..=LONGEST_LINK_BYTES).contains(&inode.size) {
            return Err(inode.wrong("is a symbolic link of no possible length"));
        }
        extent::content(self, inode)
    }
}
