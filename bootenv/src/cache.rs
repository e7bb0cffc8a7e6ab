//! The folder where unpacked packages and what is made of them are kept between builds.
//!
//! An entry is a folder that appears whole, by a rename; its name tells its recipe, so another recipe is another entry.
//! A build holds the cache's lock: a second one waits. Of each sort the entries used last are kept, the others go.

use imager_units::{Context, Error, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// So many entries of a sort are kept: one with firmware, and one without.
const KEPT: usize = 2;
/// What folders are called that a build needs only while it runs, and entries that are not finished.
const UNFINISHED: [&str; 2] = ["work-", ".new"];

/// A cache that we have locked.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens it, making it where it is missing, and waits until no other build uses it.
    ///
    /// # Errors
    /// When the folder cannot be made or locked.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).context(|| format!("making the cache {}", folder.display()))?;
        let folder = folder.canonicalize().context(|| format!("the cache {}", folder.display()))?;
        let path = folder.join("lock");
        let lock = File::create(&path).context(|| format!("making {}", path.display()))?;
        lock.lock().context(|| format!("locking {}", path.display()))?;
        let cache = Self { folder, _lock: lock };
        // Left behind by builds that were interrupted.
        for (name, _) in cache.folders()? {
            if name.starts_with(UNFINISHED[0]) || name.ends_with(UNFINISHED[1]) {
                remove(&cache.folder.join(name))?;
            }
        }
        Ok(cache)
    }

    /// The entry of this sort and recipe; `make` fills its folder if it is not there, or not wanted as it is.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn entry(
        &self,
        sort: &str,
        recipe: &str,
        freshness: Freshness,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let digest = blake3::hash(recipe.as_bytes()).to_hex();
        let entry = self.folder.join(format!("{sort}-{}", digest.get(..12).unwrap_or_default()));
        if entry.is_dir() && freshness == Freshness::Kept {
            // Its time is that of its last use.
            let used = File::open(&entry).and_then(|folder| folder.set_modified(SystemTime::now()));
            used.context(|| format!("marking {}", entry.display()))?;
            return Ok(entry);
        }
        let new = self.folder.join(format!("{sort}{}", UNFINISHED[1]));
        remove(&new)?;
        fs::create_dir_all(&new).context(|| format!("making {}", new.display()))?;
        make(&new).inspect_err(|_| drop(remove(&new)))?;
        remove(&entry)?;
        fs::rename(&new, &entry).context(|| format!("naming {}", entry.display()))?;
        self.forget(sort)?;
        Ok(entry)
    }

    /// Removes the entries of a sort that were not used for the longest time.
    fn forget(&self, sort: &str) -> Result<()> {
        let mut entries = self.folders()?;
        entries.retain(|(name, _)| name.strip_prefix(sort).is_some_and(|rest| rest.starts_with('-')));
        entries.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
        entries.iter().skip(KEPT).try_for_each(|(name, _)| remove(&self.folder.join(name)))
    }

    /// The folders in it, with their times.
    fn folders(&self) -> Result<Vec<(String, SystemTime)>> {
        let reading = || format!("reading {}", self.folder.display());
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.folder).context(reading)? {
            let entry = entry.context(reading)?;
            let about = entry.metadata().context(reading)?;
            if about.is_dir() {
                folders.push((
                    entry.file_name().to_string_lossy().into_owned(),
                    about.modified().context(reading)?,
                ));
            }
        }
        Ok(folders)
    }

    /// A folder that stays.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    /// A folder that is empty now and is nobody's later.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work(&self) -> Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new().prefix(UNFINISHED[0]).tempdir_in(&self.folder);
        folder.map_err(|error| Error::io(format!("making a folder in {}", self.folder.display()), error))
    }
}

/// Whether what is in the cache will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Yes.
    Kept,
    /// No: it is made again.
    Renewed,
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", folder.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, Freshness};
    use imager_units::{Error, ErrorKind};
    use std::fs;

    #[test]
    fn an_entry_is_made_once_a_recipe_and_a_failed_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let fill = |text: &'static str| {
            move |at: &std::path::Path| {
                fs::write(at.join("x"), text).unwrap();
                Ok(())
            }
        };
        let read = |at: std::path::PathBuf| fs::read_to_string(at.join("x")).unwrap();
        assert_eq!(read(cache.entry("a", "1", Freshness::Kept, fill("first")).unwrap()), "first");
        assert_eq!(read(cache.entry("a", "1", Freshness::Kept, fill("second")).unwrap()), "first");
        assert_eq!(read(cache.entry("a", "2", Freshness::Kept, fill("other")).unwrap()), "other");
        assert_eq!(read(cache.entry("a", "1", Freshness::Renewed, fill("third")).unwrap()), "third");
        let failed = cache.entry("b", "1", Freshness::Kept, |_| Err(Error::new(ErrorKind::Io, "no")));
        assert!(failed.is_err());
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 3, "two entries and the lock");
    }

    #[test]
    fn old_entries_and_what_interrupted_builds_left_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let entry = |recipe: &str| cache.entry("a", recipe, Freshness::Kept, |_| Ok(())).unwrap();
        let (first, second, other) =
            (entry("1"), entry("2"), cache.entry("ab", "1", Freshness::Kept, |_| Ok(())).unwrap());
        let at = |path: &std::path::Path, seconds| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        };
        at(&first, 1);
        at(&second, 2);
        assert_eq!(entry("1"), first, "it is used, and so the newest");
        let third = entry("3");
        assert!(first.is_dir() && third.is_dir() && other.is_dir() && !second.exists());
        drop(cache);
        for name in ["work-1", "a.new"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Cache::open(folder.path()).unwrap();
        assert!(!folder.path().join("work-1").exists() && !folder.path().join("a.new").exists());
    }
}
