//! Whether two volumes hold the same, judged by programs that are not ours.

use crate::scratch::Scratch;
use crate::tool::{judge, tool};
use crate::tree::{Detail, Tree};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What the filesystem's own checker says: its status and words, without the names of files and programs' versions.
pub fn fsck(image: &str, kind: &str) -> (Option<i32>, String) {
    let (status, said) = match kind {
        kind if kind.starts_with("fat") => judge("fsck.fat", &["-n", "-v", image]),
        "ntfs" => judge("ntfsresize", &["--info", "--force", "--no-progress-bar", image]),
        "exfat" => judge("fsck.exfat", &["-n", image]),
        "f2fs" => judge("fsck.f2fs", &["-f", "-t", "--dry-run", image]),
        "swap" => judge("swaplabel", &[image]),
        "btrfs" => crate::btrfs::check(&[image]),
        // With one group there is no second superblock to compare the first with.
        "xfs" => judge("xfs_repair", &["-n", "-o", "force_geometry", image]),
        _ => judge("e2fsck", &["-f", "-n", image]),
    };
    // fsck.f2fs says how long it took.
    let mut said: Vec<_> = said.lines().filter(|line| !line.starts_with("Done: ")).collect();
    if kind == "xfs" {
        // Its threads take the groups in any order, and it tells where in its own memory it found a fault.
        said.iter_mut().for_each(|line| *line = line.split(" detected at 0x").next().unwrap_or(line));
        said.sort_unstable();
    }
    let said = said.join("\n");
    // A mount that ended is remembered for a moment.
    (status, said.replace(image, "IMAGE").replace("Warning!  IMAGE is mounted.\n", ""))
}

/// Copies a part of a disk into a file of its own; zeros become holes.
pub fn extract(disk: &str, start: u64, len: u64, to: &str) {
    let is_block = std::fs::metadata(disk).is_ok_and(|found| found.file_type().is_block_device());
    if is_block {
        // Whoever looked at all disks while partitions of this one were filled left its cache behind.
        tool("blockdev", &["--flushbufs", disk]);
    }
    let arguments = [
        format!("if={disk}"),
        format!("of={to}"),
        "bs=256K".to_owned(),
        format!("skip={start}"),
        format!("count={len}"),
        "iflag=skip_bytes,count_bytes,fullblock".to_owned(),
        "conv=sparse".to_owned(),
        "status=none".to_owned(),
    ];
    tool("dd", &arguments);
    File::options().write(true).open(to).and_then(|file| file.set_len(len)).expect("its length");
}

/// The digest of a part of a disk.
pub fn digest(disk: &str, start: u64, len: u64) -> String {
    let file = File::open(disk).expect("a disk");
    let mut hasher = blake3::Hasher::new();
    each_piece(start, len, |at, buffer| {
        file.read_exact_at(buffer, at).expect("it reads");
        hasher.update(buffer);
    });
    hasher.finalize().to_hex().to_string()
}

/// The digest of a whole file or device, and its length.
pub fn whole(disk: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(disk).unwrap_or_else(|error| panic!("{disk}: {error}"));
    hasher.update_reader(file).expect("it reads");
    format!("{} {}", hasher.finalize().to_hex(), hasher.count())
}

/// Fails at the first byte of `extents` (start, length; relative to each start) that differs.
pub fn assert_same_bytes(source: (&str, u64), target: (&str, u64), extents: &[(u64, u64)], what: &str) {
    let (a, b) = (File::open(source.0).expect("a source"), File::open(target.0).expect("a target"));
    let mut other = vec![0; 1 << 20];
    for (start, len) in extents {
        each_piece(*start, *len, |at, buffer| {
            let other = &mut other[..buffer.len()];
            a.read_exact_at(buffer, source.1 + at).expect("the source reads");
            b.read_exact_at(other, target.1 + at).expect("the target reads");
            let differs = buffer.iter().zip(&*other).position(|(a, b)| a != b);
            assert!(differs.is_none(), "{what}: byte {} differs", at + differs.unwrap_or(0) as u64);
        });
    }
}

fn each_piece(start: u64, len: u64, mut each: impl FnMut(u64, &mut [u8])) {
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < start + len {
        let part = usize::try_from(start + len - at).unwrap_or(usize::MAX).min(buffer.len());
        each(at, &mut buffer[..part]);
        at += part as u64;
    }
}

/// How far two filesystems could be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Every file, as the kernel shows them.
    ByKernel,
    /// Every file, as a tool of the filesystem's reads them.
    ByTool,
    /// What its checker and its identity say.
    ByChecker,
}

/// Fails unless two images of a filesystem look the same to its checker and hold the same files.
pub fn assert_same_filesystem(
    source: &str,
    target: &str,
    kind: &str,
    scratch: &Scratch,
    what: &str,
) -> Compared {
    assert_eq!(fsck(source, kind), fsck(target, kind), "{what}: the checker's verdict");
    assert_eq!(identity(source), identity(target), "{what}: what blkid says");
    match kind {
        kind if kind.starts_with("fat") => compare_fat(source, target, scratch, what),
        "ext2" | "ext3" | "ext4" => compare_ext(source, target, scratch, what),
        "exfat" => compare_fused(source, target, "exfat-fuse", scratch, what),
        "btrfs" => compare_btrfs(&[source], &[target], scratch, what),
        "xfs" => compare_xfs(source, target, scratch, what),
        "ntfs" => compare_ntfs(source, target, scratch, what),
        _ => Compared::ByChecker,
    }
}

