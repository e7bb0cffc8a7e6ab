//! What can be said on the command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const MEDIUM: &str = "\
The ISO is a CD and a USB stick, for BIOS and UEFI. On a stick it is written as a whole, over everything that \
is there:
  lsblk -o NAME,SIZE,MODEL,SERIAL    shows which disk is the stick
  cp rescue.iso /dev/sdX && sync     as root, to the disk and not to a partition of it

With --boot-files the same starts over a network: serve the folder by TFTP or HTTP (netshare serve --boot), and \
let DHCP name as boot file
  bootx64.efi      to UEFI, with or without Secure Boot
  undionly.kpxe    to a BIOS
  boot.ipxe        to iPXE: in the card, in the hypervisor, or asking again after undionly.kpxe

Secure Boot verifies Debian's shim, GRUB, kernel and modules, which are there as Debian signed them. It verifies \
neither the archive that holds the programs nor the settings: who can write to the medium can change those.

Packages come from this machine's own Debian mirror, by apt, and are unpacked in the cache: nothing is installed, \
root is not needed. The same packages, programs and settings give the same bytes.

Exit status: 0 built, 1 failed, 64 not understood.";

/// Builds the rescue medium.
#[derive(Debug, Parser)]
#[command(name = "bootenv", version, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the rescue medium from Debian's packages
    Build(Build),
}

#[derive(Debug, Args)]
#[command(after_help = MEDIUM)]
pub(crate) struct Build {
    /// Write the ISO there
    #[arg(short, long, value_name = "FILE", required_unless_present = "boot_files")]
    pub(crate) output: Option<PathBuf>,
    /// Write the files for booting over a network into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) boot_files: Option<PathBuf>,
    /// Replace what is there already
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Settings of the rescue environment, such as the repository, or all that a restore without a person needs
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Add firmware that is not free, which some network cards and storage controllers need
    #[arg(long)]
    pub(crate) firmware: bool,
    /// Add this to the kernel's command line (may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub(crate) kernel_option: Vec<String>,
    /// Where imager, bootenv-console and bootenv-init (a static one) are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
    /// Where unpacked packages are kept, about 700 MB [default: halfhour in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Fetch the newest packages, even if there are some in the cache
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Print what was built as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold() {
        Arguments::command().debug_assert();
    }
}
