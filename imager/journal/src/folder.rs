//! Where the epochs and cursors of one disk lie: a folder below `/run`, whose lock makes one process their user.
//!
//! A record is written under another name, then renamed. Nothing is synchronised: after a restart of the machine none is
//! of use, since the marks that would follow are gone with it.

use crate::log::Marks;
use crate::record::{Origin, Record};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind as Os;
use std::path::{Path, PathBuf};

/// Where the journal keeps what it has harvested.
pub(crate) const PLACE: &str = "/run/halfhour/journal";
/// More records than this behind the newest cursor are joined.
const LOOSE_MAX: usize = 64;

const EPOCH: &str = "epoch-";
const CURSOR: &str = "cursor-";
const TROUBLE: &str = "trouble";

/// A cursor: a capture, and where it is in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) capture: String,
    pub(crate) origin: Origin,
    pub(crate) epoch: u64,
}

/// The folder of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// The right to change it; released by whatever ends the process.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Folder {
    /// That of the disk of this name.
    pub(crate) fn of(disk: &str) -> Self {
        Self { path: Path::new(PLACE).join(disk) }
    }

    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Becomes its only user; makes it where it is absent.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let say = || format!("locking {}", self.path.display());
        fs::create_dir_all(&self.path).context(say)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join("lock"));
        match Flock::lock(file.context(say)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let name = self.path.file_name().unwrap_or_default().display();
                Err(Error::new(
                    ErrorKind::Denied,
                    format!("another process is at work with the journal of {name}"),
                ))
            }
            Err((_, errno)) => Err(Error::io(say(), errno.into())),
        }
    }

    /// Keeps an epoch, or several.
    pub(crate) fn put_epoch(&self, record: &Record) -> Result<()> {
        self.put(&format!("{EPOCH}{:020}-{:020}", record.first, record.last), &record.to_bytes())
    }

    /// Keeps a cursor.
    pub(crate) fn put_cursor(&self, cursor: &Cursor) -> Result<()> {
        let Cursor { capture, origin, epoch } = cursor;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if capture.is_empty() || !capture.chars().all(is_name) {
            return Err(Error::new(ErrorKind::Invalid, format!("{capture:?} is no id of a capture")));
        }
        let record = Record { origin: *origin, first: *epoch, last: *epoch, marks: Marks::default() };
        self.put(&format!("{CURSOR}{capture}"), &record.to_bytes())
    }

    /// Says why nothing before is of use any more, for people.
    pub(crate) fn put_trouble(&self, why: &str) -> Result<()> {
        self.put(TROUBLE, why.as_bytes())
    }

    /// What was said last.
    pub(crate) fn trouble(&self) -> Option<String> {
        fs::read_to_string(self.path.join(TROUBLE)).ok()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (new, path) = (self.path.join("new"), self.path.join(name));
        fs::write(&new, bytes).context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).context(|| format!("renaming {}", path.display()))
    }

    /// The whole records of this origin, in the order of their first epochs.
    pub(crate) fn epochs(&self, origin: &Origin) -> Result<Vec<Record>> {
        let mut found: Vec<_> = self.read(EPOCH)?.into_iter().filter_map(|(_, record)| record).collect();
        found.retain(|record| record.origin == *origin);
        found.sort_by_key(|record| (record.first, u64::MAX - record.last));
        Ok(found)
    }

    /// The whole cursors, of whatever origin.
    pub(crate) fn cursors(&self) -> Result<Vec<Cursor>> {
        let found = self.read(CURSOR)?.into_iter().filter_map(|(capture, record)| {
            record.map(|record| Cursor { capture, origin: record.origin, epoch: record.last })
        });
        Ok(found.collect())
    }

    /// Forgets the cursors of other captures, and what was recorded for them alone.
    pub(crate) fn keep(&self, captures: &BTreeSet<&str>, origin: &Origin) -> Result<()> {
        for (capture, _) in self.read(CURSOR)? {
            if !captures.contains(capture.as_str()) {
                self.remove(&format!("{CURSOR}{capture}"))?;
            }
        }
        self.compact(origin)
    }

    /// Drops records that no cursor needs, and joins those that all cursors need or none.
    pub(crate) fn compact(&self, origin: &Origin) -> Result<()> {
        let cursors = self.cursors()?;
        let stops: BTreeSet<u64> =
            cursors.iter().filter(|cursor| cursor.origin == *origin).map(|cursor| cursor.epoch).collect();
        let oldest = stops.first().copied().unwrap_or(u64::MAX);
        let mut groups: Vec<(Option<u64>, Vec<Record>)> = Vec::new();
        for (name, record) in self.read(EPOCH)? {
            match record.filter(|record| record.origin == *origin && record.last > oldest) {
                None => self.remove(&format!("{EPOCH}{name}"))?,
                Some(record) => {
                    // The first cursor that is at its end or behind it.
                    let stop = stops.range(record.last..).next().copied();
                    match groups.iter_mut().find(|(at, _)| *at == stop) {
                        Some((_, group)) => group.push(record),
                        None => groups.push((stop, vec![record])),
                    }
                }
            }
        }
        for (stop, mut group) in groups {
            if group.len() > if stop.is_some() { 1 } else { LOOSE_MAX } {
                group.sort_by_key(|record| record.first);
                self.join(group)?;
            }
        }
        Ok(())
    }

    /// One record instead of several that follow each other.
    fn join(&self, group: Vec<Record>) -> Result<()> {
        let mut joined: Option<Record> = None;
        let mut parts = Vec::new();
        for record in group {
            parts.push((record.first, record.last));
            match &mut joined {
                Some(joined) if record.first <= joined.last.saturating_add(1) => joined.join(&record),
                // A gap: what is before it stays by itself.
                Some(_) => return Ok(()),
                None => joined = Some(record),
            }
        }
        let Some(joined) = joined else { return Ok(()) };
        self.put_epoch(&joined)?;
        for (first, last) in parts.into_iter().filter(|part| *part != (joined.first, joined.last)) {
            self.remove(&format!("{EPOCH}{first:020}-{last:020}"))?;
        }
        Ok(())
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) -> Result<()> {
        for prefix in [CURSOR, EPOCH] {
            for (name, _) in self.read(prefix)? {
                self.remove(&format!("{prefix}{name}"))?;
            }
        }
        self.remove(TROUBLE)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == Os::NotFound => Ok(()),
            removed => removed.context(|| format!("removing {}", path.display())),
        }
    }

    /// The files whose names begin so, by the rest of the name; without a record where they are torn.
    fn read(&self, prefix: &str) -> Result<Vec<(String, Option<Record>)>> {
        let say = || format!("reading {}", self.path.display());
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == Os::NotFound => return Ok(Vec::new()),
            entries => entries.context(say)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.context(say)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(rest) = name.strip_prefix(prefix) {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                found.push((rest.to_owned(), Record::parse(&bytes)));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
