//! What a guest's archive holds: our first process, modules, programs with their libraries.

use super::cpio::Archive;
use super::{Kernel, modules};
use crate::binary::{self, repository};
use crate::need;
use crate::tool::{PATH, judge, tool};
use std::io;
use std::path::{Path, PathBuf};

/// Where `tests/guest/fetch` puts the programs of guests, and Debian's own kernel for this machine.
pub(super) fn folder() -> PathBuf {
    repository().join("target/guest")
}

/// Where a kernel and its modules lie.
pub(super) fn kernel(kernel: Kernel) -> PathBuf {
    match kernel {
        Kernel::Own => folder(),
        Kernel::Of(suite) => repository().join("target/guest-kernels").join(suite),
    }
}

/// The package that a kernel came in.
pub(super) fn release(kernel: Kernel) -> io::Result<String> {
    std::fs::read_to_string(self::kernel(kernel).join("release")).map(|name| name.trim().to_owned())
}

/// Whether the kernel is there; says so when not.
pub fn is_available() -> bool {
    let is_there = folder().join("recipe").exists();
    if !is_there {
        need::skip("no kernel for guests: scripts/setup fetches one");
    }
    is_there
}

/// Writes the archive.
pub(super) fn write(
    to: &Path,
    kernel: Kernel,
    wanted: &[String],
    programs: &[PathBuf],
    files: &[(PathBuf, String)],
) -> io::Result<()> {
    let image = release(kernel)?;
    let release = image.trim_start_matches("linux-image-").trim_end_matches("-unsigned");
    let mut archive = Archive::create(to)?;
    for name in ["proc", "sys", "dev", "tmp", "run", "mnt", "root"] {
        archive.folder(name)?;
    }
    program(&mut archive, &binary::built("halfhour-guest"), "init")?;
    archive.file(&folder().join("root/bin/busybox"), "bin/busybox")?;
    // Where the kernel looks when it needs a module.
    archive.link("/bin/busybox", "sbin/modprobe")?;
    let wanted = modules::add(&mut archive, &self::kernel(kernel).join("modules"), release, wanted)?;
    archive.bytes((wanted.join("\n") + "\n").as_bytes(), "etc/modules")?;
    archive.bytes(b"hosts: files\npasswd: files\n", "etc/nsswitch.conf")?;
    archive.bytes(b"127.0.0.1 localhost\n10.0.2.2 fileserver\n", "etc/hosts")?;
    archive.bytes(b"root:x:0:0:root:/root:/bin/sh\n", "etc/passwd")?;
    archive.bytes(b"root:x:0:\n", "etc/group")?;
    archive.bytes(b"guest\n", "etc/hostname")?;
    archive.link("/proc/self/mounts", "etc/mtab")?;
    for path in programs {
        let path = find(path);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a program's name");
        program(&mut archive, &path, &format!("usr/bin/{name}"))?;
    }
    for (from, name) in files {
        archive.file(from, name)?;
    }
    archive.finish()
}

/// A program by its path, or by its name among those for guests and those of this machine.
fn find(path: &Path) -> PathBuf {
    let roots = [folder().join("root/sbin"), folder().join("root/bin")];
    let all = roots.into_iter().chain(PATH.split(':').map(PathBuf::from));
    let mut found = all.map(|folder| folder.join(path)).filter(|path| path.is_file());
    found.next().unwrap_or_else(|| panic!("{} is not there for a guest", path.display()))
}

/// Brings a program without its debug information, and the libraries that the loader would take here.
fn program(archive: &mut Archive, path: &Path, name: &str) -> io::Result<()> {
    let stripped = tempfile::NamedTempFile::new()?;
    let (from, to) = (path.display().to_string(), stripped.path().display().to_string());
    tool("strip", &["-o", &to, &from]);
    archive.file(stripped.path(), name)?;
    // Libraries that were fetched for guests come before those of this machine.
    let fetched = folder().join("root");
    let folders =
        ["lib", "usr/lib"].map(|lib| fetched.join(lib).join("x86_64-linux-gnu").display().to_string());
    let (_, said) = judge("env", &[&format!("LD_LIBRARY_PATH={}", folders.join(":")), "ldd", &from]);
    for word in said.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')) {
        let name = Path::new(word).strip_prefix(&fetched).unwrap_or(Path::new(word.trim_start_matches('/')));
        archive.file(Path::new(word), &name.display().to_string())?;
    }
    let missing: Vec<_> = said.lines().filter(|line| line.contains("not found")).collect();
    assert!(missing.is_empty(), "{from} needs in a guest: {missing:?}");
    Ok(())
}
