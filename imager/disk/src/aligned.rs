//! A reusable buffer that the kernel accepts for direct I/O.
//!
//! `O_DIRECT` wants memory aligned to the device's logical block. Instead of an allocator call that needs `unsafe`, the
//! buffer is a page longer than asked and starts at the first aligned byte; the heap block never moves after that.

use std::ops::{Deref, DerefMut};

/// Bytes that start at a multiple of [`AlignedBuf::ALIGN`] in memory.
#[derive(Default)]
pub struct AlignedBuf {
    backing: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// The alignment of the first byte: enough for every logical sector up to 4096 bytes.
    pub const ALIGN: usize = 4096;

    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let backing = vec![0; len.saturating_add(Self::ALIGN)];
        let start = backing.as_ptr().align_offset(Self::ALIGN);
        // `align_offset` may refuse only at compile time; a wrong start would cost the alignment, nothing else.
        Self { start: if start < Self::ALIGN { start } else { 0 }, len, backing }
    }

    /// Makes the buffer `len` bytes long, reusing its memory where that is enough. What it then holds is unspecified.
    pub fn resize(&mut self, len: usize) {
        if self.start.saturating_add(len) <= self.backing.len() {
            self.len = len;
        } else {
            *self = Self::zeroed(len);
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.backing[self.start..][..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.backing[self.start..][..self.len]
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::AlignedBuf;

    #[test]
    fn stays_aligned_when_moved_shrunk_and_grown() {
        let mut buffers: Vec<_> = [0, 1, 511, 4096, 70_000].map(AlignedBuf::zeroed).into();
        buffers.reverse();
        for buffer in &mut buffers {
            for len in [buffer.len(), 3, 100_000, 5] {
                buffer.resize(len);
                assert_eq!(buffer.len(), len);
                assert_eq!(buffer.as_ptr().align_offset(AlignedBuf::ALIGN), 0);
                buffer.fill(7);
                assert!(buffer.iter().all(|&byte| byte == 7));
            }
        }
        assert!(AlignedBuf::default().is_empty());
    }
}
