//! The hybrid ISO: a disc for BIOS and UEFI that is also a disk with boot code and a GPT.

use crate::grub;
use crate::program;
use crate::system::System;
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The label, at most 32 characters of a few kinds; `imager` knows a medium by it.
const LABEL: &str = "HALFHOUR_RESCUE";
/// [`program::EPOCH_SECONDS`], as xorriso takes it.
const MODIFIED: &str = "2026010100000000";

/// Makes an ISO of the kernel and its archives, which lie in `boot/` of a folder of their own.
///
/// # Errors
/// When a tool fails.
pub fn make(system: &System, files: &[PathBuf], arguments: &str, work: &Path, to: &Path) -> Result<()> {
    let Some(folder) = files.first().and_then(|file| file.ancestors().nth(2)) else {
        return Err(Error::new(ErrorKind::Invalid, "no kernel"));
    };
    let toolbox = system.toolbox();
    let id = format!("boot/halfhour-{}", digest(files)?);
    let names = files.iter().filter_map(|file| file.file_name()?.to_str());
    let initrds: Vec<_> = names.filter(|name| *name != "vmlinuz").collect();
    put(&folder.join(&id), "")?;
    put(&folder.join("packages"), system.versions())?;
    put(&folder.join("boot/grub/grub.cfg"), &grub::menu(&initrds, arguments))?;
    grub::make_disc_image(toolbox, &folder.join("boot/grub/eltorito.img"))?;
    let partition = work.join("efi.img");
    grub::make_system_partition(toolbox, &id, work, &partition)?;
    let mut xorriso = toolbox.command("xorriso")?;
    // -no_rc: no start-up files of whoever runs this.
    xorriso.args(["-no_rc", "-as", "mkisofs", "-quiet", "-r", "-J", "-joliet-long", "-V", LABEL]);
    xorriso.arg(format!("--modification-date={MODIFIED}")).args(["--set_all_file_dates", MODIFIED]);
    xorriso.args([
        "-b",
        "boot/grub/eltorito.img",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
    ]);
    xorriso.arg("--grub2-boot-info").arg("--grub2-mbr").arg(grub::hybrid_boot_code(toolbox));
    xorriso
        .args(["--mbr-force-bootable", "-partition_offset", "16", "-append_partition", "2", "0xef"])
        .arg(&partition);
    xorriso.args([
        "-appended_part_as_gpt",
        "-eltorito-alt-boot",
        "-e",
        "--interval:appended_partition_2:all::",
    ]);
    xorriso.args(["-no-emul-boot", "-o"]).arg(to).arg(folder);
    program::run("xorriso", &mut xorriso).map(drop)
}

/// What tells this medium from another one in the same machine.
fn digest(files: &[PathBuf]) -> Result<String> {
    let mut digest = blake3::Hasher::new();
    for path in files {
        let file = File::open(path).context(|| format!("opening {}", path.display()))?;
        digest.update_reader(file).context(|| format!("reading {}", path.display()))?;
    }
    Ok(digest.finalize().to_hex().chars().take(16).collect())
}

fn put(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder.and_then(|()| fs::write(path, text)).context(|| format!("writing {}", path.display()))
}
