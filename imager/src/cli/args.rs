//! Every flag, once: help, man pages and completions come from here.

mod doctor;
mod journal;
mod schedule;

pub(crate) use doctor::Doctor;
pub(crate) use journal::{Journal, JournalCommand};
pub(crate) use schedule::{Schedule, ScheduleCommand, ScheduleSet};

use super::quantity::{parse_rate, parse_time};
use clap::{Args, Parser, Subcommand, ValueEnum};
use imager_image::manifest::{Kind, Role};
use imager_units::ByteLen;
use std::path::PathBuf;
use std::time::Duration;

/// Image the disks of a server to a repository, and put them back.
#[derive(Debug, Parser)]
#[command(name = "imager", version, max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 failed, 2 something asked for is missing from the result, 3 damage found, 4 refused for \
safety, 5 share lost or capture revoked (run again to continue), 10 no repository there, 11 no such capture, 12 wrong \
password or token, 13 repository needs a newer version, 64 usage, 130 interrupted.

A passphrase is taken from IMAGER_PASSWORD, IMAGER_PASSWORD_FILE or IMAGER_PASSWORD_COMMAND, or asked for.

A repository on a share server is https://HOST:PORT/NAME#FINGERPRINT, as netshare serve prints it; without a fingerprint \
the server's certificate must be one that this system trusts. The server's token is taken from IMAGER_TOKEN or \
IMAGER_TOKEN_FILE. A server that says nothing for 30 s is given up; IMAGER_TIMEOUT=SECONDS changes that.

A repository in a bucket is s3://BUCKET/PREFIX. Credentials, region and endpoint are taken from AWS_ACCESS_KEY_ID, \
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL, or from the profile AWS_PROFILE in ~/.aws. \
Packs go there in parts. A process that is killed leaves some behind, which nothing shows and the bucket's owner pays for: \
give the bucket a lifecycle rule that aborts incomplete multipart uploads after some days.

A repository on a file server is smb://[DOMAIN;]USER@HOST[:PORT]/SHARE/FOLDER or nfs://HOST[:PORT]/EXPORT/FOLDER (NFS version \
4). It is mounted for this process alone, which needs root. The user's password is taken from IMAGER_SHARE_PASSWORD, \
IMAGER_SHARE_PASSWORD_FILE or IMAGER_SHARE_PASSWORD_COMMAND, or asked for; never from the URL.";

/// What every command understands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The repository: a path, file://, https://, s3://, smb:// or nfs:// URL
    #[arg(short, long, global = true, env = "IMAGER_REPO", value_name = "URL")]
    pub(crate) repo: Option<String>,
    /// Print one JSON object on stdout, also on failure
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How to show progress on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: Progress,
    /// How long a share that does not answer is asked again, such as 90s, 10m or 2h; 0: not at all
    #[arg(
        long, global = true, env = "IMAGER_PATIENCE", default_value = "10m", value_parser = parse_time,
        value_name = "TIME", help_heading = "The share"
    )]
    pub(crate) patience: Duration,
    /// At most so many bytes a second to and from the share, such as 50M (MiB) or 800KB
    #[arg(long, global = true, value_parser = parse_rate, value_name = "RATE", help_heading = "The share")]
    pub(crate) limit: Option<ByteLen>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A bar on a terminal, otherwise nothing
    #[default]
    Auto,
    /// A line every few seconds
    Plain,
    /// A JSON object a line
    Json,
    /// Nothing
    None,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a repository
    Init(Init),
    /// Show the tables, volumes, roles and filesystems of disks
    Inspect(Inspect),
    /// Image disks to the repository
    Capture(Capture),
    /// List captures
    List(List),
    /// Show what a capture holds
    Show(Show),
    /// Show what changed between two captures
    Diff(Diff),
    /// Put a captured disk, or volumes of it, back
    Restore(Restore),
    /// List the reports of restores, or show one
    Reports(Reports),
    /// Find damage in the repository, and name what it affects
    Verify(Verify),
    /// Remove captures by rules, and get back the space of what nobody needs any more
    Prune(Prune),
    /// Keep a capture from being pruned
    Hold(Hold),
    /// Record which blocks of this machine's disks change, so that captures need not read the rest
    Journal(Journal),
    /// Capture regularly, and tell when that fails
    Schedule(Schedule),
    /// Look whether this machine, or a captured one, could be put back in time and onto other hardware
    Doctor(Doctor),
    /// Show a capture's disks, volumes and files in a folder, read-only
    Mount(Mount),
    /// Serve a capture as network block devices, read-only
    Nbd(Nbd),
    /// Write a captured disk or volume into a file
    Export(Export),
    /// Add, list, remove and test the keys of an encrypted repository
    Key(Key),
    /// Thaw the filesystems that a capture left frozen when it was killed
    Thaw,
    /// Watch over a freeze; captures start it
    #[command(hide = true)]
    FreezeGuard,
    /// Print a shell's completions
    Completions(Completions),
    /// Write the man pages into a folder
    Man(Man),
}

