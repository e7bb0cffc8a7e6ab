//! The kernel's questions and their answers.
//!
//! Nothing here ever changes, so the kernel may keep whatever it was told. A fault in reading a hostile filesystem,
//! even one of ours, is an error of that request.

use super::attributes::{Owner, Place, captured, plain};
use super::tree::{Content, Tree};
use crate::view::{DiskView, Status};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use imager_disk::ReadAt;
use imager_units::{ByteOffset, Context, Error, ErrorKind, Extent, Result};
use imager_volume::files::Files;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// For ever, as far as a mount is concerned.
const KEPT: Duration = Duration::from_secs(1 << 30);
const MOST_READ_BYTES: u32 = 1 << 20;
/// Places of a folder's names begin behind those of `.` and `..`.
const OWN_NAMES: u64 = 2;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// A capture, as the kernel asks for it.
pub(super) struct Folder {
    tree: Tree,
    owner: Owner,
    /// What was logged last, so that a program that tries again and again does not fill the terminal.
    logged: Mutex<String>,
}

/// A name and what it stands for.
struct Named<'n> {
    name: &'n [u8],
    place: Place,
    next: u64,
}

impl Folder {
    pub(super) fn new(tree: Tree) -> Self {
        let owner = Owner { user: nix::unistd::getuid().as_raw(), group: nix::unistd::getgid().as_raw() };
        Self { tree, owner, logged: Mutex::default() }
    }

    /// Does `work`; what fails is logged with its reason, which the kernel has no room for.
    fn answer<T>(&self, place: Place, work: impl FnOnce() -> Result<T>) -> Result<T, Errno> {
        let done = catch_unwind(AssertUnwindSafe(work));
        let done = done.unwrap_or_else(|_| Err(Error::corrupt("a fault of this program")));
        done.map_err(|error| {
            let errno = match error.kind() {
                // What `lookup` asks for may well not be there.
                ErrorKind::NotFound => return Errno::ENOENT,
                ErrorKind::Unsupported => Errno::EOPNOTSUPP,
                ErrorKind::Denied => Errno::EACCES,
                _ => Errno::EIO,
            };
            self.log(place, &error);
            errno
        })
    }

    fn log(&self, place: Place, error: &Error) {
        let mut text = match place {
            Place::Top => "the top".to_owned(),
            Place::Item(item) => self.name(item).to_owned(),
            Place::Node(item, node) => format!("{}: file number {}", self.name(item), node.0),
        };
        let mut next: Option<&dyn std::error::Error> = Some(error);
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            next = cause.source();
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged != text {
            tracing::warn!("{text}");
            *logged = text;
        }
    }

    fn name(&self, item: usize) -> &str {
        self.tree.items.get(item).map_or("", |item| &item.name)
    }

    fn content(&self, item: usize) -> Result<&Content> {
        let found = self.tree.items.get(item).map(|item| &item.content);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such item"))
    }

    fn files(&self, item: usize) -> Result<&dyn Files> {
        match self.content(item)? {
            Content::Files(files) => Ok(&**files),
            _ => Err(Error::new(ErrorKind::NotFound, "no folder of files")),
        }
    }

    fn attributes(&self, place: Place) -> Result<FileAttr> {
        let plain = |kind, perm, size| Ok(plain(place, kind, perm, size, self.tree.time, self.owner));
        match place {
            Place::Top => plain(FileType::Directory, 0o555, 0),
            Place::Item(item) => match self.content(item)? {
                Content::Raw(view) => plain(FileType::RegularFile, 0o400, view.geometry().size.get()),
                Content::Text(text) => {
                    plain(FileType::RegularFile, 0o444, text.len().try_into().unwrap_or(0))
                }
                Content::Files(_) => Err(Error::new(ErrorKind::NotFound, "no file")),
            },
            Place::Node(item, node) => Ok(captured(place, &self.files(item)?.attributes(node)?, self.owner)),
        }
    }

    /// What stands at the top under number `item`.
    fn place_of(&self, item: usize) -> Result<Place> {
        Ok(match self.content(item)? {
            Content::Files(files) => Place::Node(item, files.root()),
            _ => Place::Item(item),
        })
    }

