//! What is in the rescue system: our programs, Debian's tools with their libraries, and a few files of text.

use crate::advice::Advice;
use crate::elf::Elf;
use crate::libraries::Libraries;
use crate::root::Root;
use crate::tree::{Node, Tree};
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Packages whose programs go on the medium.
pub const PACKAGES: [&str; 18] = [
    "btrfs-progs",
    "busybox-static",
    "ca-certificates",
    "cryptsetup-bin",
    "dmsetup",
    "dosfstools",
    "dropbear-bin",
    "e2fsprogs",
    "efibootmgr",
    "ethtool",
    "fdisk",
    "iproute2",
    "kmod",
    "lvm2",
    "mdadm",
    "ntfs-3g",
    "util-linux",
    "xfsprogs",
];

/// Their programs, as they are called in /usr/bin and /usr/sbin. Busybox has the rest.
const PROGRAMS: &[&str] = &[
    "blkid",
    "blockdev",
    "btrfs",
    "btrfstune",
    "busybox",
    "cryptsetup",
    "debugfs",
    "dmsetup",
    "dropbear",
    "dumpe2fs",
    "e2fsck",
    "efibootmgr",
    "ethtool",
    "fdisk",
    "findmnt",
    "fsck.fat",
    "fsck.vfat",
    "fsck.ext4",
    "ip",
    "kmod",
    "losetup",
    "lsblk",
    "lvm",
    "lvs",
    "lvchange",
    "mdadm",
    "mke2fs",
    "mkfs.btrfs",
    "mkfs.ext4",
    "mkfs.fat",
    "mkfs.xfs",
    "mkswap",
    "modprobe",
    "mount",
    "ntfs-3g",
    "ntfsfix",
    "ntfsinfo",
    "ntfsresize",
    "pvs",
    "resize2fs",
    "sfdisk",
    "tune2fs",
    "umount",
    "vgchange",
    "vgs",
    "wipefs",
    "xfs_db",
    "xfs_repair",
];

/// The files of text.
const TEXTS: [(&str, u32, &str); 5] = [
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/udhcpc/script", 0o755, include_str!("../files/udhcpc")),
];

/// Folders that stay empty until the first process fills them.
const FOLDERS: [(&str, u32); 10] = [
    ("dev", 0o755),
    ("etc/halfhour", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr/lib/modules", 0o755),
    ("var", 0o755),
];

/// Our programs, in a folder.
#[derive(Clone, Debug)]
pub struct Ours {
    /// The first process.
    pub init: PathBuf,
    /// The engine's command.
    pub imager: PathBuf,
    /// The text interface.
    pub console: PathBuf,
}

impl Ours {
    /// Looks for them.
    ///
    /// # Errors
    /// When one is missing, or the first process is not static.
    pub fn find(folder: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            path.is_file().then_some(path).ok_or_else(|| {
                let context = format!("there is no {name} in {}", folder.display());
                Advice::error(
                    ErrorKind::NotFound,
                    context,
                    "scripts/rescue builds all of them; --programs names their folder",
                )
            })
        };
        let ours =
            Self { init: find("bootenv-init")?, imager: find("imager")?, console: find("bootenv-console")? };
        let init = Elf::open(&ours.init)?;
        if init.as_ref().is_none_or(|elf| elf.interpreter.is_some() || !elf.needed.is_empty()) {
            return Err(Advice::error(
                ErrorKind::Invalid,
                format!("{} is not a static program", ours.init.display()),
                "build it by RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --package bootenv-init --target x86_64-unknown-linux-gnu (scripts/rescue does)",
            ));
        }
        Ok(ours)
    }
}

/// Puts Debian's part into a tree: programs, libraries, files of text.
///
/// # Errors
/// When something is missing among the packages.
pub fn add_debians(root: &Root, libraries: &mut Libraries<'_>, tree: &mut Tree) -> Result<()> {
    for name in ["bin", "lib", "lib64", "sbin"] {
        tree.add(&format!("usr/{name}"), Node::Folder(0o755))?;
        tree.link(name, &format!("usr/{name}"))?;
    }
    for (path, mode) in FOLDERS {
        tree.add(path, Node::Folder(mode))?;
    }
    for (path, mode, text) in TEXTS {
        tree.text(path, mode, text)?;
    }
    tree.text("etc/ssl/certs/ca-certificates.crt", 0o644, certificates(root)?)?;
    tree.link("etc/mtab", "/proc/self/mounts")?;
    for name in PROGRAMS {
        debian(root, name, libraries, tree)?;
    }
    Ok(())
}

/// Puts our part into a tree, and what it needs beyond Debian's.
///
/// # Errors
/// When something is missing among the packages.
pub fn add_ours(ours: &Ours, libraries: &mut Libraries<'_>, tree: &mut Tree) -> Result<()> {
    let release = concat!("Halfhour ", env!("CARGO_PKG_VERSION"), "\n");
    tree.text("etc/halfhour/release", 0o644, release)?;
    tree.file("init", 0o755, &ours.init)?;
    program("usr/bin/imager", &ours.imager, libraries, tree)?;
    program("usr/bin/bootenv-console", &ours.console, libraries, tree)
}

/// A program of Debian's, or its name for another one.
fn debian(root: &Root, name: &str, libraries: &mut Libraries<'_>, tree: &mut Tree) -> Result<()> {
    for folder in ["usr/sbin", "usr/bin"] {
        let inside = format!("{folder}/{name}");
        let Some(path) = root.resolve(&inside)? else { continue };
        match fs::read_link(root.path(&inside)) {
            Ok(link) => return tree.link(&inside, &link.to_string_lossy()),
            Err(_) => return program(&inside, &path, libraries, tree),
        }
    }
    Err(Error::new(ErrorKind::NotFound, format!("the packages have no {name}")))
}

fn program(inside: &str, path: &Path, libraries: &mut Libraries<'_>, tree: &mut Tree) -> Result<()> {
    if let Some(elf) = Elf::open(path)? {
        libraries.add(path, &elf, tree)?;
    }
    tree.file(inside, 0o755, path)
}

/// All of Debian's authorities in one file, as update-ca-certificates would make it.
fn certificates(root: &Root) -> Result<Vec<u8>> {
    let folder = root.path("usr/share/ca-certificates/mozilla");
    let read = || format!("reading {}", folder.display());
    let names: Result<Vec<_>> =
        fs::read_dir(&folder).context(read)?.map(|entry| Ok(entry.context(read)?.path())).collect();
    let mut names = names?;
    names.sort();
    let mut all = Vec::new();
    for name in names.iter().filter(|name| name.extension().is_some_and(|extension| extension == "crt")) {
        all.extend(fs::read(name).context(read)?);
        if all.last() != Some(&b'\n') {
            all.push(b'\n');
        }
    }
    Ok(all)
}
