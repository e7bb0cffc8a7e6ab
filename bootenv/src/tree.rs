//! What an archive is to hold: folders, files, links by path. Parents come by themselves; there are no owners and no
//! times, because all is root's and of no time.

use imager_units::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder with these permissions.
    Folder(u32),
    /// A file with these permissions.
    File(u32, Source),
    /// A symbolic link.
    Link(String),
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// These.
    Bytes(Vec<u8>),
    /// A file of this machine.
    Path(PathBuf),
}

/// Nodes by path, without a leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Puts a node at a path, and folders above it where there are none.
    ///
    /// # Errors
    /// When something else is there, or above it is no folder.
    pub fn add(&mut self, path: &str, node: Node) -> Result<()> {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let above = path.get(..end).unwrap_or_default();
            match self.nodes.entry(above.to_owned()).or_insert(Node::Folder(0o755)) {
                Node::Folder(_) => {}
                _ => {
                    return Err(Error::new(
                        ErrorKind::Exists,
                        format!("{above} is no folder, but {path} is in it"),
                    ));
                }
            }
        }
        match self.nodes.insert(path.to_owned(), node.clone()) {
            Some(before)
                if before != node && !matches!((&before, &node), (Node::Folder(_), Node::Folder(_))) =>
            {
                Err(Error::new(ErrorKind::Exists, format!("{path} is there twice")))
            }
            _ => Ok(()),
        }
    }

    /// A file of text.
    ///
    /// # Errors
    /// As for [`Tree::add`].
    pub fn text(&mut self, path: &str, mode: u32, text: impl Into<Vec<u8>>) -> Result<()> {
        self.add(path, Node::File(mode, Source::Bytes(text.into())))
    }

    /// A file of this machine.
    ///
    /// # Errors
    /// As for [`Tree::add`].
    pub fn file(&mut self, path: &str, mode: u32, from: impl Into<PathBuf>) -> Result<()> {
        self.add(path, Node::File(mode, Source::Path(from.into())))
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// As for [`Tree::add`].
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.add(path, Node::Link(to.to_owned()))
    }

    /// Whether something is at this path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path.trim_matches('/'))
    }

    /// All nodes, each after the folder that it is in.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }
}

#[cfg(test)]
mod tests {
    use super::{Node, Tree};

    #[test]
    fn parents_come_first_and_nothing_is_there_twice() {
        let mut tree = Tree::default();
        tree.text("/a/b/c", 0o644, "x").unwrap();
        tree.add("a/b", Node::Folder(0o700)).unwrap();
        tree.link("a-b", "a").unwrap();
        let paths: Vec<_> = tree.nodes().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a", "a-b", "a/b", "a/b/c"]);
        assert!(tree.has("/a/b") && !tree.has("b"));
        assert!(tree.text("a/b/c", 0o644, "y").is_err());
        assert!(tree.text("a-b/c", 0o644, "y").is_err());
    }
}
