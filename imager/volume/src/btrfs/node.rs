//! Nodes of a tree (fs/btrfs/ctree.h, `struct btrfs_header`, `btrfs_item`, `btrfs_key_ptr`).

use crate::bytes::Bytes;
use imager_units::{Error, Result};

/// `struct btrfs_header`.
const HEADER_BYTES: usize = 101;
/// `struct btrfs_item`.
const ITEM_BYTES: usize = 25;
/// `struct btrfs_key_ptr`.
const KEY_PTR_BYTES: usize = 33;

/// `struct btrfs_disk_key`; its order is that of the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) objectid: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    /// `struct btrfs_disk_key`.
    pub(super) const BYTES: usize = 17;
    pub(super) const LEAST: Self = Self::new(0, 0, 0);
    pub(super) const MOST: Self = Self::new(u64::MAX, u8::MAX, u64::MAX);

    pub(super) const fn new(objectid: u64, kind: u8, offset: u64) -> Self {
        Self { objectid, kind, offset }
    }

    pub(super) fn parse(b: Bytes<'_>, at: usize) -> Option<Self> {
        let field = Bytes(b.slice(at, Self::BYTES)?);
        Some(Self { objectid: field.le64(0)?, kind: field.byte(8)?, offset: field.le64(9)? })
    }
}

/// A child of an inner node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub(super) key: Key,
    pub(super) logical: u64,
    pub(super) generation: u64,
}

/// What a node says of itself, and its entries.
pub(super) struct Node<'a> {
    b: Bytes<'a>,
    pub(super) fsid: [u8; 16],
    pub(super) bytenr: u64,
    pub(super) generation: u64,
    pub(super) owner: u64,
    pub(super) level: u8,
    nritems: usize,
}

impl<'a> Node<'a> {
    /// A node of any content; only too few bytes are none.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let b = Bytes(bytes);
        Some(Self {
            b,
            fsid: b.array(32)?,
            bytenr: b.le64(48)?,
            generation: b.le64(80)?,
            owner: b.le64(88)?,
            level: b.byte(100)?,
            nritems: usize::try_from(b.le32(96)?).ok()?,
        })
    }

    /// The children of an inner node.
    pub(super) fn children(&self) -> Result<Vec<Child>> {
        let entry = |index| {
            let at = place(index, KEY_PTR_BYTES)?;
            let field = Bytes(self.b.slice(at, KEY_PTR_BYTES)?);
            let (logical, generation) = (field.le64(17)?, field.le64(25)?);
            Some(Child { key: Key::parse(field, 0)?, logical, generation })
        };
        self.entries(KEY_PTR_BYTES)?.map(entry).collect::<Option<_>>().ok_or_else(|| self.is_wrong())
    }

    /// The items of a leaf: key and data.
    pub(super) fn items(&self) -> Result<impl Iterator<Item = Result<(Key, &'a [u8])>>> {
        let entries = self.entries(ITEM_BYTES)?;
        let behind = place(self.nritems, ITEM_BYTES).ok_or_else(|| self.is_wrong())?;
        let (b, bytenr) = (self.b, self.bytenr);
        let item = move |index| {
            let at = place(index, ITEM_BYTES)?;
            let field = Bytes(b.slice(at, ITEM_BYTES)?);
            let offset = usize::try_from(field.le32(17)?).ok()?.checked_add(HEADER_BYTES)?;
            let data = b.slice(offset, usize::try_from(field.le32(21)?).ok()?)?;
            (offset >= behind || data.is_empty()).then_some((Key::parse(field, 0)?, data))
        };
        Ok(entries.map(move |index| item(index).ok_or_else(|| is_wrong(bytenr))))
    }

    fn entries(&self, bytes: usize) -> Result<std::ops::Range<usize>> {
        match place(self.nritems, bytes) {
            Some(end) if end <= self.b.0.len() => Ok(0..self.nritems),
            _ => Err(self.is_wrong()),
        }
    }

    fn is_wrong(&self) -> Error {
        is_wrong(self.bytenr)
    }
}

fn is_wrong(bytenr: u64) -> Error {
    Error::corrupt(format!("the entries of the tree node at {bytenr:#x} contradict each other"))
}

/// Where an entry lies in a node.
fn place(index: usize, bytes: usize) -> Option<usize> {
    index.checked_mul(bytes)?.checked_add(HEADER_BYTES)
}
