//! Folders (`struct btrfs_dir_item`): each entry is found by a sum over its name; names with the same sum share an item.

use super::Files;
use super::inode::{INODE_ITEM, Inode};
use crate::btrfs::node::Key;
use crate::btrfs::roots::{self, ROOT_ITEM};
use crate::btrfs::superblock::Root;
use crate::bytes::Bytes;
use crate::crc32c;
use imager_units::{Error, Result};

const DIR_ITEM: u8 = 84;
const DIR_INDEX: u8 = 96;
const ROOT_REF: u8 = 156;
/// `struct btrfs_dir_item` before the name.
const HEADER_BYTES: usize = 30;
/// `BTRFS_ROOT_TREE_DIR_OBJECTID`: the folder in the root tree.
const ROOT_TREE_FOLDER: u64 = 6;
/// Of more subvolumes in the top one nobody has his root.
const MOST_SUBVOLUMES: usize = 256;

/// An entry of a folder.
struct Entry<'a> {
    /// Of an inode, or of the root of a subvolume.
    to: Key,
    name: &'a [u8],
}

/// The file called `name`.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(super) fn look_up(files: &Files<'_>, folder: &Inode, name: &[u8]) -> Result<Option<Inode>> {
    let Some(to) = find(files, folder.root, folder.number, name)? else { return Ok(None) };
    match to.kind {
        INODE_ITEM => Inode::read(files, folder.root, to.objectid).map(Some),
        ROOT_ITEM if is_inside(files, folder.root.owner, to.objectid)? => files.top(to.objectid).map(Some),
        // In a snapshot of what is around it a subvolume is an empty folder.
        ROOT_ITEM => Ok(None),
        _ => Err(folder.wrong("is a folder with an entry that leads nowhere")),
    }
}

/// The number of the subvolume that is mounted when none is named.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(super) fn default_subvolume(files: &Files<'_>) -> Result<Option<u64>> {
    let to = find(files, roots::of_roots(&files.sb), ROOT_TREE_FOLDER, b"default")?;
    Ok(to.map(|to| to.objectid))
}

/// The names and numbers of the subvolumes that lie in a folder.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(super) fn subvolumes(files: &Files<'_>, folder: &Inode) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let number = folder.number;
    let range = Key::new(number, DIR_INDEX, 0)..=Key::new(number, DIR_INDEX, u64::MAX);
    files.walk(folder.root, range, &mut |_, data| {
        for entry in entries(data)?.iter().filter(|entry| entry.to.kind == ROOT_ITEM) {
            if let Ok(name) = std::str::from_utf8(entry.name)
                && found.len() < MOST_SUBVOLUMES
            {
                found.push((name.to_owned(), entry.to.objectid));
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Where the entry `name` of the folder leads.
fn find(files: &Files<'_>, root: Root, folder: u64, name: &[u8]) -> Result<Option<Key>> {
    let key = Key::new(folder, DIR_ITEM, hash(name));
    let mut found = None;
    files.walk(root, key..=key, &mut |_, data| {
        found = entries(data)?.iter().find(|entry| entry.name == name).map(|entry| entry.to);
        Ok(())
    })?;
    Ok(found)
}

/// Whether a subvolume really lies in the subvolume `parent`, and not only in what that is a snapshot of.
fn is_inside(files: &Files<'_>, parent: u64, child: u64) -> Result<bool> {
    let key = Key::new(parent, ROOT_REF, child);
    let mut found = false;
    files.walk(roots::of_roots(&files.sb), key..=key, &mut |_, _| {
        found = true;
        Ok(())
    })?;
    Ok(found)
}

/// All entries of an item.
fn entries(data: &[u8]) -> Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let entry = || {
            let b = Bytes(rest);
            let (data_len, name_len) = (b.le16(25)?, b.le16(27)?);
            let name = b.slice(HEADER_BYTES, name_len.into())?;
            let behind = HEADER_BYTES.checked_add(name_len.into())?.checked_add(data_len.into())?;
            Some((Entry { to: Key::parse(b, 0)?, name }, rest.get(behind..)?))
        };
        let (entry, behind) = entry().ok_or_else(|| Error::corrupt("an entry of a folder is cut short"))?;
        entries.push(entry);
        rest = behind;
    }
    Ok(entries)
}

/// `btrfs_name_hash`.
pub(super) fn hash(name: &[u8]) -> u64 {
    crc32c::raw(!1, &[name]).into()
}
