//! Chunks: which logical bytes are where on which device (`struct btrfs_chunk`).

use super::node::Key;
use super::profile::{Profile, STRIP_BYTES};
use super::superblock::Superblock;
use crate::bytes::Bytes;
use imager_units::{Error, Result};

/// `BTRFS_CHUNK_ITEM_KEY`.
pub(super) const CHUNK_ITEM: u8 = 228;
/// `BTRFS_FIRST_CHUNK_TREE_OBJECTID`.
const FIRST_CHUNK_TREE: u64 = 256;
/// `struct btrfs_chunk` before its stripes.
const CHUNK_BYTES: usize = 48;
/// `struct btrfs_stripe`.
const STRIPE_BYTES: usize = 32;
/// `BTRFS_BLOCK_GROUP_SYSTEM`.
const SYSTEM: u64 = 1 << 1;
/// `BTRFS_BLOCK_GROUP_METADATA`.
const METADATA: u64 = 1 << 2;
/// More stripes than this are not kept in memory (48 MiB): a filesystem of 64 TiB has some hundred thousand.
const MOST_STRIPES: usize = 1 << 20;

/// One stripe of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stripe {
    pub(super) devid: u64,
    pub(super) offset: u64,
    pub(super) dev_uuid: [u8; 16],
}

/// A chunk.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) logical: u64,
    pub(super) len: u64,
    pub(super) kind: u64,
    pub(super) profile: Profile,
    /// How long each stripe is.
    pub(super) stripe_bytes: u64,
    pub(super) stripes: Vec<Stripe>,
}

impl Chunk {
    /// A chunk from its item. Whether its stripes lie on the devices is [`Devices`](super::devices::Devices)' question.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported` for another length of strips.
    pub(super) fn parse(key: Key, data: &[u8], sb: &Superblock) -> Result<Self> {
        let wrong = || Error::corrupt(format!("the chunk at {:#x} contradicts itself", key.offset));
        let (chunk, stripe_len) = fields(key, data).ok_or_else(wrong)?;
        if stripe_len != STRIP_BYTES {
            return Err(Error::unsupported(format!("strips of {stripe_len} bytes")));
        }
        let sector = u64::from(sb.sectorsize);
        let is_aligned = |at: u64| at.checked_rem(sector) == Some(0);
        let end = chunk.logical.checked_add(chunk.len);
        let sound = chunk.len != 0
            && end.is_some_and(|end| end < u64::MAX)
            && is_aligned(chunk.logical)
            && is_aligned(chunk.len)
            && chunk.stripes.iter().all(|stripe| is_aligned(stripe.offset));
        if sound { Ok(chunk) } else { Err(wrong()) }
    }

    /// The first logical byte behind it.
    pub(super) fn end(&self) -> u64 {
        self.logical.saturating_add(self.len)
    }

    /// Whether trees may have nodes in it.
    pub(super) fn holds_metadata(&self) -> bool {
        self.kind & (SYSTEM | METADATA) != 0
    }

    /// In how many places each of its bytes can be read.
    pub(super) fn copies(&self) -> u64 {
        self.profile.copies(u64::try_from(self.stripes.len()).unwrap_or(u64::MAX))
    }
}

fn fields(key: Key, data: &[u8]) -> Option<(Chunk, u64)> {
    let b = Bytes(data);
    let (len, kind) = (b.le64(0)?, b.le64(24)?);
    let (num_stripes, sub_stripes) = (b.le16(44)?, b.le16(46)?);
    let profile = Profile::new(kind, num_stripes.into(), sub_stripes.into())?;
    let stripes = data.get(CHUNK_BYTES..)?.chunks_exact(STRIPE_BYTES).map(|stripe| {
        let b = Bytes(stripe);
        Some(Stripe { devid: b.le64(0)?, offset: b.le64(8)?, dev_uuid: b.array(16)? })
    });
    let stripes: Vec<_> = stripes.collect::<Option<_>>()?;
    if stripes.len() != usize::from(num_stripes) {
        return None;
    }
    let stripe_bytes = profile.stripe_bytes(len)?;
    Some((Chunk { logical: key.offset, len, kind, profile, stripe_bytes, stripes }, b.le64(16)?))
}

/// All chunks known, by their logical place.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    list: Vec<Chunk>,
    stripes: usize,
}

impl Chunks {
    /// Those of the superblock's `sys_chunk_array`: where the chunk tree itself is.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub(super) fn of_system(sb: &Superblock) -> Result<Self> {
        let mut chunks = Self::default();
        let mut rest = sb.sys_chunk_array.as_slice();
        while !rest.is_empty() {
            let b = Bytes(rest);
            let item = Key::parse(b, 0).and_then(|key| {
                let stripes = usize::from(b.le16(Key::BYTES.checked_add(44)?)?);
                let len = stripes.checked_mul(STRIPE_BYTES)?.checked_add(CHUNK_BYTES)?;
                Some((key, b.slice(Key::BYTES, len)?, rest.get(Key::BYTES.checked_add(len)?..)?))
            });
            let (key, data, behind) =
                item.ok_or_else(|| Error::corrupt("the system chunks of the superblock are cut short"))?;
            chunks.push(key, data, sb)?;
            rest = behind;
        }
        Ok(chunks)
    }

    /// Adds the chunk of an item; they come in order of their logical place.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`.
    pub(super) fn push(&mut self, key: Key, data: &[u8], sb: &Superblock) -> Result<()> {
        let chunk = Chunk::parse(key, data, sb)?;
        let is_behind = self.list.last().is_none_or(|last| last.end() <= chunk.logical);
        if key.objectid != FIRST_CHUNK_TREE || key.kind != CHUNK_ITEM || !is_behind {
            return Err(Error::corrupt(format!("the chunk at {:#x} lies over another", chunk.logical)));
        }
        self.stripes = self.stripes.saturating_add(chunk.stripes.len());
        if self.stripes > MOST_STRIPES {
            return Err(Error::unsupported(format!("more than {MOST_STRIPES} stripes of chunks")));
        }
        self.list.push(chunk);
        Ok(())
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.list.iter()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The chunk that has the byte at `logical`, and its number.
    pub(super) fn at(&self, logical: u64) -> Option<(usize, &Chunk)> {
        let number = self.list.partition_point(|chunk| chunk.end() <= logical);
        self.list.get(number).filter(|chunk| chunk.logical <= logical).map(|chunk| (number, chunk))
    }

    /// The chunk that has all of `len` bytes from `logical`, and its number.
    ///
    /// # Errors
    /// `Corrupt` when there is none.
    pub(super) fn around(&self, logical: u64, len: u64) -> Result<(usize, &Chunk)> {
        let end = logical.checked_add(len);
        let found = self.at(logical).filter(|(_, chunk)| end.is_some_and(|end| end <= chunk.end()));
        found.ok_or_else(|| Error::corrupt(format!("no chunk has the {len} bytes at {logical:#x}")))
    }
}
