//! The share, reduced to what every share can do: put a new object, get it (or a range), list, delete.
//!
//! Objects are write-once. No rename, lock or clock of the share is relied on for correctness; an object that `put`
//! reported is durable, and one that was cut off is either invisible or does not verify. Names are [`ObjectName`]s of
//! a small grammar that is safe on every share (SMB included), so nothing read from a share can lead outside it.

#![forbid(unsafe_code)]

mod clock;
mod dir;
mod faulty;
pub mod http;
mod memory;
pub mod mounted;
mod name;
mod recording;
pub mod retry;
mod rt;
pub mod s3;
mod store;
mod throttle;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use clock::{Clock, SystemClock, TestClock};
pub use dir::{DirStore, Upload, sweep_unfinished};
pub use faulty::{FaultyStore, StoreFault};
pub use memory::MemoryStore;
pub use name::ObjectName;
pub use recording::{Call, RecordingStore, Verb};
pub use retry::{Nobody, Retry, Watch};
pub use store::{Entry, Put, Store};
pub use throttle::Throttle;
