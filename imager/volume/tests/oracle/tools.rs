//! Runs the tools that judge.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The first of `tools` that is not installed.
pub(crate) fn missing<'a>(tools: &[&'a str]) -> Option<&'a str> {
    let path = search_path();
    let found = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    tools.iter().copied().find(|tool| !found(tool))
}

fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

pub(crate) fn output(tool: &str, args: &[&str]) -> Output {
    let mut command = Command::new(tool);
    command
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("MTOOLSRC", "/dev/null");
    command.args(args).output().unwrap_or_else(|error| panic!("{tool}: {error}"))
}

/// Runs a tool that must succeed; returns what it says.
pub(crate) fn run(tool: &str, args: &[&str]) -> String {
    let output = output(tool, args);
    let say = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{tool} {args:?}: {}{}", say(&output.stdout), say(&output.stderr));
    print!("{}", if tool.ends_with("make") { say(&output.stderr) } else { String::new() });
    say(&output.stdout)
}

/// An image mounted read-only without looking at its journal; unmounted when dropped.
pub(crate) struct Mount {
    dir: PathBuf,
}

impl Mount {
    /// `None` where this kernel or user cannot mount it.
    pub(crate) fn new(image: &Path, dir: PathBuf) -> Option<Self> {
        std::fs::create_dir(&dir).unwrap();
        let kind = run("blkid", &["-p", "-o", "value", "-s", "TYPE", text(image)]);
        let (kind, options) = match kind.trim() {
            "ext2" => ("ext2", "loop,ro"),
            "exfat" => ("exfat-fuse", "loop,ro"),
            "xfs" => ("xfs", "loop,ro,norecovery,nouuid"),
            kind => (kind, "loop,ro,noload"),
        };
        let args = ["-t", kind, "-o", options, text(image), text(&dir)];
        output("mount", &args).status.success().then_some(Self { dir })
    }

    /// By a program in user space, which must be able to.
    pub(crate) fn by_fuse(program: &str, image: &Path, options: &str, dir: PathBuf) -> Self {
        std::fs::create_dir(&dir).unwrap();
        run(program, &["-o", options, text(image), text(&dir)]);
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        output("umount", &[text(&self.dir)]);
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A digest of a tree: names, contents, owners, modes, times, links, extended attributes.
pub(crate) fn digest(dir: &Path) -> String {
    const TAR: &str = "tar --create --sort=name --numeric-owner --format=posix --xattrs --xattrs-include='*' \
        --pax-option=exthdr.name=%d/pax/%f,delete=atime,delete=ctime --directory \"$0\" . | sha256sum; \
        find \"$0\" | wc -l";
    let digest = run("bash", &["-c", &format!("set -eo pipefail; {TAR}"), text(dir)]);
    let entries: usize = digest.lines().last().unwrap().trim().parse().unwrap();
    assert!(entries >= 1, "{}: nothing to compare", dir.display());
    digest
}

/// A digest of a tree that a tool wrote just now: directories and links have the time of the copy, which does not count.
pub(crate) fn digest_of_copy(dir: &Path) -> String {
    run("find", &[text(dir), "!", "-type", "f", "-exec", "touch", "-h", "-d", "@0", "{}", "+"]);
    digest(dir)
}
