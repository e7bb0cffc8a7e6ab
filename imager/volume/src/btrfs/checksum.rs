//! The four checksums of Btrfs (fs/btrfs/fs.h, `btrfs_csum_type`), over everything behind the field that holds them.

use crate::crc32c::crc32c;
use blake2::Blake2b;
use blake2::digest::consts::U32;
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

/// `BTRFS_CSUM_SIZE`: the field at the start of every superblock and node.
pub(super) const CSUM_BYTES: usize = 32;

/// How superblocks, nodes and data are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b,
}

impl Checksum {
    /// By the superblock's `csum_type`.
    pub(super) fn of_type(csum_type: u16) -> Option<Self> {
        [Self::Crc32c, Self::XxHash64, Self::Sha256, Self::Blake2b].get(usize::from(csum_type)).copied()
    }

    /// Whether a superblock or node holds its own sum. Bytes of the field that the sum does not fill do not count.
    pub(super) fn is_right(self, block: &[u8]) -> bool {
        block.split_at_checked(CSUM_BYTES).is_some_and(|(field, body)| self.is_of(field, body))
    }

    /// How long a sum is where it stands alone.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::XxHash64 => 8,
            Self::Sha256 | Self::Blake2b => CSUM_BYTES,
        }
    }

    /// Whether `field`, which may be longer than a sum, begins with that of `body`.
    pub(super) fn is_of(self, field: &[u8], body: &[u8]) -> bool {
        match self {
            Self::Crc32c => field.starts_with(&crc32c(&[body]).to_le_bytes()),
            Self::XxHash64 => field.starts_with(&XxHash64::oneshot(0, body).to_le_bytes()),
            Self::Sha256 => field.starts_with(&Sha256::digest(body)),
            Self::Blake2b => field.starts_with(&Blake2b::<U32>::digest(body)),
        }
    }
}
