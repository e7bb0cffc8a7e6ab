//! The tree of a volume: directories, symlinks, and the files that a person wants kept.
//!
//! A directory at a time is read, so memory and descriptors are bounded by the depth. Names are bytes.

use super::attributes::{self, Failed};
use super::keep::{Keep, MOST_BYTES, MOST_FILES};
use super::look::Look;
use super::mount::Mount;
use crate::monitor::{Monitor, check_cancelled};
use imager_disk::subvolume;
use imager_units::{ByteLen, Error, ErrorKind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many entries that could not be copied are told.
const MOST_TOLD: usize = 20;
/// Where it lies that e2fsck puts what it finds.
const LOST_AND_FOUND: &CStr = c"lost+found";

/// What is in a skeleton.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Directories, the root among them.
    pub(super) directories: u64,
    pub(super) symlinks: u64,
    /// Files that were kept, and what they hold.
    pub(super) kept: u64,
    pub(super) kept_bytes: u64,
    /// Files, devices, sockets and pipes that are not in it.
    pub(super) others: u64,
}

/// What came of a copy.
pub(super) struct Copied {
    pub(super) counts: Counts,
    /// What is missing that should be there.
    pub(super) problems: Vec<String>,
    /// Whether the volume has no `lost+found`.
    pub(super) lacks_lost_and_found: bool,
}

/// A directory under way.
struct Level {
    entries: Dir,
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    /// Whether it is a subvolume that cannot be written to.
    is_read_only: bool,
}

struct Copier<'a> {
    keep: &'a mut Keep,
    monitor: &'a dyn Monitor,
    /// The number of the subvolume that is mounted when none is named.
    default: Option<u64>,
    counts: Counts,
    problems: Vec<String>,
    untold: u64,
    /// Where what has several names was put first.
    links: HashMap<(u64, u64), PathBuf>,
    /// Kept files for which there is no room, and the first of them.
    excess: Option<(PathBuf, u64)>,
    path: PathBuf,
}

/// Copies what is below `from`.
///
/// # Errors
/// `Cancelled`; `OutOfSpace` when the skeleton has no room; `Io` when the root cannot be read.
pub(super) fn copy(look: &Look, target: &Mount, keep: &mut Keep, monitor: &dyn Monitor) -> Result<Copied> {
    raise_limit();
    let (from, to) = (look.root(), target.root());
    let (problems, counts, links) = (Vec::new(), Counts::default(), HashMap::new());
    let path = PathBuf::new();
    let default = look.default();
    let mut copier =
        Copier { keep, monitor, default, counts, problems, untold: 0, links, excess: None, path };
    let at_root = |error: Failed| Error::io("copying the root of the volume", error);
    let root = Level::open(from, to, c".").map_err(at_root)?;
    attributes::prepare(root.from.as_fd(), root.to.as_fd())?;
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    let lacks_lost_and_found =
        matches!(rustix::fs::statat(from, LOST_AND_FOUND, no_follow), Err(Errno::NOENT));
    if lacks_lost_and_found {
        // That of a filesystem that has just been made; others make none.
        let _other = rustix::fs::unlinkat(to, LOST_AND_FOUND, AtFlags::REMOVEDIR);
    }
    copier.walk(root)?;
    Ok(Copied { problems: copier.told(), counts: copier.counts, lacks_lost_and_found })
}

/// Deep trees take many descriptors.
fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, what is deeper than it allows is told.
        let _lower = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

impl Level {
    fn open(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> std::result::Result<Self, Failed> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = rustix::fs::openat(from, name, how, Mode::empty())?;
        let to = rustix::fs::openat(to, name, how, Mode::empty())?;
        let stat = rustix::fs::fstat(&from)?;
        Ok(Self { entries: Dir::read_from(&from)?, from, to, stat, is_read_only: false })
    }
}