impl Arguments {
    /// Whether results are asked for as JSON.
    pub(crate) fn json(&self) -> bool {
        self.global.json
    }
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Encrypt everything with a passphrase
    #[arg(long)]
    pub(crate) encrypt: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Disks: a path, serial:X or wwn:X
    #[arg(required = true, value_name = "DISK")]
    pub(crate) disks: Vec<String>,
    /// List the used extents of each volume
    #[arg(long)]
    pub(crate) extents: bool,
    /// Logical sector size of image files, where their table does not tell
    #[arg(long, value_name = "BYTES")]
    pub(crate) sector_bytes: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Capture {
    /// Disks: a path, serial:X or wwn:X
    #[arg(required = true, value_name = "DISK")]
    pub(crate) disks: Vec<String>,
    /// Whose capture it is (default: this host's name, for an image file the file's)
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// What to compare with (default: incremental where there is something to compare with)
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) kind: Option<KindArg>,
    /// What a volume is for: boot, os, data, swap or ignore
    #[arg(long, value_parser = parse_role, value_name = "KEY=ROLE")]
    pub(crate) role: Vec<(String, Role)>,
    /// What to take of data volumes
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) data: DataArg,
    /// Keep the files of data volumes that are called so in their skeletons, up to 16 MiB: a path below the volume's
    /// root in which * stands for anything but /, and ** for anything; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) keep: Vec<String>,
    /// Fast, or smaller for slow shares
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) compression: CompressionArg,
    /// Capture although the disk is in use; the result is never @latest
    #[arg(long)]
    pub(crate) allow_inconsistent: bool,
    /// Take over the name of a machine whose hardware this one replaces
    #[arg(long)]
    pub(crate) rebind: bool,
    /// Say in the capture that it was made under the schedule of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) schedule: Option<PathBuf>,
    /// Logical sector size of image files, where their table does not tell
    #[arg(long, value_name = "BYTES")]
    pub(crate) sector_bytes: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this machine's
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The earlier one: MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) before: String,
    /// The later one
    #[arg(value_name = "CAPTURE")]
    pub(crate) after: String,
    /// List the runs of bytes of each volume
    #[arg(long)]
    pub(crate) extents: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Only this capture: MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE", conflicts_with = "all")]
    pub(crate) capture: Option<String>,
    /// Every capture (the default)
    #[arg(long)]
    pub(crate) all: bool,
    /// Read every byte, not only what says where it is
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Mark damaged packs, so that the next capture stores their blocks again
    #[arg(long)]
    pub(crate) mark: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// Where to: a path, serial:X or wwn:X; D= before it names the captured disk
    #[arg(long, required = true, value_name = "[D=]DISK", num_args = 1..)]
    pub(crate) to: Vec<String>,
    /// Only this volume (default: boot and operating system)
    #[arg(long, value_name = "KEY")]
    pub(crate) volume: Vec<String>,
    /// Put a lost partition table back, and nothing else
    #[arg(long, conflicts_with_all = ["bare_metal", "volume"])]
    pub(crate) tables: bool,
    /// Make the disk anew: table, boot code, every volume of the capture
    #[arg(long)]
    pub(crate) bare_metal: bool,
    /// Give up what is on the disk with this serial number (or path, where it has none)
    #[arg(long, value_name = "SERIAL", requires = "bare_metal")]
    pub(crate) erase: Vec<String>,
    /// Give up the filesystem in the place of this volume, of which the capture has the structure alone
    #[arg(long, value_name = "KEY")]
    pub(crate) erase_volume: Vec<String>,
    /// Show the plan and its hash, and write nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not ask; enough for image files and for disks named by serial: or wwn:
    #[arg(long)]
    pub(crate) yes: bool,
    /// Do not ask if the plan has this hash
    #[arg(long, value_name = "HASH")]
    pub(crate) confirm: Option<String>,
    /// How to prove that other volumes were left alone
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) prove: ProveArg,
    /// Believe the disk: do not read back what was written
    #[arg(long)]
    pub(crate) no_read_back: bool,
    /// Lift the kernel's write protection of what the plan writes, until the restore ends
    #[arg(long)]
    pub(crate) unprotect: bool,
    /// Put a report of this restore to the repository, however it ends
    #[arg(long)]
    pub(crate) report: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reports {
    /// Only this machine's, newest last; with a time, as the list shows it, that one in full
    #[arg(value_name = "MACHINE[@TIME]")]
    pub(crate) machine: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = PRUNE_HELP)]
pub(crate) struct Prune {
    /// Keep the newest N captures of each machine; those that a share server received within one hour count as one
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one (UTC)
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<u32>,
    /// Keep the newest of each of the last N days that have one (UTC)
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks that have one (UTC)
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one (UTC)
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<u32>,
    /// Keep this capture beside those that the rules keep; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) keep: Vec<String>,
    /// Remove captures of this machine only
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// Remove this capture whatever the rules say, also one that cannot be read; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) remove: Vec<String>,
    /// Wait no longer for this capture under way: if it still runs, it fails; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) break_lease: Vec<String>,
    /// Let more than half of a machine's captures go
    #[arg(long)]
    pub(crate) force: bool,
    /// Which times to go by where they contradict each other
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) times: Option<TimesArg>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

