//! The sample disks and filesystems that the scripts of this folder make.

use crate::binary::repository;
use crate::need;
use crate::scratch::Scratch;
use crate::tool::{command, tool};

/// The names of all images of the corpus.
pub fn corpus_names() -> Vec<String> {
    let script = repository().join("tests/corpus/make").display().to_string();
    tool(&script, &["--list"]).lines().map(str::to_owned).collect()
}

/// Makes images of the corpus in a folder; those that could be made, with their paths.
pub fn corpus(scratch: &Scratch, names: &[&str]) -> Vec<(String, String)> {
    let tools = ["mke2fs", "mkfs.fat", "mcopy", "mkswap", "openssl", "debugfs", "setfattr"];
    if !need::programs(&tools) {
        return Vec::new();
    }
    let folder = scratch.folder("corpus").display().to_string();
    let script = repository().join("tests/corpus/make").display().to_string();
    tool(&script, &[&[folder.as_str()], names].concat());
    let made = names.iter().map(|name| ((*name).to_owned(), format!("{folder}/{name}")));
    let made: Vec<_> = made.filter(|(_, path)| std::path::Path::new(path).exists()).collect();
    println!("{} of {} images made", made.len(), names.len());
    made
}

/// Makes sample disks of partition layouts; their names and paths.
pub fn layouts(scratch: &Scratch, names: &[&str]) -> Vec<(String, String)> {
    if !need::programs(&["sfdisk", "fdisk", "sgdisk", "mkfs.fat", "mkfs.ext4"]) {
        return Vec::new();
    }
    let folder = scratch.folder("layouts").display().to_string();
    let script = repository().join("tests/layouts/make").display().to_string();
    tool(&script, &[&[folder.as_str()], names].concat());
    names.iter().map(|name| ((*name).to_owned(), format!("{folder}/{name}.img"))).collect()
}

/// The names of all layouts.
pub fn layout_names() -> Vec<String> {
    let script = repository().join("tests/layouts/make");
    let text = std::fs::read_to_string(script).expect("the recipe is there");
    let names = text.lines().filter_map(|line| line.strip_prefix("make_")?.split_once("()"));
    names.map(|(name, _)| name.replace('_', "-")).collect()
}

/// Builds the disk of a Debian server; `None`, with the reason printed, where that cannot be done.
pub fn server_disk(scratch: &Scratch, options: &[&str]) -> Option<String> {
    let disk = scratch.name("server.img");
    let script = repository().join("tests/lab/server-disk");
    let made = command("python3").arg(script).args(options).arg(&disk).output().expect("python3 runs");
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        need::skip(&format!("the server's disk cannot be built (that needs packages once): {said}"));
        return None;
    }
    Some(disk)
}
