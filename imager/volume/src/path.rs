//! Finding a file by its path in a tree of folders, whatever the filesystem.

use imager_units::{Error, ErrorKind, Result};

/// More symbolic links on the way are a circle.
const MOST_LINKS: usize = 8;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
    Link,
    Other,
}

impl Kind {
    /// By the mode of an inode (`S_IFMT`).
    pub(crate) fn of_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Folder,
            0o100_000 => Self::File,
            0o120_000 => Self::Link,
            _ => Self::Other,
        }
    }
}

/// A tree of folders.
pub(crate) trait Tree {
    /// A file of any kind.
    type Node;

    fn kind(node: &Self::Node) -> Kind;

    /// The file called `name` in a folder.
    ///
    /// # Errors
    /// `Io`; `Corrupt`, `Unsupported` for what cannot be looked into.
    fn look_up(&self, folder: &Self::Node, name: &[u8]) -> Result<Option<Self::Node>>;

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// As [`look_up`](Self::look_up).
    fn link(&self, node: &Self::Node) -> Result<Vec<u8>>;
}

/// The file at `path`, symbolic links followed as if `root` were that of the system.
///
/// # Errors
/// `NotFound`; `Corrupt` when links lead in a circle; those of the tree.
pub(crate) fn find<T: Tree>(tree: &T, root: T::Node, path: &str) -> Result<T::Node> {
    let mut left = names(path.as_bytes());
    let mut way = vec![root];
    let mut links: usize = 0;
    let missing = || Error::new(ErrorKind::NotFound, format!("there is no {path}"));
    while let Some(name) = left.pop() {
        if name == b".." {
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        let folder = way.last().filter(|node| T::kind(node) == Kind::Folder).ok_or_else(missing)?;
        let node = tree.look_up(folder, &name)?.ok_or_else(missing)?;
        if T::kind(&node) != Kind::Link {
            way.push(node);
            continue;
        }
        links = links.saturating_add(1);
        if links > MOST_LINKS {
            return Err(Error::corrupt(format!("{path} leads through too many symbolic links")));
        }
        let target = tree.link(&node)?;
        if target.first() == Some(&b'/') {
            way.truncate(1);
        }
        left.extend(names(&target));
    }
    way.pop().ok_or_else(missing)
}

/// The names of a path, the last one first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect();
    names.retain(|name| !name.is_empty() && name != b".");
    names.reverse();
    names
}
