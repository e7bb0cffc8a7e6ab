//! The flags of `imager doctor`.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub(crate) struct Doctor {
    /// A capture instead of this machine: MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: Option<String>,
    /// Disks of this machine: a path, serial:X or wwn:X (default: all that are its own)
    #[arg(long, value_name = "DISK", conflicts_with = "capture")]
    pub(crate) disk: Vec<String>,
    /// Whose captures are this machine's (default: this host's name)
    #[arg(long, value_name = "NAME", conflicts_with = "capture")]
    pub(crate) machine: Option<String>,
}

const DOCTOR_HELP: &str = "\
Nothing is changed. With --repo the captures are looked at too, and up to 128 MiB of the newest one are read to tell how \
long a recovery would take. Exit status 2 means that something found is a problem.";