impl Copier<'_> {
    fn walk(&mut self, root: Level) -> Result<()> {
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            check_cancelled(self.monitor)?;
            match level.entries.next() {
                Some(Ok(entry)) => {
                    let name = entry.file_name();
                    if matches!(name.to_bytes(), b"." | b"..") {
                        continue;
                    }
                    let name = name.to_owned();
                    self.path.push(OsStr::from_bytes(name.to_bytes()));
                    match self.entry(level, &name) {
                        Ok(Some(deeper)) => levels.push(deeper),
                        entered => {
                            entered.map(drop).or_else(|error| self.failed(error))?;
                            self.path.pop();
                        }
                    }
                }
                Some(Err(code)) => {
                    self.failed(code.into())?;
                    self.leave(&mut levels)?;
                }
                None => self.leave(&mut levels)?,
            }
        }
        Ok(())
    }

    /// A directory that is done: what it has beside its entries comes last, since they change its times.
    fn leave(&mut self, levels: &mut Vec<Level>) -> Result<()> {
        if let Some(level) = levels.pop() {
            self.counts.directories += 1;
            attributes::finish(level.from.as_fd(), level.to.as_fd(), &level.stat)
                .and_then(|()| match level.is_read_only {
                    true => subvolume::set_read_only(&level.to).map_err(other),
                    false => Ok(()),
                })
                .or_else(|error| self.failed(error))?;
        }
        self.path.pop();
        Ok(())
    }

    /// Copies an entry; a directory is handed on.
    fn entry(&mut self, level: &Level, name: &CStr) -> std::result::Result<Option<Level>, Failed> {
        let (from, to) = (level.from.as_fd(), level.to.as_fd());
        let stat = match rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
            // It went meanwhile.
            Err(Errno::NOENT) => return Ok(None),
            stat => stat?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(level, name, &stat),
            FileType::Symlink => {
                if !self.is_linked(to, name, &stat)? {
                    let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                    rustix::fs::symlinkat(&*target, to, name)?;
                    attributes::finish_symlink(from, to, name, &stat)?;
                }
                self.counts.symlinks += 1;
                Ok(None)
            }
            FileType::RegularFile if self.keep.has(&self.path) => {
                self.file(from, to, name, &stat)?;
                Ok(None)
            }
            _ => {
                self.counts.others += 1;
                Ok(None)
            }
        }
    }

    fn directory(
        &mut self,
        above: &Level,
        name: &CStr,
        stat: &Stat,
    ) -> std::result::Result<Option<Level>, Failed> {
        let (from, to) = (above.from.as_fd(), above.to.as_fd());
        let is_subvolume = stat.st_dev != above.stat.st_dev && stat.st_ino == subvolume::TOP_INODE;
        if is_subvolume {
            subvolume::create(to, name).map_err(other)?;
        } else {
            match rustix::fs::mkdirat(to, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(code) => return Err(code.into()),
            }
        }
        let mut level = Level::open(from, to, name)?;
        if is_subvolume {
            level.is_read_only = subvolume::is_read_only(&level.from).map_err(other)?;
            if self.default.is_some() && self.default == subvolume::number_of(&level.from).map_err(other)? {
                let number = subvolume::number_of(&level.to).map_err(other)?;
                number.map_or(Ok(()), |number| subvolume::set_default(&level.to, number)).map_err(other)?;
            }
        }
        if attributes::is_encrypted(level.from.as_fd()) {
            self.counts.directories += 1;
            attributes::finish(level.from.as_fd(), level.to.as_fd(), &level.stat)?;
            let what = "the names in it are encrypted, and only who has their key can make such: it is empty";
            return Err(Failed::other(what));
        }
        if let Err(error) = attributes::prepare(level.from.as_fd(), level.to.as_fd()) {
            self.note(&other(error));
        }
        Ok(Some(level))
    }

    /// Whether what has several names was put there as one of them.
    fn is_linked(
        &mut self,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> std::result::Result<bool, Failed> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else {
            if self.links.len() < usize::try_from(MOST_FILES).unwrap_or(usize::MAX) {
                self.links.insert((stat.st_dev, stat.st_ino), self.path.clone());
            }
            return Ok(false);
        };
        // From here to the root, and down again.
        let up = "../".repeat(self.path.components().count() - 1);
        let first = CString::new([up.as_bytes(), first.as_os_str().as_bytes()].concat())?;
        rustix::fs::linkat(to, &*first, to, name, AtFlags::empty())?;
        Ok(true)
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> std::result::Result<(), Failed> {
        let len = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let is_known = stat.st_nlink > 1 && self.links.contains_key(&(stat.st_dev, stat.st_ino));
        let is_too_much =
            self.counts.kept >= MOST_FILES || self.counts.kept_bytes.saturating_add(len) > MOST_BYTES;
        if is_too_much && !is_known {
            self.counts.others += 1;
            let (_, count) = self.excess.get_or_insert_with(|| (self.path.clone(), 0));
            *count += 1;
            return Ok(());
        }
        if !self.is_linked(to, name, stat)? {
            let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = File::from(rustix::fs::openat(from, name, how, Mode::empty())?);
            let how = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = File::from(rustix::fs::openat(to, name, how, Mode::RUSR | Mode::WUSR)?);
            attributes::prepare(source.as_fd(), target.as_fd()).map_err(other)?;
            // One that grows meanwhile is taken as long as it was.
            let copied = std::io::copy(&mut std::io::Read::take(&source, len), &mut target)?;
            self.counts.kept_bytes += copied;
            attributes::finish(source.as_fd(), target.as_fd(), stat)?;
        }
        self.counts.kept += 1;
        Ok(())
    }

    /// Notes what could not be copied; without room nothing more can.
    fn failed(&mut self, error: Failed) -> Result<()> {
        if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            return Err(Error::with_source(
                ErrorKind::OutOfSpace,
                "there is no room for the skeleton",
                error,
            ));
        }
        self.note(&error);
        Ok(())
    }

    fn note(&mut self, error: &Failed) {
        if self.problems.len() < MOST_TOLD {
            self.problems.push(format!("skeleton: {}: {error}", shown(&self.path)));
        } else {
            self.untold += 1;
        }
    }

    fn told(&mut self) -> Vec<String> {
        let mut told = std::mem::take(&mut self.problems);
        if self.untold > 0 {
            told.push(format!("skeleton: {} more could not be copied as they are", self.untold));
        }
        if let Some((first, count)) = &self.excess {
            told.push(format!(
                "skeleton: no room for {count} of the files to be kept, {} the first: there are at most {} and {MOST_FILES} \
                 files of them",
                shown(first),
                ByteLen::new(MOST_BYTES)
            ));
        }
        told
    }
}

/// An error with its causes, as one of the system's.
fn other(error: Error) -> Failed {
    Failed::other(imager_volume::chain(&error))
}

/// A path as it may be printed.
fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { "its root".to_owned() } else { format!("{path:?}") }
}
