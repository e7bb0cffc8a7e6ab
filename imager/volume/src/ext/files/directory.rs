//! Folders (fs/ext4/ext4.h, `struct ext4_dir_entry_2`): entries one behind the other, whatever index lies over them.

use super::super::checksum::crc32c;
use super::ExtFiles;
use super::inode::Inode;
use crate::bytes::Bytes;
use crate::files::{Entry, Node, is_name};
use imager_units::{Error, Result};

const HEADER_BYTES: usize = 8;
/// What the kernel lets a folder grow to without `large_dir`; a longer one would take for ever.
const MOST_FOLDER_BYTES: u64 = 2 << 30;
const TAIL_BYTES: usize = 12;
/// What looks like a file type in the entry that holds a block's checksum.
const EXT4_FT_DIR_CSUM: u8 = 0xDE;
/// Of a folder that lies in its inode, the first bytes are its parent's number.
const INLINE_PARENT_BYTES: usize = 4;

impl ExtFiles<'_> {
    /// The entries of a folder that lies in blocks; places are bytes from its start.
    pub(super) fn block_entries(
        &self,
        inode: &Inode,
        from: u64,
        each: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let block_bytes = self.layout.block_bytes;
        if inode.size() > MOST_FOLDER_BYTES {
            return Err(Error::unsupported(format!(
                "directory inode {} is too long to be read",
                inode.number
            )));
        }
        let blocks = inode.size().div_ceil(block_bytes);
        let mut logical = from.checked_div(block_bytes).unwrap_or_default();
        while logical < blocks {
            let run = self.map(inode, logical)?;
            let Some(first) = run.physical else {
                logical = logical.saturating_add(run.len);
                continue;
            };
            for number in 0..run.len.min(blocks.saturating_sub(logical)) {
                let bytes = self.block(first.saturating_add(number))?;
                self.check_sum(inode, &bytes)?;
                let base = logical.saturating_add(number).saturating_mul(block_bytes);
                if !self.entries_in(inode, &bytes, base, from, each)? {
                    return Ok(());
                }
            }
            logical = logical.saturating_add(run.len);
        }
        Ok(())
    }

    /// The entries of a folder that lies in its inode: first those beside its parent's number, then the rest.
    pub(super) fn inline_entries(
        &self,
        inode: &Inode,
        from: u64,
        each: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let here = inode.blocks_area().get(INLINE_PARENT_BYTES..).unwrap_or_default();
        if self.entries_in(inode, here, INLINE_PARENT_BYTES.try_into().unwrap_or_default(), from, each)? {
            let rest = self.inline_rest(inode)?;
            self.entries_in(
                inode,
                &rest,
                inode.blocks_area().len().try_into().unwrap_or_default(),
                from,
                each,
            )?;
        }
        Ok(())
    }

    /// The entries in `bytes`, which begin at `base`; whether to go on.
    fn entries_in(
        &self,
        inode: &Inode,
        bytes: &[u8],
        base: u64,
        from: u64,
        each: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<bool> {
        let wrong = || Error::corrupt(format!("the entries of directory inode {} cannot be", inode.number));
        let b = Bytes(bytes);
        let mut at = 0_usize;
        while at.saturating_add(HEADER_BYTES) <= bytes.len() {
            let len = record_len(b.le16(at.saturating_add(4)).ok_or_else(wrong)?, bytes.len());
            let record = b.slice(at, len).filter(|_| len >= HEADER_BYTES && len.is_multiple_of(4));
            let record = Bytes(record.ok_or_else(wrong)?);
            at = at.saturating_add(len);
            let next = base.saturating_add(at.try_into().unwrap_or_default());
            let number = record.le32(0).ok_or_else(wrong)?;
            if number == 0 || next <= from {
                continue;
            }
            // Without the feature this is the upper half of a length that never exceeds 255.
            let name_len = usize::from(record.byte(6).ok_or_else(wrong)?);
            if !self.has_filetype() && record.byte(7) != Some(0) {
                return Err(wrong());
            }
            let name = record.slice(HEADER_BYTES, name_len).ok_or_else(wrong)?;
            if name == b"." || name == b".." {
                continue;
            }
            if number > self.sb.s_inodes_count || !is_name(name) {
                return Err(wrong());
            }
            if !each(Entry { name: name.to_vec(), node: Node(u64::from(number)), next }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The checksum in the last entry of a block; the nodes of an index have another, of nothing that is read here.
    fn check_sum(&self, inode: &Inode, bytes: &[u8]) -> Result<()> {
        let Some(counted) = bytes.len().checked_sub(TAIL_BYTES).filter(|_| self.sb.has_metadata_csum())
        else {
            return Ok(());
        };
        let tail = Bytes(bytes.get(counted..).unwrap_or_default());
        let is_tail =
            tail.le32(0) == Some(0) && tail.le16(4) == Some(12) && tail.byte(7) == Some(EXT4_FT_DIR_CSUM);
        let sum = crc32c(inode.csum_seed, &[bytes.get(..counted).unwrap_or_default()]);
        if is_tail && tail.le32(8) != Some(sum) {
            return Err(Error::corrupt(format!("a checksum in directory inode {} is wrong", inode.number)));
        }
        Ok(())
    }
}

/// `ext4_rec_len_from_disk`: blocks of 64 KiB do not fit 16 bits.
fn record_len(stored: u16, block: usize) -> usize {
    match stored {
        0 | u16::MAX if block >= 1 << 16 => block,
        stored => usize::from(stored & 0xFFFC) | usize::from(stored & 3) << 16,
    }
}
