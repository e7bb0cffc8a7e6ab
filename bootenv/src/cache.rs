//! The folder where unpacked packages and what is made of them are kept between builds.
//!
//! An entry is a folder that appears whole, by a rename; its name tells its recipe, so another recipe is another entry.
//! A build holds the cache's lock: a second one waits.

use imager_units::{Context, Error, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

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
        Ok(Self { folder, _lock: lock })
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
            return Ok(entry);
        }
        let new = self.folder.join(format!("{sort}.new"));
        remove(&new)?;
        fs::create_dir_all(&new).context(|| format!("making {}", new.display()))?;
        make(&new).inspect_err(|_| drop(remove(&new)))?;
        remove(&entry)?;
        fs::rename(&new, &entry).context(|| format!("naming {}", entry.display()))?;
        Ok(entry)
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
        let folder = tempfile::Builder::new().prefix("work-").tempdir_in(&self.folder);
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
}
