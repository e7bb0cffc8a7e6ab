//! Units: what a number means, said by its type.
//!
//! A disk is addressed in bytes ([`ByteOffset`], [`ByteLen`]) or in logical sectors ([`Lba`], [`SectorSize`]); an
//! [`Lba`] becomes a [`ByteOffset`] only through a [`SectorSize`], so a 4096-byte-sector disk cannot be read with
//! 512-byte arithmetic. [`Extent`] is half-open. [`ExtentSet`] is the one representation of "these bytes".
//! [`Error`] is the one error shape of the workspace; it lives here so that it is written once.
//!
//! No I/O, no dependencies, no panics: arithmetic that could leave 64 bits is checked and says so.

#![forbid(unsafe_code)]

mod bytes;
mod error;
mod extent;
mod extent_set;
mod sector;

pub use bytes::{ByteLen, ByteOffset};
pub use error::{Context, Error, ErrorKind, Result};
pub use extent::Extent;
pub use extent_set::{ExtentSet, Extents};
pub use sector::{Lba, SectorSize};
