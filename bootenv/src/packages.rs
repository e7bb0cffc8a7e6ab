//! Debian packages, unpacked: never installed, no script of theirs is run.

use crate::program;
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Folders that a merged /usr has as links; packages of Debian 12 still carry files below them.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Makes a root with a merged /usr and unpacks every package of a folder into it.
///
/// # Errors
/// When one cannot be unpacked.
pub fn unpack(debs: &Path, root: &Path) -> Result<()> {
    for name in MERGED {
        let folder = root.join("usr").join(name);
        fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
        symlink(Path::new("usr").join(name), root.join(name)).context(|| format!("linking {name}"))?;
    }
    for deb in list(debs)? {
        // tar rather than dpkg-deb -x, which would put a folder in the place of a link.
        let mut unpack = program::command("sh");
        unpack.args([
            "-ec",
            "dpkg-deb --fsys-tarfile \"$1\" | tar -x --keep-directory-symlink --no-same-owner -C \"$2\"",
        ]);
        unpack.arg("sh").arg(&deb).arg(root);
        program::run(&format!("unpacking {}", deb.display()), &mut unpack)?;
    }
    Ok(())
}

/// One line a package of a folder: name, version, architecture, sorted.
///
/// # Errors
/// When the folder cannot be read or has none.
pub fn versions(debs: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for deb in list(debs)? {
        let mut show = program::command("dpkg-deb");
        show.args(["-W", "--showformat=${Package} ${Version} ${Architecture}\n"]).arg(&deb);
        lines.push(program::run("dpkg-deb -W", &mut show)?);
    }
    Ok(lines.concat())
}

fn list(debs: &Path) -> Result<Vec<PathBuf>> {
    let read = || format!("reading {}", debs.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(debs).context(read)? {
        let path = entry.context(read)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("apt put no package into {}", debs.display())));
    }
    Ok(found)
}
