//! An object on its way into the folder, piece by piece, in whatever memory its pieces take.
//!
//! Where the name is free the pieces go to a temporary file, which `publish` makes visible at the end. Where it is
//! taken they are compared with what is there, and nothing is written. An upload that is dropped leaves nothing.

use super::publish::{Temporary, sync_folder};
use super::{DirStore, TRIES, unless_absent};
use crate::{ObjectName, Put};
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;

const CHUNK_BYTES: usize = 1 << 20;

/// A put in pieces; `S` is a pointer to the share.
#[derive(Debug)]
pub struct Upload<S: Deref<Target = DirStore>> {
    store: S,
    name: ObjectName,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// The name is taken.
    There(Comparison),
    /// The name was free.
    New(Temporary),
}

impl<S: Deref<Target = DirStore>> Upload<S> {
    /// Begins to put `name`.
    ///
    /// # Errors
    /// `OutOfSpace`, `Denied`, `Io` from the share.
    pub fn begin(store: S, name: ObjectName) -> Result<Self> {
        for _ in 0..TRIES {
            store.check_mounted()?;
            if let Some(there) = store.comparison(&name)? {
                return Ok(Self { store, name, target: Target::There(there) });
            }
            if let Some(temporary) = store.temporary(&name).map_err(|error| store.went_away(&name, error))? {
                return Ok(Self { store, name, target: Target::New(temporary) });
            }
        }
        Err(store.contended(&name))
    }

    /// Takes the next bytes of the object.
    ///
    /// # Errors
    /// `OutOfSpace`, `Io` from the share.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.target {
            Target::There(there) => there.feed(bytes),
            Target::New(temporary) => temporary.write(bytes),
        }
        .context(|| format!("storing {} in {}", self.name, self.store.shown))
    }

    /// Makes the object durable under its name, which is never replaced.
    ///
    /// # Errors
    /// `Exists` when the name holds other bytes; `OutOfSpace`, `Denied`, `Io` from the share.
    pub fn finish(self) -> Result<Put> {
        let Self { store, name, target } = self;
        Self::publish(&store, &name, target).map_err(|error| store.went_away(&name, error))
    }

    fn publish(store: &DirStore, name: &ObjectName, target: Target) -> Result<Put> {
        let mut temporary = match target {
            Target::There(there) => return store.settled_as(name, there).map(|()| Put::Present),
            Target::New(temporary) => temporary,
        };
        temporary.sync().context(|| format!("storing {name} in {}", store.shown))?;
        for _ in 0..TRIES {
            if store.publish(name, &mut temporary)? {
                return Ok(Put::Created);
            }
            if let Some(mut there) = store.comparison(name)? {
                there.feed_file(temporary.file()).context(|| format!("comparing what is at {name}"))?;
                return store.settled_as(name, there).map(|()| Put::Present);
            }
        }
        Err(store.contended(name))
    }
}

impl DirStore {
    /// What is under a name, to be compared; `None` when the name is free.
    fn comparison(&self, name: &ObjectName) -> Result<Option<Comparison>> {
        let path = self.path(name);
        let fail =
            |error| Error::io(format!("comparing {} with what is to be stored", path.display()), error);
        let Some(file) = unless_absent(File::open(&path)).map_err(fail)? else {
            return Ok(None);
        };
        let metadata = file.metadata().map_err(fail)?;
        Ok(Some(Comparison { file, left: metadata.len(), same: metadata.is_file() }))
    }

    /// Ends a comparison: the object is there with just these bytes, which are then durable.
    fn settled_as(&self, name: &ObjectName, there: Comparison) -> Result<()> {
        let path = self.path(name);
        if !there.same || there.left > 0 {
            let what = format!("{} is there with other content", path.display());
            return Err(Error::new(ErrorKind::Exists, what));
        }
        // Whoever wrote it may not have come to this yet.
        there.file.sync_all().context(|| format!("syncing {}", path.display()))?;
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// The error of a put, which is never that something is not there: then the share went away under it, or somebody
    /// removed the folder, and it may be tried again.
    fn went_away(&self, name: &ObjectName, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let what = || format!("the folder of {name} in {} went away", self.shown);
        self.check_mounted().err().unwrap_or_else(|| Error::with_source(ErrorKind::Io, what(), error))
    }

    fn contended(&self, name: &ObjectName) -> Error {
        let what = format!("{name} in {} is created and deleted by others again and again", self.shown);
        Error::new(ErrorKind::Io, what)
    }
}

/// A file that is compared with bytes that come piece by piece.
#[derive(Debug)]
struct Comparison {
    file: File,
    left: u64,
    same: bool,
}

impl Comparison {
    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES.min(bytes.len())];
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.same = self.same && len <= self.left;
            if !self.same {
                return Ok(());
            }
            let read = &mut buffer[..chunk.len()];
            self.file.read_exact(read)?;
            self.left -= len;
            self.same = read == chunk;
        }
        Ok(())
    }

    fn feed_file(&mut self, mut other: &File) -> io::Result<()> {
        io::Seek::rewind(&mut other)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let len = other.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            self.feed(&buffer[..len])?;
        }
    }
}
