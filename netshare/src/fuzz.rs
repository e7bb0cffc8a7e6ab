//! What the fuzz targets reach of a request's way: its target, and the look at what it brings.

use crate::document;
use crate::target::Target;
use imager_units::Result;
use netshare_store::ObjectName;

/// How much of a document is seen.
pub const SEEN_BYTES: usize = document::SEEN_BYTES;

/// The repository, the name in it and the methods of a path.
///
/// # Errors
/// `Invalid` when the path is none of the protocol's.
pub fn target(path: &str) -> Result<(Option<String>, String, &'static str)> {
    let target = Target::parse(path)?;
    Ok((target.repository().map(str::to_owned), target.name().to_owned(), target.methods()))
}

/// Whether the token of `machine` may put an object of `len` bytes that begins with `head` at `name`.
///
/// # Errors
/// Why not.
pub fn check(machine: &str, name: &ObjectName, head: &[u8], len: u64) -> Result<(), &'static str> {
    document::check(machine, name, head, len)
}

/// Whether a machine may put bytes of this digest under a name.
///
/// # Errors
/// Why not.
pub fn check_name(name: &ObjectName, digest: blake3::Hash) -> Result<(), &'static str> {
    document::check_name(name, digest)
}
