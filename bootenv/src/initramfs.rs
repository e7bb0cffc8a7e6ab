//! The archives that the kernel unpacks into memory: Debian's part, compressed once and kept in the cache, and ours.

use crate::cache::{Cache, Freshness};
use crate::contents::{self, Ours};
use crate::cpio;
use crate::libraries::Libraries;
use crate::monitor::Monitor;
use crate::program;
use crate::system::System;
use crate::toolbox::Toolbox;
use crate::tree::Tree;
use imager_units::{Context, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// How hard it is compressed.
const LEVEL: i32 = 15;
/// How many threads compress; as many on every machine, because the bytes must not depend on it.
const THREADS: u32 = 2;
/// What an archive is called until it is compressed.
const ARCHIVE: &str = "archive.cpio";

/// Makes the archive of everything but the settings.
///
/// # Errors
/// When something is missing among the packages, or cannot be written.
pub fn make(
    cache: &Cache,
    system: &System,
    ours: &Ours,
    work: &Path,
    to: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let root = system.toolbox().root();
    let mut libraries = Libraries::new(root);
    let (mut base, mut own) = (Tree::default(), Tree::default());
    contents::add_debians(root, &mut libraries, &mut base)?;
    system.add_modules(&mut base)?;
    contents::add_ours(ours, &mut libraries, &mut own)?;
    monitor.step("compressing");
    let parts =
        [compressed(cache, system.toolbox(), &base)?, compress(system.toolbox(), &own, &work.join(ARCHIVE))?];
    let write = || format!("writing {}", to.display());
    let mut out = File::create(to).context(write)?;
    for part in parts {
        let mut part = File::open(&part).context(|| format!("opening {}", part.display()))?;
        // The kernel unpacks one compressed archive after the other, wherever they begin.
        io::copy(&mut part, &mut out).context(write)?;
    }
    Ok(())
}

/// Makes the archive of the settings.
///
/// # Errors
/// When it cannot be written.
pub fn make_settings(settings: &str, to: &Path) -> Result<()> {
    let mut tree = Tree::default();
    tree.text(bootenv_init::FILE, 0o600, settings)?;
    let mut bytes = Vec::new();
    cpio::write(&tree, &mut bytes)?;
    fs::write(to, bytes).context(|| format!("writing {}", to.display()))
}

/// A tree's archive, compressed; from the cache, where the same was compressed before.
fn compressed(cache: &Cache, toolbox: &Toolbox, tree: &Tree) -> Result<PathBuf> {
    let mut digest = blake3::Hasher::new();
    cpio::write(tree, &mut digest)?;
    let recipe = format!("{LEVEL} {THREADS} {}", digest.finalize().to_hex());
    let entry = cache.entry("archive", &recipe, Freshness::Kept, |at| {
        compress(toolbox, tree, &at.join(ARCHIVE)).map(drop)
    })?;
    Ok(entry.join(ARCHIVE).with_extension("zst"))
}

/// Writes a tree's archive and compresses it; the file, beside the one named.
fn compress(toolbox: &Toolbox, tree: &Tree, archive: &Path) -> Result<PathBuf> {
    let writing = || format!("writing {}", archive.display());
    let mut out = BufWriter::with_capacity(1 << 20, File::create(archive).context(writing)?);
    cpio::write(tree, &mut out)?;
    out.flush().context(writing)?;
    let to = archive.with_extension("zst");
    let mut zstd = toolbox.command("zstd")?;
    zstd.args(["-q", "--rm", "-f", &format!("-{LEVEL}"), &format!("-T{THREADS}"), "-o"])
        .arg(&to)
        .arg(archive);
    program::run("zstd", &mut zstd)?;
    Ok(to)
}
