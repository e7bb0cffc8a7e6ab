//! What the console has done, and what it is told of it.

use crate::disk::Disk;
use crate::documents::{Ended, Progress};
use crate::order::Order;

/// Something to be done outside the console's states.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Run `imager`.
    Run(Order),
    /// Look at every disk; the repository lies in that folder.
    Disks(Option<std::path::PathBuf>),
    /// Look at the network.
    Network,
    /// Read the log.
    Log,
    /// Stop what runs.
    Stop,
    /// Say what the other console does.
    Others,
    /// Start a shell; the console comes back when it ends.
    Shell,
    /// Start the machine again.
    Reboot,
    /// Switch the machine off.
    PowerOff,
    /// End the console.
    Leave,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// How far `imager` is.
    Progress(Progress),
    /// What `imager` says beside.
    Notice(String),
    /// `imager` ended.
    Ended(Ended),
    /// How many disks of how many were looked at.
    Looked(usize, usize),
    /// The disks.
    Disks(Vec<Disk>),
    /// Lines to read.
    Text(Vec<String>),
    /// Another console is at work: what it does.
    Busy(Vec<String>),
}
