//! Disks: block I/O, what a disk is, and how it is divided.
//!
//! [`ReadAt`] and [`WriteAt`] are the seam: a device, a file, memory, one that fails, or a [`Window`] of pieces of
//! others. [`table`] reads partition tables. [`System`] is what the kernel tells: [`identity`] says which disk it is,
//! [`usage`] who uses it, [`counters`] what was written to it. All `unsafe` of the crate is in `sys`.

mod aligned;
pub mod counters;
mod device;
mod faulty;
mod hardware;
pub mod identity;
pub mod inode;
mod io;
pub mod lifted;
mod loop_device;
mod memory;
pub mod subvolume;
mod sys;
mod system;
pub mod table;
pub mod usage;
mod window;

pub use aligned::AlignedBuf;
pub use device::{Access, Device, Protection};
pub use faulty::{Fault, FaultyDisk, Unflushed};
pub use io::{Geometry, ReadAt, WriteAt};
pub use loop_device::{LoopDevice, Writing};
pub use memory::MemoryDisk;
pub use system::{DeviceNumber, System};
pub use window::{Segment, Window};
