//! Reading little-endian fields off untrusted bytes, and writing them.

use imager_units::{Error, Result};

/// A reader that never leaves its bytes.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`, called `what` in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| Error::corrupt(format!("{} ends too early", self.what)))?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Error::corrupt(format!("{} ends too early", self.what)))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// An error about what is being read.
    pub(crate) fn corrupt<T>(&self, why: &str) -> Result<T> {
        Err(Error::corrupt(format!("{}: {why}", self.what)))
    }

    /// Checks that nothing is left over.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { self.corrupt("has bytes behind its end") }
    }
}

/// A count as a fixed-width field.
///
/// # Errors
/// `Invalid` when it does not fit, which the format's limits exclude for everything we write.
pub(crate) fn narrow<T: TryFrom<usize>>(count: usize, what: &str) -> Result<T> {
    T::try_from(count).map_err(|_| {
        Error::new(imager_units::ErrorKind::Invalid, format!("{what}: {count} does not fit its field"))
    })
}
