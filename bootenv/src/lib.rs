//! Builds the rescue medium: one ISO for CD and USB, BIOS and UEFI, from Debian's own packages and our three programs.
//!
//! Data goes one way: [`sources`] (where the machine's apt finds Debian) → [`packages`] (unpacked in a cache, never
//! installed) → [`contents`] and [`modules`] (what of them goes on the medium) → [`tree`] → [`cpio`] → [`iso`] or
//! [`netboot`]. Debian's tools (xorriso, grub-mkimage, mtools, depmod) are taken from the same packages ([`toolbox`]), so
//! the machine needs nothing but apt, and the same packages give the same bytes on every machine.
//!
//! What the firmware verifies under Secure Boot is Debian's and signed by Debian: shim, GRUB, kernel, modules. Nothing
//! of these is changed. The archives that the kernel unpacks are ours and nobody verifies them.

#![forbid(unsafe_code)]

pub mod advice;
pub mod apt;
pub mod cache;
pub mod contents;
pub mod cpio;
pub mod elf;
pub mod grub;
pub mod initramfs;
pub mod iso;
pub mod libraries;
pub mod medium;
pub mod modules;
pub mod monitor;
pub mod netboot;
pub mod packages;
pub mod program;
pub mod root;
pub mod sources;
pub mod system;
pub mod toolbox;
pub mod tree;

pub use medium::{Options, Report, build};
pub use monitor::Monitor;
