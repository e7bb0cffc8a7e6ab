//! The image format: bytes in, bytes out, no I/O.
//!
//! A repository is a set of write-once objects: packs of sealed frames ([`pack`], [`frame`]), whose frames hold
//! blocks of volumes or nodes of block maps ([`node`]); a manifest per capture ([`manifest`]); and a sparse index for
//! deduplication ([`index`]). [`keys`] holds what they are sealed with. FORMAT.md beside this crate gives every
//! structure with offsets; where the two disagree, one of them has a bug.
//!
//! Everything decoded is hostile: no panic, no unchecked arithmetic, no allocation sized by a field that was not
//! checked against the bytes at hand. `Corrupt` blames the data, `Unsupported` this version.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)
)]

mod cursor;
pub mod frame;
pub mod id;
pub mod index;
pub mod keys;
pub mod manifest;
pub mod mask;
pub mod moved;
pub mod names;
pub mod node;
pub mod pack;
pub mod repository;

pub use frame::{Codec, Compression, FrameKind};
pub use id::{BlockId, CaptureId, NodeId, PackId, RepositoryId};
pub use keys::Keys;
pub use mask::{Mask, MaskUnit};

/// The unit of identity: an aligned piece of a volume of this many bytes; the last of a volume may be shorter.
pub const BLOCK_BYTES: usize = 65_536;

/// How many blocks a leaf of a block map covers, and how many children an inner node has.
pub const NODE_FANOUT: usize = 128;

/// The format version this crate writes and the newest it reads.
pub const FORMAT_VERSION: u16 = 1;
