//! Junk: bytes that a restore must not leave where it puts something, and must leave everywhere else.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Numbers that look random (xorshift64*), the same for the same seed.
pub struct Junk(u64);

impl Junk {
    /// Junk of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Fills a buffer.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Writes junk over a part of a file or device; on a device it is there afterwards whichever node is asked.
pub fn over(path: &Path, start: u64, len: u64) {
    let mut file = File::options().write(true).open(path).expect("it opens for writing");
    file.seek(SeekFrom::Start(start)).expect("it seeks");
    let mut junk = Junk::new(start ^ len);
    let mut buffer = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        junk.fill(&mut buffer[..part]);
        file.write_all(&buffer[..part]).expect("it takes junk");
        left -= part as u64;
    }
    settle(&file);
}

/// A disk and its partitions have caches of their own; a file has one, and waiting for the medium would cost minutes.
fn settle(file: &File) {
    let is_file = file.metadata().expect("an open file has metadata").is_file();
    if !is_file {
        file.sync_all().expect("it is durable");
    }
}

/// Writes bytes into a file or device.
pub fn poke(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).expect("it opens for writing");
    file.seek(SeekFrom::Start(at)).expect("it seeks");
    file.write_all(bytes).expect("it takes bytes");
    settle(&file);
}
