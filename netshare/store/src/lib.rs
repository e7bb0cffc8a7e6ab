//! The share, reduced to what every share can do: put a new object, get it (or a range), list, delete.
//!
//! Objects are write-once. No rename, lock or clock of the share is relied on for correctness; an object that `put`
//! reported is durable, and one that was cut off is either invisible or does not verify. Names are [`ObjectName`]s of
//! a small grammar that is safe on every share (SMB included), so nothing read from a share can lead outside it.

#![forbid(unsafe_code)]

mod dir;
mod faulty;
pub mod http;
mod memory;
mod name;
mod recording;
mod rt;
mod store;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use dir::DirStore;
pub use faulty::{FaultyStore, StoreFault};
pub use memory::MemoryStore;
pub use name::ObjectName;
pub use recording::{Call, RecordingStore, Verb};
pub use store::{Entry, Put, Store};
