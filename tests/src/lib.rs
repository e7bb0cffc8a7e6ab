//! What the end-to-end tests share: the program itself, run as a person runs it; disks of the kernel's and of files;
//! what is put on them; and judges that are not ours (the kernel, e2fsprogs, dosfstools, mtools, util-linux).
//!
//! Everything that a test makes is undone on drop, also when it fails. What this machine cannot do is skipped with
//! the reason printed, and fails where `CI` is set.
#![allow(
    clippy::missing_panics_doc,
    clippy::expect_used,
    reason = "a harness says what is wrong by panicking: its caller is a test"
)]

pub mod binary;
pub mod btrfs;
pub mod device;
pub mod file_server;
pub mod filesystem;
pub mod guest;
pub mod imager;
pub mod journal;
pub mod judge;
pub mod junk;
pub mod lab;
pub mod load;
pub mod lvm;
pub mod medium;
pub mod need;
pub mod package;
pub mod person;
pub mod proxy;
mod qemu;
pub mod recipe;
pub mod scratch;
pub mod share;
pub mod table;
pub mod tool;
pub mod tree;

pub use device::{LoopDisk, Undo};
pub use filesystem::{Filesystem, Writer};
pub use imager::{Imager, Ran};
pub use need::skip;
pub use person::Person;
pub use proxy::{Fault, Proxy};
pub use scratch::Scratch;
pub use share::ShareServer;
pub use tool::{tool, try_tool};

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
