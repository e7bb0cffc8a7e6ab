//! Room that only an admin may use up.
//!
//! On a full disk no token can be revoked and no prune can begin, for both have to write a little first. So what anybody
//! else sends is refused while there still is some.

use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use std::io;
use std::path::Path;

const RESERVE_BYTES: u64 = 256 << 20;
const RESERVE_FILES: u64 = 4096;
/// Of a small disk no more than this part is kept.
const PART: u64 = 16;

/// Checks that the reserve is still there when `more` bytes of a new file have been written to `folder`.
///
/// # Errors
/// `OutOfSpace` when it would not be; `Denied`, `Io` from the system.
pub(crate) fn check(folder: &Path, more: u64) -> Result<()> {
    let disk = match statvfs(folder) {
        // Whoever writes there says better what became of it.
        Err(Errno::ENOENT) => return Ok(()),
        asked => {
            asked.map_err(io::Error::from).context(|| format!("asking for room in {}", folder.display()))?
        }
    };
    let piece = disk.fragment_size();
    let bytes = disk.blocks().saturating_mul(piece);
    let free = disk.blocks_available().saturating_mul(piece);
    // Some file systems make files as they are needed, and count none.
    let (files, free_files) = (disk.files(), disk.files_available());
    let has_files = files == 0 || free_files > RESERVE_FILES.min(files / PART);
    if free.saturating_sub(more) >= RESERVE_BYTES.min(bytes / PART) && has_files {
        return Ok(());
    }
    let what = format!("only what an admin may need is left in {} ({free} bytes)", folder.display());
    Err(Error::new(ErrorKind::OutOfSpace, what))
}

#[cfg(test)]
mod tests {
    use super::check;
    use imager_units::ErrorKind;

    #[test]
    fn more_than_there_is_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check(folder.path(), u64::MAX).unwrap_err().kind(), ErrorKind::OutOfSpace);
        check(folder.path(), 1).unwrap();
        check(&folder.path().join("none"), 1).unwrap();
    }
}