    fn find(&self, parent: Place, name: &[u8]) -> Result<Option<Place>> {
        match parent {
            Place::Top => {
                let at = self.tree.items.iter().position(|item| item.name.as_bytes() == name);
                at.map(|item| self.place_of(item)).transpose()
            }
            Place::Item(_) => Ok(None),
            Place::Node(item, folder) => {
                Ok(self.files(item)?.find(folder, name)?.map(|node| Place::Node(item, node)))
            }
        }
    }

    /// Calls `each` with the names in a folder behind place `from`, until it returns false.
    fn names(&self, folder: Place, from: u64, each: &mut dyn FnMut(Named<'_>) -> bool) -> Result<()> {
        for (name, next) in [(&b"."[..], 1), (b"..", OWN_NAMES)] {
            // Where `..` leads the kernel knows better.
            if next > from && !each(Named { name, place: folder, next }) {
                return Ok(());
            }
        }
        let from = from.saturating_sub(OWN_NAMES);
        match folder {
            Place::Top => {
                for (item, next) in (0..self.tree.items.len()).zip(1_u64..) {
                    let (name, place) = (self.name(item).as_bytes(), self.place_of(item)?);
                    if next > from && !each(Named { name, place, next: next.saturating_add(OWN_NAMES) }) {
                        break;
                    }
                }
                Ok(())
            }
            Place::Item(_) => Err(Error::new(ErrorKind::NotFound, "no folder")),
            Place::Node(item, node) => self.files(item)?.entries(node, from, &mut |entry| {
                let place = Place::Node(item, entry.node);
                each(Named { name: &entry.name, place, next: entry.next.saturating_add(OWN_NAMES) })
            }),
        }
    }

    fn read_at(&self, place: Place, at: u64, len: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len.min(MOST_READ_BYTES)).unwrap_or(0)];
        let len = match place {
            Place::Top => 0,
            Place::Item(item) => match self.content(item)? {
                Content::Raw(view) => read_raw(view, at, &mut bytes)?,
                Content::Text(text) => read_text(text, at, &mut bytes),
                Content::Files(_) => 0,
            },
            Place::Node(item, node) => {
                let read = self.files(item)?.read(node, ByteOffset::new(at), &mut bytes);
                read.context(|| format!("reading {len} bytes at {at}"))?
            }
        };
        bytes.truncate(len);
        Ok(bytes)
    }

    fn seek(&self, place: Place, from: u64, whence: i32) -> Result<Option<u64>> {
        let size = self.attributes(place)?.size;
        if from >= size {
            return Ok(None);
        }
        let Place::Item(item) = place else { return Ok(Some(if whence == SEEK_DATA { from } else { size })) };
        let Content::Raw(view) = self.content(item)? else {
            return Ok(Some(if whence == SEEK_DATA { from } else { size }));
        };
        let mut rest = Extent::between(ByteOffset::new(from), ByteOffset::new(size));
        while !rest.is_empty() {
            for (run, status) in view.status(rest, 64)? {
                // What could not be read must not look like a hole.
                let is_data = matches!(status, Status::Data | Status::Unreadable);
                if is_data == (whence == SEEK_DATA) {
                    return Ok(Some(run.start().get()));
                }
                rest = Extent::between(run.end(), rest.end());
            }
        }
        Ok(if whence == SEEK_HOLE { Some(size) } else { None })
    }

    fn xattr(&self, place: Place, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match place {
            Place::Node(item, node) => self.files(item)?.extended_value(node, name),
            _ => Ok(None),
        }
    }

    fn xattrs(&self, place: Place) -> Result<Vec<u8>> {
        let Place::Node(item, node) = place else { return Ok(Vec::new()) };
        let names = self.files(item)?.extended(node)?;
        Ok(names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect())
    }
}

/// Reads what there is of a disk or volume.
fn read_raw(view: &DiskView<'_>, at: u64, bytes: &mut [u8]) -> Result<usize> {
    let rest = view.geometry().size.get().saturating_sub(at);
    let len = usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len());
    view.read_exact_at(ByteOffset::new(at), bytes.get_mut(..len).unwrap_or_default())?;
    Ok(len)
}

