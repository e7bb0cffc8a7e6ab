//! The archive format of an initramfs: "newc" (Documentation/driver-api/early-userspace/buffer-format.rst in the
//! kernel's source). All is root's and of the first second of 1970; numbers of inodes count up.

use crate::tree::{Node, Source, Tree};
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const ALIGN_BYTES: u64 = 4;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// Writes a tree as an archive.
///
/// # Errors
/// When a file cannot be read, changes while it is read, or is too large for the format; when `out` fails.
pub fn write(tree: &Tree, out: &mut dyn Write) -> Result<()> {
    for (number, (path, node)) in (1..).zip(tree.nodes()) {
        let at = || format!("archiving {path}");
        match node {
            Node::Folder(mode) => header(out, number, FOLDER | mode, 2, 0, path).context(at)?,
            Node::Link(to) => {
                header(out, number, LINK | 0o777, 1, len_of(to.as_bytes())?, path).context(at)?;
                body(out, len_of(to.as_bytes())?, &mut to.as_bytes()).context(at)?;
            }
            Node::File(mode, Source::Bytes(bytes)) => {
                header(out, number, FILE | mode, 1, len_of(bytes)?, path).context(at)?;
                body(out, len_of(bytes)?, &mut bytes.as_slice()).context(at)?;
            }
            Node::File(mode, Source::Path(from)) => {
                let mut file = File::open(from).context(|| format!("opening {}", from.display()))?;
                let size = file.metadata().context(at)?.size();
                let len = u32::try_from(size)
                    .map_err(|_| Error::unsupported(format!("{path} is too large for an archive")))?;
                header(out, number, FILE | mode, 1, len, path).context(at)?;
                body(out, len, &mut file).context(at)?;
            }
        }
    }
    header(out, 0, 0, 1, 0, TRAILER).context(|| "ending the archive".to_owned())
}

fn len_of(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| Error::new(ErrorKind::Unsupported, "too large for an archive"))
}

fn header(out: &mut dyn Write, inode: u32, mode: u32, links: u32, size: u32, name: &str) -> io::Result<()> {
    let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    let mut text = String::from(MAGIC);
    // inode, mode, uid, gid, links, mtime, size, device (2), device of a node (2), length of the name, check (unused)
    for field in [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
        text.push_str(&format!("{field:08X}"));
    }
    text.push_str(name);
    text.push('\0');
    out.write_all(text.as_bytes())?;
    pad(out, text.len() as u64)
}

fn body(out: &mut dyn Write, size: u32, from: &mut dyn Read) -> io::Result<()> {
    let copied = io::copy(&mut from.take(u64::from(size)), out)?;
    if copied != u64::from(size) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter"));
    }
    pad(out, copied)
}

fn pad(out: &mut dyn Write, written: u64) -> io::Result<()> {
    let zeros = written.next_multiple_of(ALIGN_BYTES) - written;
    io::copy(&mut io::repeat(0).take(zeros), out).map(drop)
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::tree::Tree;

    fn archive() -> Vec<u8> {
        let mut tree = Tree::default();
        tree.text("init", 0o755, "run").unwrap();
        tree.link("bin/sh", "busybox").unwrap();
        let mut out = Vec::new();
        write(&tree, &mut out).unwrap();
        out
    }

    #[test]
    fn every_header_is_aligned_and_the_trailer_ends_it() {
        let out = archive();
        let text = String::from_utf8_lossy(&out);
        let places: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(places.len(), 4, "bin, bin/sh, init, trailer");
        assert!(places.iter().all(|at| at % 4 == 0) && out.len().is_multiple_of(4));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        assert_eq!(archive(), archive());
    }

    #[test]
    fn cpio_unpacks_it() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let child = std::process::Command::new("cpio")
            .args(["-i", "--quiet"])
            .current_dir(folder.path())
            .stdin(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            println!("skipped: cpio is not installed");
            return;
        };
        child.stdin.take().unwrap().write_all(&archive()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(folder.path().join("init")).unwrap(), b"run");
        assert_eq!(std::fs::read_link(folder.path().join("bin/sh")).unwrap().to_str(), Some("busybox"));
    }
}
