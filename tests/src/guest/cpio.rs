//! An initramfs: an uncompressed cpio archive in the "newc" format that the kernel unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// The archive being written.
pub(super) struct Archive {
    out: BufWriter<File>,
    folders: BTreeSet<String>,
    names: BTreeSet<String>,
    number: u32,
    written: u64,
}

impl Archive {
    /// A new one.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { out, folders: BTreeSet::new(), names: BTreeSet::new(), number: 1, written: 0 })
    }

    /// Puts a file of this machine under a name (a path of the guest); once, however often it is asked for.
    pub(super) fn file(&mut self, from: &Path, name: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        File::open(from)?.read_to_end(&mut bytes)?;
        self.bytes(&bytes, name)
    }

    /// The same with content that is at hand.
    pub(super) fn bytes(&mut self, bytes: &[u8], name: &str) -> io::Result<()> {
        self.entry(name, PROGRAM, bytes)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, to: &str, name: &str) -> io::Result<()> {
        self.entry(name, LINK, to.as_bytes())
    }

    /// An empty folder.
    pub(super) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.folders_of(&format!("{name}/x"))
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.raw("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let name = name.trim_start_matches('/');
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        self.folders_of(name)?;
        self.raw(name, mode, bytes)
    }

    fn folders_of(&mut self, name: &str) -> io::Result<()> {
        let name = name.trim_start_matches('/');
        for (at, _) in name.match_indices('/') {
            let Some(folder) = name.get(..at) else { continue };
            if self.folders.insert(folder.to_owned()) {
                self.raw(folder, FOLDER, &[])?;
            }
        }
        Ok(())
    }

    fn raw(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let number = self.number;
        self.number += 1;
        let fields = [
            u64::from(number),
            mode.into(),
            0,
            0,
            1,
            0,
            bytes.len() as u64,
            0,
            0,
            0,
            0,
            name.len() as u64 + 1,
            0,
        ];
        let mut header = "070701".to_owned();
        fields.iter().for_each(|field| header.push_str(&format!("{field:08x}")));
        self.padded(&[header.as_bytes(), name.as_bytes(), b"\0"].concat())?;
        self.padded(bytes)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        let pad = self.written.next_multiple_of(4) - self.written;
        self.written += pad;
        self.out.write_all(&[0_u8; 4][..usize::try_from(pad).unwrap_or(0)])
    }
}