const PRUNE_HELP: &str = "\
Without a --keep rule no capture goes, and only the space of what nobody needs comes back. The newest good capture of \
a machine, captures that are held, and captures that cannot be read stay whatever the rules say; inconsistent ones \
count for nothing. Space comes back in two steps: what nobody needs is announced by one prune and deleted by a later \
one, when all captures that were under way at the announcement are over. Do not prune a repository that another \
program is still filling.";

/// Whose clock counts.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TimesArg {
    /// What the machines wrote
    Claimed,
    /// When the share received them
    Received,
}

#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// Let it be pruned again
    #[arg(long)]
    pub(crate) release: bool,
}

#[derive(Debug, Args)]
#[command(after_help = MOUNT_HELP)]
pub(crate) struct Mount {
    /// MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// An empty folder; made, and removed at the end, if there is none
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Let every user look, each as far as the captured owners and permission bits let him
    #[arg(long)]
    pub(crate) allow_other: bool,
}

const MOUNT_HELP: &str = "\
Each disk and volume is a file of exactly its size (disk1.raw, volume-2-LABEL.raw). An ext2, ext3, ext4 or NTFS volume is a \
folder of its files, too (volume-2-LABEL). NOTES.txt says what is not there, and how to reach the files of other volumes. \
Without --allow-other only whoever mounted it may look, and sees every file whatever its permissions. Files of NTFS \
belong to whoever mounted it; their further streams are extended attributes user.NAME.

It runs until it is interrupted (Ctrl-C, SIGTERM) or somebody unmounts DIR; both are exit status 0. What cannot be read \
fails with an input/output error, or \"operation not supported\" where Windows keeps it encrypted or packed; the reason is \
told on stderr. If the process was killed, umount DIR (or fusermount3 -u DIR) removes what is left of the mount. Who is \
not root needs fusermount3 (package fuse3).";

#[derive(Debug, Args)]
pub(crate) struct Nbd {
    /// MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// Where to listen: a port of this machine, or the path of a Unix socket
    #[arg(long, default_value = "127.0.0.1:10809", value_name = "ADDRESS")]
    pub(crate) listen: String,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// MACHINE, MACHINE@latest, MACHINE@TIME or id:HEX
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// The file to be made
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What kind of file
    #[arg(long, value_enum)]
    pub(crate) format: FormatArg,
    /// Which disk (default: the first)
    #[arg(long, value_name = "NUMBER", conflicts_with = "volume")]
    pub(crate) disk: Option<u32>,
    /// Only this volume
    #[arg(long, value_name = "KEY")]
    pub(crate) volume: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Add a passphrase, or a recovery key that is printed once
    Add {
        /// Make and print a random recovery key instead of asking for a passphrase
        #[arg(long)]
        recovery: bool,
        /// A name for it
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        /// Read the new passphrase from this file instead of asking
        #[arg(long, value_name = "FILE", conflicts_with = "recovery")]
        new_password_file: Option<PathBuf>,
    },
    /// List the keys
    List,
    /// Remove a key, by whoever holds another one
    Remove {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Try whether a passphrase or recovery key opens the repository
    Test,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The folder
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// Kinds of captures.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KindArg {
    /// Read everything, compare with nothing
    Full,
    /// Compare with the last capture
    Incremental,
    /// Compare with the last full capture
    Differential,
    /// Compare with the last capture, outside the schedule
    Copy,
}

/// What to take of data volumes.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum DataArg {
    /// The filesystem and its folders, without what is in files
    #[default]
    Skeleton,
    /// What they use
    Used,
    /// Nothing
    None,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatArg {
    /// The bytes as they are, sparse
    Raw,
    /// QEMU's format
    Qcow2,
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum CompressionArg {
    /// The disk decides the speed
    #[default]
    Fast,
    /// Smaller, for slow shares
    Small,
}

/// How to prove that a volume was left alone.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ProveArg {
    /// Write counters, heads and samples
    #[default]
    Samples,
    /// Every byte
    Full,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Full => Self::Full,
            KindArg::Incremental => Self::Incremental,
            KindArg::Differential => Self::Differential,
            KindArg::Copy => Self::Copy,
        }
    }
}

fn parse_role(text: &str) -> Result<(String, Role), String> {
    let (key, role) = text.rsplit_once('=').ok_or("expected KEY=ROLE, such as 4=data")?;
    let role = match role {
        "boot" => Role::Boot,
        "os" => Role::Os,
        "data" => Role::Data,
        "swap" => Role::Swap,
        "ignore" => Role::Ignore,
        _ => return Err(format!("{role:?} is none of boot, os, data, swap, ignore")),
    };
    Ok((key.to_owned(), role))
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_sound() {
        Arguments::command().debug_assert();
    }
}
