//! What every filesystem module answers.

use imager_disk::ReadAt;
use imager_units::{ByteLen, Extent, ExtentSet, Result};

/// Whether a filesystem was left in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Unmounted properly.
    Clean,
    /// In use, not unmounted, or marked as having errors; says which.
    Dirty(String),
    /// A swap volume that holds a hibernated system.
    Hibernated,
    /// The filesystem does not say, or we do not read it.
    Unknown,
}

/// What a volume's own headers say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Its name as `blkid` has it: `ext4`, `xfs`, `LVM2_member`, `crypto_LUKS`, … Three differ: FAT says its width
    /// (`fat12`, `fat16`, `fat32`), hibernated swap is `swap`, and where several filesystems are recognised at once
    /// the name is `ambiguous`.
    pub kind: &'static str,
    /// UUID or serial number in the form `blkid` shows.
    pub uuid: Option<String>,
    /// Its label.
    pub label: Option<String>,
    /// Its allocation unit (block, cluster, page).
    pub block: ByteLen,
    /// How long it believes to be; the volume may be longer, or (damaged) shorter.
    pub size: ByteLen,
    /// Whether it was left in order.
    pub state: State,
    /// Every place at which software would recognise it, superblock copies included, relative to the volume. A
    /// restore clears these first and writes them last.
    pub head: ExtentSet,
}

/// A volume that is one of several on which one filesystem lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The UUID of the filesystem.
    pub set: String,
    /// Which of its devices the volume is.
    pub number: u64,
    /// How many devices it has.
    pub of: u64,
}

/// How sure a used map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// From the filesystem's own allocation data.
    Exact,
    /// The whole volume, and why.
    Whole(String),
}

/// The bytes of a volume that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedMap {
    /// The bytes, relative to the volume, aligned to `unit` except at the volume's end.
    pub extents: ExtentSet,
    /// The grain of masks: a power of two from 512 to 65536 that divides the allocation unit, or is 65536 for larger.
    pub unit: ByteLen,
    /// Whether it is a map at all.
    pub certainty: Certainty,
}

/// The grain of a map that is the whole volume: a bad sector costs no more than a page.
const WHOLE_UNIT: ByteLen = ByteLen::new(4096);

impl UsedMap {
    /// The map of a volume of `size` bytes of which everything counts, because of `reason`.
    pub fn whole(size: ByteLen, reason: String) -> Self {
        Self { extents: Extent::first(size).into(), unit: WHOLE_UNIT, certainty: Certainty::Whole(reason) }
    }
}

/// One filesystem.
pub trait UsedBlocks: Sync {
    /// Recognises the filesystem from its headers; `None` when it is not this one.
    ///
    /// # Errors
    /// `Io` when the volume cannot be read. Damage is not an error: it is not recognised, or is recognised and dirty.
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>>;

    /// Every byte that counts.
    ///
    /// # Errors
    /// `Io` when the volume cannot be read; `Corrupt` or `Unsupported`, with a reason a person understands, when a
    /// map cannot be relied on: the caller takes the whole volume then.
    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap>;

    /// Which part of a filesystem the volume is; `None` where a filesystem has one volume to itself.
    ///
    /// # Errors
    /// `Io` when the volume cannot be read.
    fn member(&self, _volume: &dyn ReadAt) -> Result<Option<Member>> {
        Ok(None)
    }

    /// As [`used`](Self::used), of a volume whose filesystem lies on `others` as well.
    ///
    /// # Errors
    /// Those of [`used`](Self::used).
    fn used_with(&self, volume: &dyn ReadAt, _others: &[&dyn ReadAt]) -> Result<UsedMap> {
        self.used(volume)
    }
}
