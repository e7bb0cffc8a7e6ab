//! The flags of `imager journal`.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Journal {
    #[command(subcommand)]
    pub(crate) command: JournalCommand,
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Begin to record which blocks change; goes on until the machine stops, whatever ends
    #[command(after_help = START_HELP)]
    Start {
        /// Disks: a path, serial:X or wwn:X (default: all that have a filesystem mounted for writing)
        #[arg(value_name = "DISK")]
        disks: Vec<String>,
    },
    /// Show what is recorded, since when, for which captures, and whether all was seen
    Status,
    /// Cease to record; the next captures compare
    Stop {
        /// Disks, or the kernel's names of disks that are gone (default: all)
        #[arg(value_name = "DISK")]
        disks: Vec<String>,
    },
}

const START_HELP: &str = "\
The record lives in the kernel's memory and below /run. After a restart of the machine nothing is known of what was \
written before, and the first capture compares; so it does where the journal cannot be sure that it saw every write. \
Whole disks are recorded, below LVM, device mapper and RAID. Disks behind loop devices are recorded only when named.";