/// What `blkid` finds: type, UUID, label.
pub fn identity(image: &str) -> String {
    let said = judge("blkid", &["-p", "-o", "export", image]).1;
    let own = said.lines().filter(|line| !line.starts_with("PART_ENTRY_") && !line.starts_with("DEVNAME="));
    own.collect::<Vec<_>>().join("\n").replace(image, "IMAGE")
}

fn compare_ext(source: &str, target: &str, scratch: &Scratch, what: &str) -> Compared {
    match (Tree::of_ext(source, scratch), Tree::of_ext(target, scratch)) {
        (Ok(source), Ok(target)) => {
            source.assert_same(&target, what);
            println!("{what}: {} files are the same", source.len());
            Compared::ByKernel
        }
        (Err(_), Err(_)) => {
            let (from, to) = (dump(source, scratch, "from"), dump(target, scratch, "to"));
            from.assert_same(&to, what);
            if from.is_empty() { Compared::ByChecker } else { Compared::ByTool }
        }
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => panic!("{what}: only one of the two can be mounted: {why}"),
    }
}

/// A filesystem in which the checker finds fault, be it only a log to be replayed, is not looked into.
fn compare_xfs(source: &str, target: &str, scratch: &Scratch, what: &str) -> Compared {
    if fsck(source, "xfs").0 != Some(0) {
        return Compared::ByChecker;
    }
    match (Tree::of_xfs(source, scratch), Tree::of_xfs(target, scratch)) {
        (Ok(source), Ok(target)) => source.assert_same(&target, what),
        // A kernel without version 4.
        (Err(_), Err(_)) => return Compared::ByChecker,
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => panic!("{what}: only one of the two can be mounted: {why}"),
    }
    Compared::ByKernel
}

/// Fails unless the kernel finds the same files on the devices of two Btrfs.
pub fn compare_btrfs(source: &[&str], target: &[&str], scratch: &Scratch, what: &str) -> Compared {
    match (crate::btrfs::tree(source, scratch), crate::btrfs::tree(target, scratch)) {
        (Ok(source), Ok(target)) => {
            source.assert_same(&target, what);
            println!("{what}: {} files are the same", source.len());
            Compared::ByKernel
        }
        (Err(_), Err(_)) => Compared::ByChecker,
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => panic!("{what}: only one of the two can be mounted: {why}"),
    }
}

/// The files that debugfs copies out, for filesystems that this kernel does not mount.
fn dump(image: &str, scratch: &Scratch, name: &str) -> Tree {
    let to = scratch.folder(name);
    judge("debugfs", &["-R", &format!("rdump / {}", to.display()), image]);
    let tree = Tree::read(&to, Detail::Files);
    std::fs::remove_dir_all(&to).expect("a folder of ours");
    tree
}

fn compare_fat(source: &str, target: &str, scratch: &Scratch, what: &str) -> Compared {
    let copy_out = |image: &str, to: &Path| {
        let to = to.display().to_string();
        judge("mcopy", &["-s", "-p", "-m", "-n", "-Q", "-i", image, "::*", &to])
    };
    let (from, to) = (scratch.folder("from"), scratch.folder("to"));
    let verdicts = (copy_out(source, &from), copy_out(target, &to));
    let trees = (Tree::read(&from, Detail::Files), Tree::read(&to, Detail::Files));
    for folder in [from, to] {
        std::fs::remove_dir_all(folder).expect("a folder of ours");
    }
    assert_eq!(verdicts.0.0, verdicts.1.0, "{what}: {verdicts:?}");
    trees.0.assert_same(&trees.1, what);
    if trees.0.is_empty() { Compared::ByChecker } else { Compared::ByTool }
}

fn compare_ntfs(source: &str, target: &str, scratch: &Scratch, what: &str) -> Compared {
    match (Tree::of_ntfs(source, scratch), Tree::of_ntfs(target, scratch)) {
        (Ok(source), Ok(target)) => {
            source.assert_same(&target, what);
            Compared::ByTool
        }
        (Err(_), Err(_)) => Compared::ByChecker,
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => panic!("{what}: only one of the two can be mounted: {why}"),
    }
}

/// The files as a program in user space shows them, which `mount` knows under a name of its own.
fn compare_fused(source: &str, target: &str, program: &str, scratch: &Scratch, what: &str) -> Compared {
    match (Tree::of_fused(source, program, scratch), Tree::of_fused(target, program, scratch)) {
        (Ok(source), Ok(target)) => source.assert_same(&target, what),
        (Err(_), Err(_)) => return Compared::ByChecker,
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => panic!("{what}: only one of the two can be mounted: {why}"),
    }
    Compared::ByTool
}

/// What `blkid` finds in a part of a disk; empty where it finds nothing.
pub fn identity_at(disk: &str, start: u64, len: u64) -> String {
    let (offset, size) = (start.to_string(), len.to_string());
    let (status, said) = judge("blkid", &["-p", "-O", &offset, "-S", &size, "-o", "export", disk]);
    if status == Some(0) { said } else { String::new() }
}
