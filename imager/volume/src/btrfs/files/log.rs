//! What the log of `fsync` would change.
//!
//! What is in the log becomes part of its subvolume at the next mount. It lists inodes that were synced: theirs are the
//! items that it has, and the folders in which they have a name are named by those.

use super::Files;
use crate::btrfs::node::Key;
use crate::btrfs::roots;
use imager_units::{Error, Result};
use std::collections::BTreeSet;

/// `BTRFS_INODE_REF_KEY`: its offset is the folder; `BTRFS_INODE_EXTREF_KEY` has it inside.
const INODE_REF: u8 = 12;
const INODE_EXTREF: u8 = 13;
/// Stands for all inodes of a subvolume.
const ALL: u64 = u64::MAX;
/// More is no log of the few seconds between two commits.
const MOST_CHANGES: usize = 1 << 18;

/// The inodes that the log changes, by subvolume and number.
#[derive(Default)]
pub(super) struct Changes(BTreeSet<(u64, u64)>);

impl Changes {
    /// Reads the log.
    ///
    /// # Errors
    /// `Io`, `Corrupt`; `Unsupported` for a very large one.
    pub(super) fn read(files: &Files<'_>) -> Result<Self> {
        let mut changes = Self::default();
        let Some(root) = roots::of_logs(&files.sb) else { return Ok(changes) };
        let mut trees = Vec::new();
        files.walk(root, Key::LEAST..=Key::MOST, &mut |key, data| {
            // The offset is the subvolume that the log is of.
            trees.extend(roots::of_log(key, data)?.map(|root| (key.offset, root)));
            Ok(())
        })?;
        for (subvolume, root) in trees {
            files.walk(root, Key::LEAST..=Key::MOST, &mut |key, _| changes.take(subvolume, key))?;
        }
        Ok(changes)
    }

    fn take(&mut self, subvolume: u64, key: Key) -> Result<()> {
        self.0.insert((subvolume, key.objectid));
        match key.kind {
            INODE_REF => _ = self.0.insert((subvolume, key.offset)),
            INODE_EXTREF => _ = self.0.insert((subvolume, ALL)),
            _ => {}
        }
        if self.0.len() > MOST_CHANGES {
            return Err(Error::unsupported("its log, which was not replayed, is very large"));
        }
        Ok(())
    }

    /// Checks that an inode is as its system would see it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(super) fn check(&self, subvolume: u64, inode: u64) -> Result<()> {
        if self.0.contains(&(subvolume, inode)) || self.0.contains(&(subvolume, ALL)) {
            return Err(Error::corrupt("its log, which was not replayed, changes files on the way"));
        }
        Ok(())
    }
}
