//! The files of a filesystem, read without mounting it: by number, at any place, by any number of threads.
//!
//! What lies on the volume is hostile: every call is bounded in time and memory by what it was asked for and by the
//! structures that the format allows, and fails rather than give bytes that are not the file's.

use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Result};

/// A file, folder or link by its number: an inode of ext, a file record of NTFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u64);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device of major and minor number.
    Character(u32, u32),
    /// A block device of major and minor number.
    Block(u32, u32),
}

/// A point in time: seconds since 1970 in UTC, which may be negative, and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below a thousand million.
    pub nanoseconds: u32,
}

/// What is known of a node beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: Kind,
    /// Permission bits and setuid, setgid, sticky; `None` where the filesystem has none.
    pub mode: Option<u16>,
    /// User and group; `None` where the filesystem has none.
    pub owner: Option<(u32, u32)>,
    /// How many names it has.
    pub links: u32,
    /// How long its content is.
    pub size: ByteLen,
    /// How much it takes on the volume.
    pub stored: ByteLen,
    /// When it was last read.
    pub accessed: Time,
    /// When its content last changed.
    pub modified: Time,
    /// When it last changed in any way.
    pub changed: Time,
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Not necessarily text; neither empty, `.` nor `..`, and without `/` and NUL.
    pub name: Vec<u8>,
    /// Whose name it is.
    pub node: Node,
    /// Where to go on behind it; never 0.
    pub next: u64,
}

/// The files of one volume.
pub trait Files: Send + Sync {
    /// The folder that holds everything.
    fn root(&self) -> Node;

    /// What `node` is.
    ///
    /// # Errors
    /// `NotFound` when it is nothing; `Corrupt`, `Unsupported`, `Io`.
    fn attributes(&self, node: Node) -> Result<Attributes>;

    /// Calls `each` with the names in `folder` from place `from` on (0: all), until it returns false.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`; what came before was right.
    fn entries(&self, folder: Node, from: u64, each: &mut dyn FnMut(Entry) -> bool) -> Result<()>;

    /// Whose name `name` is in `folder`.
    ///
    /// # Errors
    /// As [`Files::entries`].
    fn find(&self, folder: Node, name: &[u8]) -> Result<Option<Node>> {
        let mut found = None;
        self.entries(folder, 0, &mut |entry| {
            if entry.name == name {
                found = Some(entry.node);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Reads a file from `at` on into `buf`, and says how much there was: less than asked for only at its end.
    ///
    /// # Errors
    /// `Unsupported` when its content is stored in a way that is not known here, `Corrupt`, `Io`.
    fn read(&self, file: Node, at: ByteOffset, buf: &mut [u8]) -> Result<usize>;

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// As [`Files::read`].
    fn target(&self, link: Node) -> Result<Vec<u8>>;

    /// The names of the extended attributes, as Linux has them.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    fn extended(&self, node: Node) -> Result<Vec<Vec<u8>>>;

    /// The value of an extended attribute; `None` where there is none of that name.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`, `Io`.
    fn extended_value(&self, node: Node, name: &[u8]) -> Result<Option<Vec<u8>>>;
}

/// Opens the files of an ext2, ext3, ext4 or NTFS volume; `None` where there is none of them.
///
/// # Errors
/// `Unsupported` for features that are not known here, and for an ext volume whose journal is to be replayed first;
/// `Corrupt`, `Io`.
pub fn files<'v>(volume: Box<dyn ReadAt + 'v>) -> Result<Option<Box<dyn Files + 'v>>> {
    match crate::probe(&*volume)?.map(|filesystem| filesystem.kind) {
        Some("ext2" | "ext3" | "ext4") => crate::ext::files(volume).map(Some),
        Some("ntfs") => crate::ntfs::files(volume).map(Some),
        _ => Ok(None),
    }
}

/// Whether a name can be one: hostile volumes have others.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

/// There is no such node.
pub(crate) fn absent(node: Node) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no file of number {}", node.0))
}
