//! Small files of an XFS filesystem, by their paths: what a system says about itself.
//!
//! Only where the log has nothing to add: what lies in place is stale otherwise, and an fstab of yesterday may call a
//! volume what it no longer is. In version 5 everything read is under a checksum and says whose it is. All reads are
//! bounded, whatever the filesystem claims.

mod directory;
mod fork;
mod inode;
#[cfg(test)]
mod tests;

use super::layout::Layout;
use super::log;
use super::superblock::Superblock;
use crate::bytes::Bytes;
use crate::path::{self, Kind, Tree};
use imager_disk::ReadAt;
use imager_units::{Error, Result};
use inode::Inode;

/// `XFS_SYMLINK_MAXLEN`.
const LONGEST_LINK_BYTES: u64 = 1024;
const SB_ROOTINO_OFFSET: usize = 56;

/// The files of a filesystem whose log is empty.
pub struct Files<'a> {
    volume: &'a dyn ReadAt,
    sb: Superblock,
    layout: Layout,
}

impl<'a> Files<'a> {
    /// Looks at a volume; `None` when there is no XFS on it.
    ///
    /// # Errors
    /// `Io`; `Corrupt` or `Unsupported` when what lies in place is not what its system would see.
    pub fn open(volume: &'a dyn ReadAt) -> Result<Option<Self>> {
        let Some(sb) = Superblock::read(volume)? else { return Ok(None) };
        sb.check()?;
        let layout = Layout::new(&sb, volume.geometry().size)?;
        log::read(volume, &sb, &layout)?;
        Ok(Some(Self { volume, sb, layout }))
    }

    /// The content of the regular file at `path`, symbolic links followed as if this were the root filesystem.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for what is not a regular file or is longer than `most_bytes`; `Io`; `Corrupt`.
    pub fn read(&self, path: &str, most_bytes: u64) -> Result<Vec<u8>> {
        let file = self.find(path)?;
        if file.kind != Kind::File || file.size > most_bytes {
            return Err(Error::unsupported(format!("{path} is not a small file")));
        }
        self.content(&file, 0)
    }

    fn find(&self, path: &str) -> Result<Inode> {
        let root = Bytes(&self.sb.bytes).be64(SB_ROOTINO_OFFSET).unwrap_or(0);
        path::find(self, Inode::read(self, root)?, path)
    }

    /// All bytes of an inode that its caller knows to be small; `header` bytes of each block do not count.
    fn content(&self, inode: &Inode, header: usize) -> Result<Vec<u8>> {
        let len = usize::try_from(inode.size).unwrap_or(usize::MAX);
        if let Some(local) = inode.local() {
            return local.get(..len).map(<[u8]>::to_vec).ok_or_else(|| inode.wrong("is longer than itself"));
        }
        let runs = fork::runs(self, inode)?;
        if header == 0 {
            return fork::read(self, &runs, 0, len);
        }
        // Each run is a piece of its own, whatever the blocks in it (`xfs_symlink_remote_read`).
        let mut target = Vec::new();
        for run in &runs {
            let piece = run.extent(self, inode)?;
            if piece.len().get() > LONGEST_LINK_BYTES.saturating_add(self.layout.block_bytes) {
                return Err(inode.wrong("is a symbolic link in pieces that are too long"));
            }
            let bytes = crate::read::read(self.volume, piece)?;
            self.check_link(inode, &bytes, target.len(), piece.start().get())?;
            target.extend_from_slice(bytes.get(header..).unwrap_or_default());
        }
        target.truncate(len);
        (target.len() == len)
            .then_some(target)
            .ok_or_else(|| inode.wrong("is a symbolic link that breaks off"))
    }

    fn check_link(&self, inode: &Inode, bytes: &[u8], at: usize, start: u64) -> Result<()> {
        let b = Bytes(bytes);
        let sound = b.is(0, b"XSLM")
            && super::checksum::is_right(bytes, 12)
            && b.be32(4).and_then(|offset| usize::try_from(offset).ok()) == Some(at)
            && b.array(16) == Some(self.sb.meta_uuid)
            && b.be64(32) == Some(inode.number)
            && b.be64(40) == start.checked_div(BASIC_BLOCK_BYTES);
        sound.then_some(()).ok_or_else(|| inode.wrong("is a symbolic link of which a piece is damaged"))
    }
}

/// `struct xfs_dsymlink_hdr`.
const LINK_HEADER_BYTES: usize = 56;
/// `blkno` counts these, whatever the sector.
const BASIC_BLOCK_BYTES: u64 = 512;

impl Tree for Files<'_> {
    type Node = Inode;

    fn kind(node: &Inode) -> Kind {
        node.kind
    }

    fn look_up(&self, folder: &Inode, name: &[u8]) -> Result<Option<Inode>> {
        let number = directory::look_up(self, folder, name)?;
        number.map(|number| Inode::read(self, number)).transpose()
    }

    fn link(&self, inode: &Inode) -> Result<Vec<u8>> {
        if !(1..=LONGEST_LINK_BYTES).contains(&inode.size) {
            return Err(Error::corrupt("a symbolic link has no possible length"));
        }
        self.content(inode, if self.sb.features.has_crc() { LINK_HEADER_BYTES } else { 0 })
    }
}
