//! The files for booting over a network, by TFTP or HTTP: iPXE for a BIOS, the signed shim and GRUB for UEFI.

use crate::advice::Advice;
use crate::grub::{self, Efi};
use crate::toolbox::Toolbox;
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a BIOS that cannot do more loads first.
const IPXE: &str = "usr/lib/ipxe/undionly.kpxe";

/// Writes the files into a new or empty folder; `boot` has what the menu names.
///
/// # Errors
/// When the folder has something in it already, or cannot be written.
pub fn write(toolbox: &Toolbox, boot: &[PathBuf], arguments: &str, to: &Path) -> Result<()> {
    let making = || format!("making {}", to.display());
    fs::create_dir_all(to.join("boot")).context(making)?;
    fs::create_dir_all(to.join("grub")).context(making)?;
    let mut names = Vec::new();
    for file in boot {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        copy(file, &to.join("boot").join(&name))?;
        names.push(name);
    }
    let initrds: Vec<_> = names.iter().map(String::as_str).filter(|name| *name != "vmlinuz").collect();
    put(&to.join("boot.ipxe"), &script(&initrds, arguments))?;
    put(&to.join("grub/grub.cfg"), &grub::menu(&initrds, arguments))?;
    copy(&Efi::Shim.file(toolbox)?, &to.join("bootx64.efi"))?;
    copy(&Efi::Net.file(toolbox)?, &to.join("grubx64.efi"))?;
    copy(&Efi::MokManager.file(toolbox)?, &to.join("mmx64.efi"))?;
    let missing = || Error::new(ErrorKind::NotFound, "the packages have no iPXE");
    copy(&toolbox.root().resolve(IPXE)?.ok_or_else(missing)?, &to.join("undionly.kpxe"))
}

/// Refuses a folder that has something in it.
///
/// # Errors
/// When it has.
pub fn check_empty(folder: &Path) -> Result<()> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(Advice::error(
            ErrorKind::Exists,
            format!("{} is not empty", folder.display()),
            "name another folder, or say --overwrite to have its files replaced",
        )),
        _ => Ok(()),
    }
}

/// iPXE's script; the names are found where the script was found.
fn script(initrds: &[&str], arguments: &str) -> String {
    let named: String = initrds.iter().map(|name| format!("initrd={name} ")).collect();
    let fetched: String = initrds.iter().map(|name| format!("initrd boot/{name}\n")).collect();
    let command = format!("{named}console=tty0 console=ttyS0,115200 quiet {arguments}");
    format!("#!ipxe\nkernel boot/vmlinuz {}\n{fetched}boot\n", command.trim_end())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).context(|| format!("copying {} to {}", from.display(), to.display()))
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn the_script_names_each_archive_twice() {
        let script = script(&["initrd.img", "config.img"], "halfhour.after=reboot");
        assert_eq!(
            script,
            "#!ipxe\nkernel boot/vmlinuz initrd=initrd.img initrd=config.img console=tty0 console=ttyS0,115200 quiet \
             halfhour.after=reboot\ninitrd boot/initrd.img\ninitrd boot/config.img\nboot\n"
        );
    }
}
