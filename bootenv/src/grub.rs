//! GRUB: its menu, and the images that the firmware starts.

use crate::toolbox::Toolbox;
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs;
use std::path::{Path, PathBuf};

const MENU: &str = include_str!("../files/grub.cfg");
/// Where Debian's GRUB for BIOS lies among the packages.
const BIOS: &str = "usr/lib/grub/i386-pc";
/// What GRUB for BIOS is made of; nothing is loaded later.
const BIOS_MODULES: [&str; 19] = [
    "biosdisk",
    "boot",
    "cat",
    "configfile",
    "echo",
    "fat",
    "iso9660",
    "linux",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
    "test",
];
/// What the firmware of a PC with UEFI starts, and what those start in turn; all signed.
const SIGNED: [(Efi, &str); 4] = [
    (Efi::Shim, "usr/lib/shim/shimx64.efi.signed"),
    (Efi::MokManager, "usr/lib/shim/mmx64.efi.signed"),
    (Efi::Disc, "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    (Efi::Net, "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
];

/// Packages of what boots.
pub const PACKAGES: [&str; 4] = ["grub-efi-amd64-signed", "grub-pc-bin", "ipxe", "shim-signed"];

/// A program of the firmware's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Efi {
    /// What Microsoft signed: starts what Debian signed.
    Shim,
    /// Enrols keys of the machine's owner.
    MokManager,
    /// GRUB as it is on discs: looks for its menu where it was started from.
    Disc,
    /// GRUB as it comes over the network.
    Net,
}

impl Efi {
    /// The file among the packages.
    ///
    /// # Errors
    /// When it is not there.
    pub fn file(self, toolbox: &Toolbox) -> Result<PathBuf> {
        let inside = SIGNED.iter().find(|(efi, _)| *efi == self).map(|(_, path)| *path).unwrap_or_default();
        let missing = || Error::new(ErrorKind::NotFound, format!("the packages have no {inside}"));
        toolbox.root().resolve(inside)?.ok_or_else(missing)
    }
}

/// The menu, for these archives, and these settings besides.
#[must_use]
pub fn menu(initrds: &[&str], arguments: &str) -> String {
    let initrds = initrds.iter().map(|name| format!("/boot/{name}")).collect::<Vec<_>>().join(" ");
    MENU.replace("@INITRDS@", &initrds).replace("@ARGUMENTS@", arguments)
}

/// Makes GRUB as a BIOS starts it from a disc.
///
/// # Errors
/// When grub-mkimage fails.
pub fn make_disc_image(toolbox: &Toolbox, to: &Path) -> Result<()> {
    let mut make = toolbox.command("grub-mkimage")?;
    make.args(["-O", "i386-pc-eltorito", "-p", "/boot/grub", "-d"]).arg(toolbox.root().path(BIOS));
    make.arg("-o").arg(to).args(BIOS_MODULES);
    crate::program::run("grub-mkimage", &mut make).map(drop)
}

/// What begins a disc that is started as a disk.
#[must_use]
pub fn hybrid_boot_code(toolbox: &Toolbox) -> PathBuf {
    toolbox.root().path(BIOS).join("boot_hybrid.img")
}

/// Makes the EFI system partition of the medium, whose GRUB looks for the disc that has the file `id`.
///
/// # Errors
/// When a tool fails.
pub fn make_system_partition(toolbox: &Toolbox, id: &str, work: &Path, to: &Path) -> Result<()> {
    let find = work.join("find.cfg");
    let text = format!(
        "search --no-floppy --file --set=root /{id}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    );
    fs::write(&find, text).context(|| format!("writing {}", find.display()))?;
    let files = [
        (Efi::Shim.file(toolbox)?, "EFI/BOOT/BOOTX64.EFI"),
        (Efi::Disc.file(toolbox)?, "EFI/BOOT/grubx64.efi"),
        (Efi::MokManager.file(toolbox)?, "EFI/BOOT/mmx64.efi"),
        (find, "boot/grub/grub.cfg"),
    ];
    format_fat(toolbox, &files, to)?;
    let mut folders = toolbox.command("mmd")?;
    folders.arg("-i").arg(to).args(["::EFI", "::EFI/BOOT", "::boot", "::boot/grub"]);
    crate::program::run("mmd", &mut folders)?;
    for (from, name) in files {
        let mut copy = toolbox.command("mcopy")?;
        copy.arg("-i").arg(to).arg(from).arg(format!("::{name}"));
        crate::program::run("mcopy", &mut copy)?;
    }
    Ok(())
}

/// An empty FAT with room for these files and a mebibyte more.
fn format_fat(toolbox: &Toolbox, files: &[(PathBuf, &str)], to: &Path) -> Result<()> {
    const MIB: u64 = 1 << 20;
    let mut bytes = 2 * MIB;
    for (path, _) in files {
        bytes += fs::metadata(path).context(|| format!("looking at {}", path.display()))?.len();
    }
    let image = fs::File::create(to).and_then(|file| file.set_len(bytes.next_multiple_of(MIB)));
    image.context(|| format!("making {}", to.display()))?;
    let mut format = toolbox.command("mkfs.fat")?;
    // The identifier after --invariant, which sets one of its own.
    format.args(["--invariant", "-F", "12", "-n", "HALFHOUR", "-i", "48414c46"]).arg(to);
    crate::program::run("mkfs.fat", &mut format).map(drop)
}

#[cfg(test)]
mod tests {
    use super::menu;

    #[test]
    fn every_entry_has_the_arguments_and_all_archives() {
        let menu = menu(&["initrd.img", "config.img"], "halfhour.after=reboot");
        let starts = menu.lines().filter(|line| line.trim().starts_with("linux ")).count();
        let archives =
            menu.lines().filter(|line| line.trim() == "initrd /boot/initrd.img /boot/config.img").count();
        assert!(starts == 4 && archives == 4 && !menu.contains('@'));
        assert!(menu.contains("set arguments=\"halfhour.after=reboot\""));
    }
}
