//! The files of ext2, ext3 and ext4, read by inode number.
//!
//! Own rather than `ext4-view`, which finds files by path alone, cannot be shared by threads, and knows neither extended
//! attributes nor the numbers of devices. Checksums of inodes, extents and folders are checked where the filesystem has
//! them. A filesystem whose journal is to be replayed is refused: what its inodes say may not be so any more.

mod directory;
mod inode;
mod mapping;
mod xattr;

use super::features::{INCOMPAT_FILETYPE, INCOMPAT_JOURNAL_DEV, INCOMPAT_RECOVER};
use super::groups::Group;
use super::layout::Layout;
use super::superblock::Superblock;
use crate::files::{Attributes, Entry, Files, Kind, Node, absent};
use crate::read::read;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Context, Error, Extent, Result};
use inode::Inode;

const ROOT: u64 = 2;
/// No link is longer (`PATH_MAX`).
const MOST_LINK_BYTES: u64 = 4096;

/// The files of one volume.
pub(crate) struct ExtFiles<'v> {
    volume: Box<dyn ReadAt + 'v>,
    sb: Superblock,
    layout: Layout,
}

/// Opens them.
///
/// # Errors
/// `Unsupported` for unknown features and a journal that is to be replayed, `Corrupt`, `Io`.
pub(crate) fn files<'v>(volume: Box<dyn ReadAt + 'v>) -> Result<Box<dyn Files + 'v>> {
    let sb = super::superblock(&*volume)?.ok_or_else(|| Error::corrupt("there is no ext superblock"))?;
    if sb.features.incompat(INCOMPAT_JOURNAL_DEV) {
        return Err(Error::unsupported("an external journal has no files"));
    }
    if sb.features.incompat(INCOMPAT_RECOVER) {
        let what = "its journal is to be replayed first (needs_recovery): it was in use and not frozen";
        return Err(Error::unsupported(what));
    }
    if let Some(unknown) = sb.features.unknown() {
        return Err(Error::unsupported(unknown));
    }
    let layout = Layout::new(&sb, volume.geometry().size)?;
    let files = ExtFiles { volume, sb, layout };
    let root = files.inode(Node(ROOT)).context(|| "the root directory".to_owned())?;
    if root.kind() != Some(Kind::Folder) {
        return Err(Error::corrupt("the root directory is none"));
    }
    Ok(Box::new(files))
}

