//! Whether the log of `fsync` would change what lies on the way to a file.
//!
//! What is in the log becomes part of its subvolume at the next mount. It lists inodes that were synced: theirs are the
//! items that it has, and the folders in which they have a name are named by those.

use super::Files;
use super::inode::Inode;
use crate::btrfs::node::Key;
use crate::btrfs::roots;
use crate::path::{Kind, Tree};
use imager_units::{Error, Result};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// `BTRFS_INODE_REF_KEY`: its offset is the folder; `BTRFS_INODE_EXTREF_KEY` has it inside.
const INODE_REF: u8 = 12;
const INODE_EXTREF: u8 = 13;

/// Files, remembering whatever is met in them.
pub(super) struct Way<'f, 'a> {
    files: &'f Files<'a>,
    /// Tree and number.
    met: RefCell<BTreeSet<(u64, u64)>>,
}

impl<'f, 'a> Way<'f, 'a> {
    pub(super) fn new(files: &'f Files<'a>) -> Self {
        Self { files, met: RefCell::default() }
    }

    /// Takes note of an inode.
    pub(super) fn met(&self, inode: Inode) -> Inode {
        self.met.borrow_mut().insert((inode.root.owner, inode.number));
        inode
    }

    /// Checks that the log has nothing about what was met.
    ///
    /// # Errors
    /// `Corrupt` when it has; `Io`.
    pub(super) fn check(&self) -> Result<()> {
        let files = self.files;
        let Some(root) = roots::of_logs(&files.sb) else { return Ok(()) };
        let mut trees = Vec::new();
        files.walk(root, Key::LEAST..=Key::MOST, &mut |key, data| {
            // The subvolume that the log is of.
            trees.extend(roots::of_log(key, data)?.map(|root| (key.offset, root)));
            Ok(())
        })?;
        let met = self.met.borrow();
        for (subvolume, root) in trees {
            files.walk(root, Key::LEAST..=Key::MOST, &mut |key, _| {
                let is_met = |number| met.contains(&(subvolume, number));
                let names_folder = key.kind == INODE_REF && is_met(key.offset);
                if is_met(key.objectid) || names_folder || key.kind == INODE_EXTREF {
                    return Err(Error::corrupt("its log, which was not replayed, changes files on the way"));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Tree for Way<'_, '_> {
    type Node = Inode;

    fn kind(node: &Inode) -> Kind {
        node.kind
    }

    fn look_up(&self, folder: &Inode, name: &[u8]) -> Result<Option<Inode>> {
        Ok(self.files.look_up(folder, name)?.map(|inode| self.met(inode)))
    }

    fn link(&self, node: &Inode) -> Result<Vec<u8>> {
        self.files.link(node)
    }
}
