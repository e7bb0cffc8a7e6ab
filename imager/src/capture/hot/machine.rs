//! What a capture needs of the machine it runs on.

use crate::survey::{Assigned, Survey, Volume};
use imager_journal::{Arena, ChangeLog, Freeze};
use imager_units::{ByteLen, Error, ErrorKind, ExtentSet, Result};
use std::time::Duration;

/// How a volume is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A filesystem on it is mounted, and freezing holds it still.
    Frozen,
    /// A filesystem on it is mounted that cannot be frozen.
    Mounted,
    /// Nothing on it is mounted.
    Free,
}

/// The running machine: what is mounted on it, and how it is held still.
pub trait Running: Freeze {
    /// How a volume is in use. Asked after the first freeze, which tells what can be frozen.
    ///
    /// # Errors
    /// `Io` from the system.
    fn held(&self, volume: &Volume) -> Result<Held>;

    /// What a volume's filesystem uses at this moment, relative to the volume; `None` when that is not known for sure.
    fn used(&self, volume: &Volume) -> Option<ExtentSet>;

    /// Has applications make ready for the instant.
    ///
    /// # Errors
    /// Why one of them is not ready; all were told to go on then.
    fn prepare(&mut self) -> Result<()>;

    /// Tells them to go on, and whether there was an instant; what went wrong with that.
    fn resume(&mut self, succeeded: bool) -> Vec<String>;
}

/// How long to go on, and when to give up.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Passes end when no more than this is marked.
    pub target: ByteLen,
    /// How many passes there are at most.
    pub passes: usize,
    /// How many times the machine is frozen at most.
    pub freezes: usize,
    /// How long blocks are copied while it is; the block under way comes on top.
    pub copying: Duration,
    /// How long it is frozen at most, all times together.
    pub frozen: Duration,
    /// How long to wait when what cannot be frozen was not quiet.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            target: ByteLen::new(16 << 20),
            passes: 40,
            freezes: 12,
            copying: Duration::from_millis(80),
            frozen: Duration::from_secs(5),
            pause: Duration::from_millis(300),
        }
    }
}

/// A machine to capture while it runs.
pub struct Live<'a> {
    /// What changes on its disks.
    pub log: &'a mut dyn ChangeLog,
    /// The numbers of the log's disks, in its order.
    pub disks: Vec<u32>,
    /// The machine.
    pub machine: &'a mut dyn Running,
    /// Memory for what is copied last.
    pub arena: &'a mut Arena,
    /// When to give up.
    pub limits: Limits,
    /// Roles a person assigned.
    pub assigned: &'a Assigned,
}

impl Live<'_> {
    /// Whether the log knows each disk.
    pub(super) fn check(&self, survey: &Survey) -> Result<()> {
        match survey.disks.iter().find(|disk| !self.disks.contains(&disk.number)) {
            Some(disk) => {
                let what = format!("no journal runs for {}", disk.identity.path.display());
                Err(Error::new(ErrorKind::Denied, what))
            }
            None => Ok(()),
        }
    }
}
