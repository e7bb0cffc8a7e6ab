//! What is in a file (`struct btrfs_file_extent_item`).

use super::Files;
use super::inode::Inode;
use super::sums;
use crate::btrfs::node::Key;
use crate::bytes::Bytes;
use imager_units::{Error, Result};
use std::io::Read;

pub(super) const EXTENT_DATA: u8 = 108;
const RAM_BYTES_OFFSET: usize = 8;
/// Compression, encryption, another encoding; then the type.
const COMPRESSION_OFFSET: usize = 16;
const TYPE_OFFSET: usize = 20;
const INLINE_OFFSET: usize = 21;
const TYPE_INLINE: u8 = 0;
const TYPE_REGULAR: u8 = 1;
const TYPE_PREALLOCATED: u8 = 2;
/// `BTRFS_MAX_COMPRESSED`, `BTRFS_MAX_UNCOMPRESSED`.
const MOST_COMPRESSED_BYTES: u64 = 128 << 10;
/// `ZSTD_BTRFS_MAX_WINDOWLOG`.
const MOST_WINDOW_LOG: u32 = 17;

/// One extent of a file.
struct FileExtent {
    ram_bytes: u64,
    compression: u8,
    body: Body,
}

/// Where an extent's bytes are.
enum Body {
    Inline(Vec<u8>),
    /// Nowhere: zeros.
    Hole(u64),
    Blocks(Blocks),
}

/// A piece of an extent of the disk.
struct Blocks {
    disk_bytenr: u64,
    disk_num_bytes: u64,
    offset: u64,
    num_bytes: u64,
}

/// All bytes of a file that its caller knows to be small.
///
/// # Errors
/// `Io`; `Corrupt`; `Unsupported` for a compression that is not read.
pub(super) fn content(files: &Files<'_>, inode: &Inode) -> Result<Vec<u8>> {
    let len = usize::try_from(inode.size).unwrap_or(usize::MAX);
    let Some(last) = inode.size.checked_sub(1) else { return Ok(Vec::new()) };
    let key = |offset| Key::new(inode.number, EXTENT_DATA, offset);
    let wrong = || inode.wrong("has an extent that is damaged");
    let mut extents = Vec::new();
    files.walk(inode.root, key(0)..=key(last), &mut |key, data| {
        // So there are at most as many as the file has sectors.
        let is_aligned = key.offset.checked_rem(files.sb.sectorsize.into()) == Some(0);
        let extent = FileExtent::parse(data).filter(|_| is_aligned).ok_or_else(wrong)?;
        extents.push((key.offset, extent));
        Ok(())
    })?;
    let mut bytes = vec![0; len];
    let mut end = 0;
    for (offset, extent) in extents {
        let place = usize::try_from(offset).ok().filter(|_| offset >= end).ok_or_else(wrong)?;
        let room = bytes.get_mut(place..).ok_or_else(wrong)?;
        let found = extent.read(files, inode, room.len())?;
        let (found, room) = match room.get_mut(..found.len()) {
            Some(room) => (found.as_slice(), room),
            None => (found.get(..room.len()).unwrap_or_default(), room),
        };
        room.copy_from_slice(found);
        end = offset.checked_add(extent.len()).ok_or_else(wrong)?;
    }
    Ok(bytes)
}

impl FileExtent {
    fn parse(data: &[u8]) -> Option<Self> {
        let b = Bytes(data);
        let ram_bytes = b.le64(RAM_BYTES_OFFSET)?;
        let [compression, encryption, other, another] = b.array(COMPRESSION_OFFSET)?;
        if [encryption, other, another] != [0; 3] {
            return None;
        }
        let blocks = || {
            let (disk_bytenr, disk_num_bytes) = (b.le64(21)?, b.le64(29)?);
            Some(Blocks { disk_bytenr, disk_num_bytes, offset: b.le64(37)?, num_bytes: b.le64(45)? })
        };
        let body = match b.byte(TYPE_OFFSET)? {
            TYPE_INLINE => Body::Inline(data.get(INLINE_OFFSET..)?.to_vec()),
            TYPE_REGULAR | TYPE_PREALLOCATED => match blocks()? {
                blocks if blocks.disk_bytenr == 0 || b.byte(TYPE_OFFSET) == Some(TYPE_PREALLOCATED) => {
                    Body::Hole(blocks.num_bytes)
                }
                blocks => Body::Blocks(blocks),
            },
            _ => return None,
        };
        Some(Self { ram_bytes, compression, body })
    }

    /// How much of the file it is.
    fn len(&self) -> u64 {
        match &self.body {
            Body::Inline(_) => self.ram_bytes,
            Body::Hole(len) => *len,
            Body::Blocks(blocks) => blocks.num_bytes,
        }
    }

    /// Its bytes, as far as the file goes on for `room` bytes; nothing where they are zeros.
    fn read(&self, files: &Files<'_>, inode: &Inode, room: usize) -> Result<Vec<u8>> {
        let wrong = || inode.wrong("has an extent that is damaged");
        match &self.body {
            Body::Hole(_) => Ok(Vec::new()),
            Body::Inline(data) if self.compression == 0 => Ok(data.clone()),
            Body::Inline(data) => self.expand(inode, data),
            Body::Blocks(blocks) if self.compression == 0 => {
                let at = blocks.disk_bytenr.checked_add(blocks.offset).ok_or_else(wrong)?;
                let sector = u64::from(files.sb.sectorsize);
                let most = u64::try_from(room).unwrap_or(u64::MAX).next_multiple_of(sector);
                sums::read(files, inode, at, blocks.num_bytes.min(most))
            }
            Body::Blocks(blocks) => {
                if blocks.disk_num_bytes > MOST_COMPRESSED_BYTES {
                    return Err(wrong());
                }
                let stored = sums::read(files, inode, blocks.disk_bytenr, blocks.disk_num_bytes)?;
                let all = self.expand(inode, &stored)?;
                let range = || {
                    let from = usize::try_from(blocks.offset).ok()?;
                    let len = usize::try_from(blocks.num_bytes).ok()?;
                    // What it is compressed of need not fill its last sector.
                    all.get(from..from.checked_add(len)?.min(all.len()))
                };
                range().map(<[u8]>::to_vec).ok_or_else(wrong)
            }
        }
    }

    /// Undoes the compression.
    fn expand(&self, inode: &Inode, stored: &[u8]) -> Result<Vec<u8>> {
        let how = match self.compression {
            1 => "zlib",
            2 => "lzo",
            3 => "zstd",
            _ => "an unknown method",
        };
        if how != "zstd" {
            return Err(Error::unsupported(format!("it is compressed by {how}")));
        }
        if self.ram_bytes > MOST_COMPRESSED_BYTES {
            return Err(inode.wrong("is compressed of more than can be"));
        }
        let expand = || {
            let mut decoder = zstd::Decoder::with_buffer(stored)?.single_frame();
            decoder.window_log_max(MOST_WINDOW_LOG)?;
            let mut bytes = Vec::new();
            decoder.take(self.ram_bytes).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        };
        expand().map_err(|_| inode.wrong("is not compressed as it says"))
    }
}
