//! Volumes: which filesystem is on one, and which of its bytes count.
//!
//! One module a filesystem behind the [`UsedBlocks`] seam. Everything read is hostile: no panic, no unchecked
//! arithmetic, no allocation sized by the volume before it was checked against it.
//!
//! The one rule: a used map may be too large, never too small. What an allocator does not govern (boot blocks,
//! reserved sectors, every superblock copy, the tail behind the filesystem) is always in. Whatever is not understood
//! (an unknown incompatible feature, a dirty log, an inconsistent bitmap) makes the map the whole volume, with the
//! reason.

#![forbid(unsafe_code)]
// Tests count bytes freely; what reads a volume does not.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)
)]

mod bitmap;
pub mod btrfs;
mod bytes;
mod crc32c;
#[cfg(test)]
mod damaged;
mod detect;
pub mod exfat;
pub mod ext;
pub mod f2fs;
pub mod fat;
pub mod files;
mod gather;
pub mod lvm;
pub mod md;
pub mod ntfs;
mod other;
mod path;
mod read;
mod seam;
pub mod skeleton;
pub mod swap;
pub mod xfs;

pub use detect::{chain, member, probe, used, used_with};
pub use seam::{Certainty, Filesystem, Member, State, UsedBlocks, UsedMap};
