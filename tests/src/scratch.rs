//! A folder for one test, gone when it ends.

use crate::imager::Imager;
use crate::junk;
use std::path::{Path, PathBuf};

/// A temporary folder.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// A new one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("halfhour-e2e-").tempdir().expect("a temporary folder");
        Self { folder }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in it, as programs take it.
    pub fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A new folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// A sparse file in it.
    pub fn file(&self, name: &str, size: u64) -> String {
        let path = self.path(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(size)).expect("a sparse file");
        path.display().to_string()
    }

    /// A file full of junk.
    pub fn junk(&self, name: &str, size: u64) -> String {
        let path = self.file(name, size);
        junk::over(Path::new(&path), 0, size);
        path
    }

    /// A copy of a file, with its holes.
    pub fn copy(&self, from: &str, name: &str) -> String {
        let to = self.name(name);
        crate::tool("cp", &["--sparse=always", "--reflink=auto", from, &to]);
        to
    }

    /// The program with a state of its own and a new repository.
    pub fn imager(&self) -> Imager {
        let imager = self.imager_without_repository();
        imager.ok(&["init"]);
        imager
    }

    /// The program with a state of its own, and a repository that is not made yet.
    pub fn imager_without_repository(&self) -> Imager {
        Imager::new(self.path("state"), self.path("repository"))
    }
}
