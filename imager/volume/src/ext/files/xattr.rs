//! Extended attributes (fs/ext4/xattr.h): in the inode behind its fields, in a block, or in an inode of their own.

use super::ExtFiles;
use super::inode::Inode;
use crate::bytes::Bytes;
use crate::files::Node;
use imager_units::{Error, Result};

const EXT4_XATTR_MAGIC: u32 = 0xEA02_0000;
const ENTRY_BYTES: usize = 16;
const BLOCK_HEADER_BYTES: usize = 32;
/// `XATTR_SIZE_MAX`.
const MOST_VALUE_BYTES: usize = 64 << 10;
const INDEX_ACL_ACCESS: u8 = 2;
const INDEX_ACL_DEFAULT: u8 = 3;
const INDEX_SYSTEM: u8 = 7;
const INLINE_DATA: &[u8] = b"data";

/// One attribute.
pub(super) struct Xattr {
    index: u8,
    name: Vec<u8>,
    value: Value,
}

enum Value {
    Here(Vec<u8>),
    /// In the content of an inode, of that length.
    Inode(u32, usize),
}

impl Xattr {
    /// Its name in Linux; `None` for what is not shown.
    pub(super) fn shown(&self) -> Option<Vec<u8>> {
        let prefix: &[u8] = match self.index {
            1 => b"user.",
            INDEX_ACL_ACCESS => b"system.posix_acl_access",
            INDEX_ACL_DEFAULT => b"system.posix_acl_default",
            4 => b"trusted.",
            6 => b"security.",
            INDEX_SYSTEM if self.name != INLINE_DATA => b"system.",
            8 => b"system.richacl",
            _ => return None,
        };
        let shown = [prefix, &self.name].concat();
        Some(shown).filter(|shown| !shown.contains(&0))
    }
}

impl ExtFiles<'_> {
    /// All attributes of an inode.
    pub(super) fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        let wrong = || Error::corrupt(format!("the extended attributes of inode {} cannot be", inode.number));
        let mut found = Vec::new();
        let behind = inode.behind();
        if Bytes(behind).le32(0) == Some(EXT4_XATTR_MAGIC) {
            let area = behind.get(4..).unwrap_or_default();
            entries(area, 0, &mut found).ok_or_else(wrong)?;
        }
        match inode.xattr_block() {
            0 => {}
            block => {
                let bytes = self.block(block)?;
                if Bytes(&bytes).le32(0) != Some(EXT4_XATTR_MAGIC) {
                    return Err(wrong());
                }
                entries(&bytes, BLOCK_HEADER_BYTES, &mut found).ok_or_else(wrong)?;
            }
        }
        Ok(found)
    }

    /// The value of one, as `getxattr` gives it.
    pub(super) fn xattr_value(&self, xattr: &Xattr) -> Result<Vec<u8>> {
        let value = match &xattr.value {
            Value::Here(value) => value.clone(),
            Value::Inode(number, len) => {
                let inode = self.inode(Node(u64::from(*number)))?;
                let mut value = vec![0; *len];
                if self.content(&inode, 0, &mut value)? < *len {
                    return Err(Error::corrupt("an extended attribute is shorter than it says"));
                }
                value
            }
        };
        match xattr.index {
            INDEX_ACL_ACCESS | INDEX_ACL_DEFAULT => {
                acl(&value).ok_or_else(|| Error::corrupt("an access control list cannot be"))
            }
            _ => Ok(value),
        }
    }

    /// What of an inode's inline content did not fit into the place of its block numbers.
    pub(super) fn inline_rest(&self, inode: &Inode) -> Result<Vec<u8>> {
        let found = self.xattrs(inode)?;
        let data = found.into_iter().find(|found| found.index == INDEX_SYSTEM && found.name == INLINE_DATA);
        match data.map(|data| data.value) {
            Some(Value::Here(value)) => Ok(value),
            Some(Value::Inode(..)) => Err(Error::corrupt("inline content that is not inline")),
            None => Ok(Vec::new()),
        }
    }
}

/// The entries of an area from `at` on; the places of values count from the area's start.
fn entries(area: &[u8], mut at: usize, found: &mut Vec<Xattr>) -> Option<()> {
    let b = Bytes(area);
    // The end is a word of zeros, or the end of the area.
    while b.le32(at).is_some_and(|word| word != 0) {
        let entry = Bytes(b.slice(at, ENTRY_BYTES)?);
        let name_len = usize::from(entry.byte(0)?);
        let name = b.slice(at.checked_add(ENTRY_BYTES)?, name_len)?.to_vec();
        let (offset, inode) = (usize::from(entry.le16(2)?), entry.le32(4)?);
        let len = usize::try_from(entry.le32(8)?).ok().filter(|&len| len <= MOST_VALUE_BYTES)?;
        let value = match inode {
            0 if len == 0 => Value::Here(Vec::new()),
            0 => Value::Here(b.slice(offset, len)?.to_vec()),
            inode => Value::Inode(inode, len),
        };
        found.push(Xattr { index: entry.byte(1)?, name, value });
        at = at.checked_add(ENTRY_BYTES)?.checked_add(name_len)?.checked_next_multiple_of(4)?;
    }
    Some(())
}

/// An access control list in the form of the system call (include/uapi/linux/posix_acl_xattr.h) from the shorter one
/// on disk (fs/ext4/acl.h), in which only users and groups by number have a number.
fn acl(stored: &[u8]) -> Option<Vec<u8>> {
    let b = Bytes(stored);
    let mut at = 4_usize;
    let mut list = 2_u32.to_le_bytes().to_vec();
    if b.le32(0)? != 1 {
        return None;
    }
    while at < stored.len() {
        let tag = b.le16(at)?;
        list.extend(b.slice(at, 4)?);
        let has_number = matches!(tag, 0x02 | 0x08);
        let number = if has_number { b.le32(at.checked_add(4)?)? } else { u32::MAX };
        list.extend(number.to_le_bytes());
        at = at.checked_add(if has_number { 8 } else { 4 })?;
    }
    Some(list)
}
