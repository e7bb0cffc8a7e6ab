//! The flags of `imager schedule`.

use super::{DataArg, parse_role};
use clap::{Args, Subcommand, ValueEnum};
use imager::schedule::{Cadence, Clock, Every};
use imager_image::manifest::Role;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// The system that is meant lies below this folder, and does not run
    #[arg(long, global = true, default_value = "/", value_name = "DIR")]
    pub(crate) root: PathBuf,
    #[command(subcommand)]
    pub(crate) command: ScheduleCommand,
}

/// What to do with the schedule.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Check everything once, write the schedule down, and have systemd keep to it
    Set(Box<ScheduleSet>),
    /// Show the schedule, how the last run went, when the next ones are, and how old the newest capture is
    Show,
    /// Capture no more by itself; captures, passphrases and tokens stay
    Remove,
    /// Make the capture that is due, and prune; what systemd's timer calls
    Run(ScheduleRun),
}

#[derive(Debug, Args)]
#[command(after_help = SET_HELP)]
pub(crate) struct ScheduleSet {
    /// How often: minutes that divide an hour (15m), hours that divide a day (1h, 6h), 1d or 1w
    #[arg(long, value_name = "TIME")]
    pub(crate) every: Every,
    /// The local time at which days and weeks begin
    #[arg(long, default_value_t, value_name = "HH:MM")]
    pub(crate) at: Clock,
    /// How often a capture is compared with the last full one
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) differential: Option<CadenceArg>,
    /// How often a capture reads everything
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) full: Option<CadenceArg>,
    /// The disks: a path, serial:X or wwn:X (default: all fixed disks of this machine)
    #[arg(long, value_name = "DISK", num_args = 1..)]
    pub(crate) disk: Vec<String>,
    /// Whose captures they are (default: this host's name)
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// What a volume is for: boot, os, data, swap or ignore
    #[arg(long, value_parser = parse_role, value_name = "KEY=ROLE")]
    pub(crate) role: Vec<(String, Role)>,
    /// What to take of data volumes
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) data: Option<DataArg>,
    /// Keep the files of data volumes that are called so in their skeletons, as imager capture --keep does
    #[arg(long, value_name = "PATTERN")]
    pub(crate) keep: Vec<String>,
    /// Keep the newest N captures
    #[arg(long, value_name = "N", help_heading = "What stays")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one (UTC)
    #[arg(long, value_name = "N", help_heading = "What stays")]
    pub(crate) keep_hourly: Option<u32>,
    /// Keep the newest of each of the last N days that have one (UTC)
    #[arg(long, value_name = "N", help_heading = "What stays")]
    pub(crate) keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks that have one (UTC)
    #[arg(long, value_name = "N", help_heading = "What stays")]
    pub(crate) keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one (UTC)
    #[arg(long, value_name = "N", help_heading = "What stays")]
    pub(crate) keep_monthly: Option<u32>,
    /// Where the repository's passphrase is (default: IMAGER_PASSWORD_FILE)
    #[arg(long, value_name = "FILE", help_heading = "Secrets")]
    pub(crate) password_file: Option<PathBuf>,
    /// Where the share server's token is (default: IMAGER_TOKEN_FILE)
    #[arg(long, value_name = "FILE", help_heading = "Secrets")]
    pub(crate) token_file: Option<PathBuf>,
    /// Where the password of the file server's user is (default: IMAGER_SHARE_PASSWORD_FILE)
    #[arg(long, value_name = "FILE", help_heading = "Secrets")]
    pub(crate) share_password_file: Option<PathBuf>,
    /// Have the shell run this when captures fail and when they are well again, with the text on its stdin
    #[arg(long, value_name = "COMMAND", conflicts_with = "alarm_webhook", help_heading = "Alarms")]
    pub(crate) alarm_command: Option<String>,
    /// Post JSON to this URL when captures fail and when they are well again
    #[arg(long, value_name = "URL", help_heading = "Alarms")]
    pub(crate) alarm_webhook: Option<String>,
    /// Tell only after N failed runs in a row, or when there was no capture for two periods
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Alarms")]
    pub(crate) after_failures: u32,
    /// Do not open the share now
    #[arg(long)]
    pub(crate) no_check: bool,
}

const SET_HELP: &str = "\
The share is --repo, and --limit holds for the scheduled captures, too. Secrets are read from files that root alone may \
read. Variables for the captures, such as a bucket's credentials, may be put into /etc/halfhour/environment. Without a \
--keep rule no capture goes; removing takes a token that may. The last full capture, and the last differential one, stay whatever the rules say, because \
later ones are compared with them.";

#[derive(Debug, Args)]
pub(crate) struct ScheduleRun {
    /// Do nothing where the present period has its capture already
    #[arg(long)]
    pub(crate) due: bool,
}

/// How often.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CadenceArg {
    /// Once a day
    Daily,
    /// Once a week
    Weekly,
    /// Once a month
    Monthly,
}

impl From<CadenceArg> for Cadence {
    fn from(cadence: CadenceArg) -> Self {
        match cadence {
            CadenceArg::Daily => Self::Daily,
            CadenceArg::Weekly => Self::Weekly,
            CadenceArg::Monthly => Self::Monthly,
        }
    }
}
