//! The libraries that programs need, found where the loader of the rescue system will look for them: among Debian's, not
//! among this machine's.

use crate::advice::Advice;
use crate::elf::Elf;
use crate::root::Root;
use crate::tree::Tree;
use imager_units::{ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the loader looks without being told.
const PLACES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"];
/// Opened by name while a program runs: by threads that are cancelled.
const OPENED_LATER: [&str; 1] = ["libgcc_s.so.1"];

/// Puts libraries into a tree, each once.
#[derive(Debug)]
pub struct Libraries<'a> {
    root: &'a Root,
    known: BTreeMap<String, Elf>,
}

impl<'a> Libraries<'a> {
    /// Those of this root.
    #[must_use]
    pub fn new(root: &'a Root) -> Self {
        Self { root, known: BTreeMap::new() }
    }

    /// Adds what this program needs.
    ///
    /// # Errors
    /// When a library is not among the packages, or is too old for the program.
    pub fn add(&mut self, program: &Path, elf: &Elf, tree: &mut Tree) -> Result<()> {
        if let Some(loader) = &elf.interpreter {
            self.put(program, loader, &[], tree)?;
        }
        let later = OPENED_LATER.iter().filter(|_| elf.interpreter.is_some()).map(|name| (*name).to_owned());
        for name in elf.needed.iter().cloned().chain(later) {
            self.put(program, &name, &elf.places, tree)?;
        }
        // What libraries open, they can do without; what programs open is what they were put here for.
        for name in elf.opened.iter().filter(|_| elf.interpreter.is_some()) {
            if self.find(name, &elf.places)?.is_some() {
                self.put(program, name, &elf.places, tree)?;
            }
        }
        for (library, version) in &elf.wanted {
            if self.known.get(library).is_some_and(|known| !known.defined.contains(version)) {
                return Err(too_new(program, library, version));
            }
        }
        Ok(())
    }

    fn put(&mut self, program: &Path, name: &str, first: &[String], tree: &mut Tree) -> Result<()> {
        if self.known.contains_key(name) {
            return Ok(());
        }
        let Some((inside, path)) = self.find(name, first)? else {
            let program = program.display();
            return Err(Advice::error(
                ErrorKind::NotFound,
                format!("{program} needs {name}, which the packages of the medium do not have"),
                "build the programs on the release of Debian that the medium is made of",
            ));
        };
        let elf = Elf::open(&path)?.unwrap_or_default();
        tree.file(&inside, 0o755, &path)?;
        self.known.insert(name.to_owned(), elf.clone());
        self.add(&path, &elf, tree)
    }

    /// Its path in the rescue system, and the file.
    fn find(&self, name: &str, first: &[String]) -> Result<Option<(String, PathBuf)>> {
        if name.starts_with('/') {
            // The loader, at /lib64, which is a link there as here.
            let inside = format!("/usr{name}");
            return Ok(self.root.resolve(&inside)?.map(|path| (inside, path)));
        }
        let absolute = first.iter().map(String::as_str).filter(|place| place.starts_with('/'));
        for place in absolute.chain(PLACES) {
            let inside = format!(
                "{}/{name}",
                place.replacen("/lib/", "/usr/lib/", usize::from(place.starts_with("/lib/")))
            );
            if let Some(path) = self.root.resolve(&inside)? {
                return Ok(Some((inside, path)));
            }
        }
        Ok(None)
    }
}

fn too_new(program: &Path, library: &str, version: &str) -> imager_units::Error {
    let program = program.display();
    Advice::error(
        ErrorKind::Unsupported,
        format!("{program} was built for a newer system: the medium's {library} has no {version}"),
        "build the programs on the release of Debian that the medium is made of",
    )
}
