//! Whole machines: a real server's disk under real firmware (`SeaBIOS`, OVMF, OVMF that enforces Secure Boot), started from
//! its disk, a CD, a USB stick or the network, watched and driven over the serial console as a person would.
//!
//! [`Hardware`] is what stays when the power is off: disks with serial numbers, the firmware's memory, a network card.
//! [`Machine`] is the hardware with the power on. When the machine starts itself again, it is held for a moment: the
//! test looks at its disks, says what it starts from now on (as one does in a firmware's menu, for one start), and lets go.
//!
//! The small guests of [`crate::guest`] have no firmware and run one command after another; what needs no firmware is
//! tested there, for a tenth of the time.

mod desk;
mod firmware;
pub mod group;
mod hardware;
mod machine;
pub mod mirror;
mod qmp;
mod serial;
mod server;
pub mod share;

pub use desk::Desk;
pub use firmware::Firmware;
pub use hardware::{Bus, Hardware, Start};
pub use machine::{Machine, Moment};
pub use server::{Health, Server, Volume};
pub use share::Share;

/// The host, as a machine's network shows it.
pub const HOST: &str = "10.0.2.2";