impl ExtFiles<'_> {
    /// A whole block of the filesystem.
    fn block(&self, block: u64) -> Result<Vec<u8>> {
        if block == 0 || block >= self.layout.blocks {
            return Err(Error::corrupt(format!("block {block} lies outside the filesystem")));
        }
        read(&*self.volume, self.layout.extent(block, block.saturating_add(1)))
    }

    /// The inode of that number that is in use.
    fn inode(&self, node: Node) -> Result<Inode> {
        let number =
            u32::try_from(node.0).ok().filter(|number| (1..=self.sb.s_inodes_count).contains(number));
        let number = number.ok_or_else(|| absent(node))?;
        let index = u64::from(number.saturating_sub(1));
        let per_group = u64::from(self.sb.s_inodes_per_group);
        let (group, within) = (index.checked_div(per_group), index.checked_rem(per_group));
        let group = self.group(group.unwrap_or_default())?;
        let inode_bytes = u64::from(self.sb.s_inode_size);
        let into = within.unwrap_or_default().saturating_mul(inode_bytes);
        let table = self.layout.extent(group.inode_table, group.inode_table.saturating_add(1)).start();
        let start = table.saturating_add(ByteLen::new(into));
        let bytes =
            read(&*self.volume, Extent::between(start, start.saturating_add(ByteLen::new(inode_bytes))))?;
        Inode::parse(number, bytes, &self.sb)?.ok_or_else(|| absent(node))
    }

    fn group(&self, number: u64) -> Result<Group> {
        let index = number.checked_div(self.layout.descs_per_block).unwrap_or_default();
        let within = number.checked_rem(self.layout.descs_per_block).unwrap_or_default();
        let block = self.layout.desc_block(index);
        let start = self.layout.extent(block, block.saturating_add(1)).start();
        let start = start.saturating_add(ByteLen::new(within.saturating_mul(self.layout.desc_bytes)));
        let end = start.saturating_add(ByteLen::new(self.layout.desc_bytes));
        let desc = read(&*self.volume, Extent::between(start, end))?;
        Group::parse(number, &desc, &self.sb, &self.layout)
    }

    /// The content of an inode, from wherever it lies.
    fn content(&self, inode: &Inode, at: u64, buf: &mut [u8]) -> Result<usize> {
        if inode.is_encrypted() {
            return Err(Error::unsupported(format!("inode {} is encrypted (fscrypt)", inode.number)));
        }
        let rest = inode.size().saturating_sub(at);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..len).unwrap_or_default();
        if inode.is_inline() {
            let data = self.inline(inode)?;
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            for (place, byte) in buf.iter_mut().zip(data.iter().skip(at).chain(std::iter::repeat(&0))) {
                *place = *byte;
            }
            return Ok(len);
        }
        self.mapped(inode, at, buf)?;
        Ok(len)
    }

    /// Fills `buf`, which ends where the file does at the latest.
    fn mapped(&self, inode: &Inode, at: u64, buf: &mut [u8]) -> Result<()> {
        let block_bytes = self.layout.block_bytes;
        let (mut at, mut buf) = (at, buf);
        while !buf.is_empty() {
            let logical = at.checked_div(block_bytes).unwrap_or_default();
            let into = at.checked_rem(block_bytes).unwrap_or_default();
            let run = self.map(inode, logical)?;
            let bytes = run.len.saturating_mul(block_bytes).saturating_sub(into);
            let len = usize::try_from(bytes).unwrap_or(usize::MAX).min(buf.len());
            let Some((here, rest)) = buf.split_at_mut_checked(len).filter(|_| len > 0) else {
                return Err(Error::corrupt(format!("inode {} has an empty extent", inode.number)));
            };
            match run.physical {
                None => here.fill(0),
                Some(block) => {
                    let start = self.layout.extent(block, block.saturating_add(run.len)).start();
                    self.volume.read_exact_at(start.saturating_add(ByteLen::new(into)), here)?;
                }
            }
            at = at.saturating_add(ByteLen::of(here).get());
            buf = rest;
        }
        Ok(())
    }

    /// What an inode keeps inside itself: up to 60 bytes in the place of its block numbers, the rest as an attribute.
    fn inline(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = inode.blocks_area().to_vec();
        data.extend(self.inline_rest(inode)?);
        Ok(data)
    }

    fn has_filetype(&self) -> bool {
        self.sb.features.incompat(INCOMPAT_FILETYPE)
    }
}

impl Files for ExtFiles<'_> {
    fn root(&self) -> Node {
        Node(ROOT)
    }

    fn attributes(&self, node: Node) -> Result<Attributes> {
        let inode = self.inode(node)?;
        inode.attributes(&self.sb, self.layout.block_bytes)
    }

    fn entries(&self, folder: Node, from: u64, each: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        let inode = self.inode(folder)?;
        if inode.kind() != Some(Kind::Folder) {
            return Err(Error::corrupt(format!("inode {} is no directory", inode.number)));
        }
        if inode.is_encrypted() {
            return Err(Error::unsupported(format!(
                "the names in inode {} are encrypted (fscrypt)",
                inode.number
            )));
        }
        if inode.is_inline() {
            self.inline_entries(&inode, from, each)
        } else {
            self.block_entries(&inode, from, each)
        }
    }

    fn read(&self, file: Node, at: ByteOffset, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(file)?;
        self.content(&inode, at.get(), buf)
    }

    fn target(&self, link: Node) -> Result<Vec<u8>> {
        let inode = self.inode(link)?;
        let size = usize::try_from(inode.size().min(MOST_LINK_BYTES)).unwrap_or(0);
        if inode.kind() != Some(Kind::Link) || inode.size() > MOST_LINK_BYTES {
            return Err(Error::corrupt(format!("inode {} is no symbolic link that can be", inode.number)));
        }
        if inode.is_fast_link() && !inode.is_encrypted() {
            return Ok(inode.blocks_area().get(..size).unwrap_or_default().to_vec());
        }
        let mut target = vec![0; size];
        let len = self.content(&inode, 0, &mut target)?;
        target.truncate(len);
        Ok(target)
    }

    fn extended(&self, node: Node) -> Result<Vec<Vec<u8>>> {
        Ok(self.xattrs(&self.inode(node)?)?.into_iter().filter_map(|found| found.shown()).collect())
    }

    fn extended_value(&self, node: Node, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.xattrs(&self.inode(node)?)?;
        let found = found.into_iter().find(|found| found.shown().is_some_and(|shown| shown == name));
        found.map(|found| self.xattr_value(&found)).transpose()
    }
}
