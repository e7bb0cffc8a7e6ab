//! Every file of a mounted filesystem, and everything a restore must bring back of it: content, kind, mode, owner,
//! times, hard links, devices, inode numbers, holes, extended attributes.

use crate::device::mount;
use crate::tool::judge;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is at each path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<PathBuf, String>,
    attributes: String,
}

/// How much of a file is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All of it: a copy of blocks keeps inode numbers and change times too.
    Blocks,
    /// The same but for inode numbers, which a mounted capture has of its own.
    Mounted,
    /// What a tool that copies files out can keep: names, content, size and modification time.
    Files,
}

impl Tree {
    /// Reads what is below `root`.
    pub fn read(root: &Path, detail: Detail) -> Self {
        let mut tree = Self::default();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder);
            let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            for entry in entries.map(|entry| entry.expect("an entry of a folder")) {
                let path = entry.path();
                let metadata = path.symlink_metadata().expect("a file's metadata");
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                let relative = path.strip_prefix(root).expect("below the root").to_owned();
                tree.files.insert(relative, describe(&path, &metadata, detail));
            }
        }
        if detail != Detail::Files {
            tree.attributes = attributes(root);
        }
        tree
    }

    /// Mounts an image read-only, without replaying its log, and reads it; `Err` says why the kernel does not mount it.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn of_ext(image: &str, scratch: &crate::Scratch) -> Result<Self, String> {
        // ext2 knows no log, nor that option.
        Self::of_image(image, &["ro,noload,noatime,loop", "ro,noatime,loop"], scratch)
    }

    /// As [`Tree::of_ext`], of XFS.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn of_xfs(image: &str, scratch: &crate::Scratch) -> Result<Self, String> {
        Self::of_image(image, &["ro,norecovery,nouuid,noatime,loop"], scratch)
    }

    fn of_image(image: &str, ways: &[&str], scratch: &crate::Scratch) -> Result<Self, String> {
        let at = scratch.folder("mounted");
        let point = at.display().to_string();
        let mut why = String::new();
        for options in ways {
            let (status, said) = judge("mount", &["-o", options, image, &point]);
            if status == Some(0) {
                let _unmount = UnmountOnly(point);
                return Ok(Self::read(&at, Detail::Blocks));
            }
            why = said;
        }
        Err(why)
    }

    /// Of an NTFS image, by ntfs-3g; `Err` says why it does not mount it.
    ///
    /// # Errors
    /// What ntfs-3g said.
    pub fn of_ntfs(image: &str, scratch: &crate::Scratch) -> Result<Self, String> {
        let at = scratch.folder("mounted");
        let point = at.display().to_string();
        let options = "ro,norecover,noatime,permissions,streams_interface=xattr";
        let (status, said) = judge("ntfs-3g", &["-o", options, image, &point]);
        if status != Some(0) {
            return Err(said);
        }
        let _unmount = UnmountOnly(point);
        Ok(Self::read(&at, Detail::Blocks))
    }

    /// Of an image that a program in user space mounts read-only.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn of_fused(image: &str, program: &str, scratch: &crate::Scratch) -> Result<Self, String> {
        let at = scratch.folder("mounted");
        let point = at.display().to_string();
        match judge("mount", &["-t", program, "-o", "ro,loop", image, &point]) {
            (Some(0), _) => {
                let _unmount = UnmountOnly(point);
                Ok(Self::read(&at, Detail::Files))
            }
            (_, why) => Err(why),
        }
    }

    /// Of a mounted device.
    pub fn of_device(node: &str, scratch: &crate::Scratch) -> Self {
        let at = scratch.folder("mounted");
        let _mounted = mount(node, &at, "ro,noload,noatime");
        Self::read(&at, Detail::Blocks)
    }

    /// How many files it has.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Fails at the first file that differs.
    pub fn assert_same(&self, other: &Self, what: &str) {
        for (path, mine) in &self.files {
            let theirs = other.files.get(path).map_or("absent", String::as_str);
            assert_eq!(mine, theirs, "{what}: {}", path.display());
        }
        let more: Vec<_> =
            other.files.keys().filter(|path| !self.files.contains_key(*path)).take(5).collect();
        assert!(more.is_empty(), "{what}: there are more files: {more:?}");
        assert!(self.attributes == other.attributes, "{what}: extended attributes differ");
    }
}

struct UnmountOnly(String);

impl Drop for UnmountOnly {
    fn drop(&mut self) {
        crate::device::unmount(&self.0);
    }
}

fn describe(path: &Path, metadata: &Metadata, detail: Detail) -> String {
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        digest(path)
    } else if kind.is_symlink() {
        // An encrypted name without its key has no target that can be read.
        std::fs::read_link(path).map_or_else(|error| error.to_string(), |to| to.display().to_string())
    } else if kind.is_block_device() || kind.is_char_device() {
        format!("device {:x}", metadata.rdev())
    } else {
        String::new()
    };
    let m = metadata;
    match detail {
        Detail::Files if m.is_file() => format!("{} {} {content}", m.len(), m.mtime()),
        Detail::Files => content,
        Detail::Blocks | Detail::Mounted => format!(
            "inode {} mode {:o} owner {}:{} links {} size {} blocks {} mtime {}.{:09} ctime {}.{:09} {content}",
            if detail == Detail::Blocks { m.ino() } else { 0 },
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink(),
            m.size(),
            m.blocks(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec(),
        ),
    }
}

fn digest(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let hashed = std::fs::File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()));
    // What cannot be read has to be unreadable for the same reason on both sides.
    hashed.map_or_else(|error| error.to_string(), |()| hasher.finalize().to_hex().to_string())
}

/// The extended attributes of every file, as `getfattr` tells them; it stays in the folder, so paths are relative.
pub fn attributes(root: &Path) -> String {
    let mut command = crate::tool::command("sh");
    let script = "cd \"$0\" && getfattr -R -P -h -d -m - -e hex . 2>/dev/null";
    let done = command.args(["-c", script]).arg(root).output().expect("sh runs");
    let mut blocks: Vec<_> = String::from_utf8_lossy(&done.stdout).split("\n\n").map(str::to_owned).collect();
    blocks.sort();
    blocks.join("\n\n")
}
