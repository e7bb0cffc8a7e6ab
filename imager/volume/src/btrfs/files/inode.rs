//! Inodes (`struct btrfs_inode_item`).

use super::Files;
use crate::btrfs::node::Key;
use crate::btrfs::superblock::Root;
use crate::bytes::Bytes;
use crate::path::Kind;
use imager_units::{Error, Result};

pub(super) const INODE_ITEM: u8 = 1;
const SIZE_OFFSET: usize = 16;
const MODE_OFFSET: usize = 52;
const FLAGS_OFFSET: usize = 64;
/// `BTRFS_INODE_NODATASUM`.
const FLAG_NO_SUMS: u64 = 1;

/// A file of any kind, and the tree it is in.
#[derive(Clone)]
pub(crate) struct Inode {
    pub(super) root: Root,
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) has_sums: bool,
}

impl Inode {
    /// Reads inode `number` of a tree.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when there is none, or the log changes it.
    pub(super) fn read(files: &Files<'_>, root: Root, number: u64) -> Result<Self> {
        files.changes.check(root.owner, number)?;
        let mut found = None;
        let key = Key::new(number, INODE_ITEM, 0);
        files.walk(root, key..=key, &mut |_, data| {
            found = Self::parse(root, number, Bytes(data));
            Ok(())
        })?;
        found.ok_or_else(|| Error::corrupt(format!("inode {number} is missing or damaged")))
    }

    fn parse(root: Root, number: u64, b: Bytes<'_>) -> Option<Self> {
        let kind = Kind::of_mode(b.le32(MODE_OFFSET)?);
        let has_sums = b.le64(FLAGS_OFFSET)? & FLAG_NO_SUMS == 0;
        Some(Self { root, number, kind, size: b.le64(SIZE_OFFSET)?, has_sums })
    }

    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::corrupt(format!("inode {} {what}", self.number))
    }
}
