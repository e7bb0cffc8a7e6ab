//! Logical sectors.

use crate::{ByteLen, ByteOffset, Error, ErrorKind, Result};
use std::fmt;

/// A logical block address: the number of a logical sector, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(u64);

/// The size of a logical sector in bytes: a power of two from 512 to 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectorSize(u32);

impl Lba {
    /// Sector `number`, counted from 0.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The sector's number, counted from 0.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl SectorSize {
    /// 512 bytes.
    pub const B512: Self = Self(512);
    /// 4096 bytes.
    pub const B4096: Self = Self(4096);

    /// A sector of `bytes` bytes.
    ///
    /// # Errors
    /// `Unsupported` when `bytes` is no power of two from 512 to 65536.
    pub fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (512..=65_536).contains(&bytes) {
            return Ok(Self(bytes));
        }
        Err(Error::new(ErrorKind::Unsupported, format!("a logical sector of {bytes} bytes")))
    }

    /// The size in bytes.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The size as a length.
    pub const fn as_len(self) -> ByteLen {
        ByteLen::new(self.0 as u64)
    }

    /// Where sector `lba` starts, or `None` past 2^64.
    pub fn offset_of(self, lba: Lba) -> Option<ByteOffset> {
        lba.0.checked_mul(u64::from(self.0)).map(ByteOffset::new)
    }

    /// The length of `sectors` sectors, or `None` past 2^64.
    pub fn len_of(self, sectors: u64) -> Option<ByteLen> {
        sectors.checked_mul(u64::from(self.0)).map(ByteLen::new)
    }

    /// The sector that holds byte `offset`.
    pub fn lba_of(self, offset: ByteOffset) -> Lba {
        Lba(offset.get() / u64::from(self.0))
    }

    /// How many whole sectors fit into `len`.
    pub fn sectors_in(self, len: ByteLen) -> u64 {
        len.get() / u64::from(self.0)
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}", self.0)
    }
}
