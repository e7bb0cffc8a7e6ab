//! Removing what writers that died left unfinished.

use super::publish::PREFIX;
use super::unless_absent;
use crate::name::LEVELS_MAX;
use imager_units::{ByteLen, Context, Result};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Removes unfinished files below `root` to which nothing was written for so long, by the share's own clock; says how
/// many bytes they had. If a writer lives after all, its put fails, and nothing else.
///
/// # Errors
/// `Denied`, `Io` from the system.
pub fn sweep_unfinished(root: &Path, older: Duration) -> Result<ByteLen> {
    let say = || format!("looking for unfinished files in {}", root.display());
    let probe = root.join(format!("{PREFIX}0-{}-clock", std::process::id()));
    let now = File::create(&probe).and_then(|file| file.metadata()?.modified());
    drop(fs::remove_file(&probe));
    sweep(root, now.context(say)?, older, LEVELS_MAX)
}

fn sweep(folder: &Path, now: SystemTime, older: Duration, levels: usize) -> Result<ByteLen> {
    let say = || format!("listing {}", folder.display());
    let mut swept = ByteLen::ZERO;
    let Some(entries) = unless_absent(fs::read_dir(folder)).context(say)? else { return Ok(swept) };
    for entry in entries {
        let entry = entry.context(say)?;
        let Some(kind) = unless_absent(entry.file_type()).context(say)? else { continue };
        if kind.is_dir() && levels > 1 {
            swept = swept.saturating_add(sweep(&entry.path(), now, older, levels - 1)?);
            continue;
        }
        let is_unfinished = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !(kind.is_file() && is_unfinished) {
            continue;
        }
        let Some(metadata) = unless_absent(entry.metadata()).context(say)? else { continue };
        let age = now.duration_since(metadata.modified().context(say)?).unwrap_or_default();
        if age >= older && unless_absent(fs::remove_file(entry.path())).context(say)?.is_some() {
            swept = swept.saturating_add(ByteLen::new(metadata.len()));
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::sweep_unfinished;
    use imager_units::ByteLen;
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_what_was_left_long_ago_goes() {
        let folder = tempfile::tempdir().unwrap();
        let packs = folder.path().join("packs/ab");
        fs::create_dir_all(&packs).unwrap();
        fs::write(packs.join(".tmporary notes"), b"").unwrap();
        let (old, new, other) = (packs.join(".tmp-1-2-3"), packs.join(".tmp-4-5-6"), packs.join("abcd"));
        for path in [&old, &new, &other] {
            fs::write(path, b"12345").unwrap();
        }
        let long_ago = SystemTime::now() - Duration::from_secs(100_000);
        for path in [&old, &other] {
            File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
        let day = Duration::from_secs(86_400);
        assert_eq!(sweep_unfinished(folder.path(), day).unwrap(), ByteLen::new(5));
        assert!(!old.exists() && new.exists() && other.exists() && packs.join(".tmporary notes").exists());
        assert_eq!(sweep_unfinished(folder.path(), day).unwrap(), ByteLen::ZERO);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing of ours stays");
    }
}