fn read_text(text: &[u8], at: u64, bytes: &mut [u8]) -> usize {
    let rest = usize::try_from(at).ok().and_then(|at| text.get(at..)).unwrap_or_default();
    for (place, byte) in bytes.iter_mut().zip(rest) {
        *place = *byte;
    }
    rest.len().min(bytes.len())
}

/// A value for whoever first asks how long it is.
fn reply_xattr(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value.map(|value| (u32::try_from(value.len()).unwrap_or(u32::MAX), value)) {
        Err(error) => reply.error(error),
        Ok((len, _)) if size == 0 => reply.size(len),
        Ok((len, _)) if len > size => reply.error(Errno::ERANGE),
        Ok((_, value)) => reply.data(&value),
    }
}

impl Filesystem for Folder {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        for flag in wanted {
            // An older kernel does without.
            let _older = config.add_capabilities(flag);
        }
        // It bounds what is read at once, too.
        let _nearest = config.set_max_write(MOST_READ_BYTES);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = Place::of(parent);
        let found = self.answer(parent, || {
            let found = self.find(parent, name.as_bytes())?;
            found.map(|place| self.attributes(place)).transpose()
        });
        match found {
            Ok(Some(attributes)) => reply.entry(&KEPT, &attributes, Generation(0)),
            Ok(None) => reply.error(Errno::ENOENT),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let place = Place::of(node);
        match self.answer(place, || self.attributes(place)) {
            Ok(attributes) => reply.attr(&KEPT, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let place = Place::of(node);
        let target = self.answer(place, || match place {
            Place::Node(item, node) => self.files(item)?.target(node),
            _ => Err(Error::corrupt("no link")),
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let place = Place::of(node);
        match self.answer(place, || self.read_at(place, offset, size)) {
            Ok(bytes) => reply.data(&bytes),
            // A pack that is gone is damage, not a file that is not there.
            Err(error) => reply.error(if error == Errno::ENOENT { Errno::EIO } else { error }),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let place = Place::of(node);
        let done = self.answer(place, || {
            self.names(place, offset, &mut |named| {
                // What it is cannot be known of what cannot be read; whoever opens it is told.
                let kind = self.attributes(named.place).map_or(FileType::RegularFile, |found| found.kind);
                !reply.add(named.place.number(), named.next, kind, OsStr::from_bytes(named.name))
            })
        });
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let place = Place::of(node);
        let done = self.answer(place, || {
            self.names(place, offset, &mut |named| {
                let name = OsStr::from_bytes(named.name);
                let (attributes, kept) = match self.answer(named.place, || self.attributes(named.place)) {
                    Ok(attributes) => (attributes, KEPT),
                    // Not kept, so that whoever looks closer asks again and gets the error.
                    Err(_) => {
                        let none =
                            plain(named.place, FileType::RegularFile, 0, 0, self.tree.time, self.owner);
                        (none, Duration::ZERO)
                    }
                };
                !reply.add(named.place.number(), named.next, name, &kept, &attributes, Generation(0))
            })
        });
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let raw = |item: &super::Item| match &item.content {
            Content::Raw(view) if item.name.starts_with("disk") => view.geometry().size.get(),
            _ => 0,
        };
        let bytes: u64 = self.tree.items.iter().map(raw).fold(0, u64::saturating_add);
        reply.statfs(bytes.div_ceil(4096), 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn getxattr(&self, _request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let place = Place::of(node);
        match self.answer(place, || self.xattr(place, name.as_bytes())) {
            Ok(Some(value)) => reply_xattr(Ok(value), size, reply),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let place = Place::of(node);
        reply_xattr(self.answer(place, || self.xattrs(place)), size, reply);
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let place = Place::of(node);
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        if whence != SEEK_DATA && whence != SEEK_HOLE {
            return reply.error(Errno::EINVAL);
        }
        match self.answer(place, || self.seek(place, from, whence)) {
            Ok(Some(found)) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read_text;

    #[test]
    fn a_text_ends_where_it_ends() {
        let mut bytes = [7; 4];
        assert_eq!((read_text(b"hello", 3, &mut bytes), &bytes[..2]), (2, &b"lo"[..]));
        assert_eq!(read_text(b"hello", 9, &mut bytes), 0);
    }
}
