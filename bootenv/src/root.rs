//! A folder that unpacked packages share, seen as the root of a filesystem: absolute links stay inside.

use imager_units::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many links may follow each other, as in the kernel.
const MAX_LINKS: usize = 40;

/// The folder.
#[derive(Clone, Debug)]
pub struct Root {
    folder: PathBuf,
}

impl Root {
    /// The root in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The path on this machine of one inside, links not followed.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.folder.join(relative(inside.as_ref()))
    }

    /// The file that a path inside leads to in the end, `None` if there is none.
    ///
    /// # Errors
    /// When links lead in a circle.
    pub fn resolve(&self, inside: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let mut left: Vec<OsString> = parts(inside.as_ref());
        left.reverse();
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let Ok(link) = fs::read_link(self.folder.join(&at).join(&part)) else {
                at.push(part);
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                let path = inside.as_ref().display();
                return Err(Error::new(ErrorKind::Corrupt, format!("links of {path} lead in a circle")));
            }
            if link.is_absolute() {
                at.clear();
            }
            left.extend(parts(&link).into_iter().rev());
        }
        let path = self.folder.join(at);
        Ok(path.exists().then_some(path))
    }
}

/// A path inside without its leading slash.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::Root;
    use std::os::unix::fs::symlink;

    #[test]
    fn absolute_and_relative_links_stay_inside_and_circles_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        std::fs::create_dir_all(root.path("/usr/lib")).unwrap();
        std::fs::write(root.path("usr/lib/real"), "x").unwrap();
        symlink("usr/lib", root.path("lib")).unwrap();
        symlink("/lib/real", root.path("usr/lib/absolute")).unwrap();
        symlink("../../../lib/real", root.path("usr/lib/up")).unwrap();
        symlink("/round", root.path("round")).unwrap();
        for name in ["/lib/absolute", "usr/lib/up", "/lib/real"] {
            assert_eq!(root.resolve(name).unwrap(), Some(root.path("usr/lib/real")), "{name}");
        }
        assert_eq!(root.resolve("/lib/none").unwrap(), None);
        assert!(root.resolve("round").is_err());
    }
}
