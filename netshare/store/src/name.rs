//! The names of objects.
//!
//! The grammar is the part that every kind of share takes literally: no name can leave the repository (`..`), hide
//! (`.x`), mean a device to Windows (`nul`), or change on the way (a dot at the end is dropped over SMB).

use imager_units::{Error, ErrorKind, Result};
use std::fmt;

const NAME_BYTES_MAX: usize = 255;
const SEGMENT_BYTES_MAX: usize = 100;
pub(crate) const LEVELS_MAX: usize = 4;

/// What Windows takes for a device, whatever follows behind a dot.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// One to four segments with `/` between them, each of 1 to 100 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks a name.
    ///
    /// # Errors
    /// `Invalid` when it is not of the grammar.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let well_formed = name.len() <= NAME_BYTES_MAX
            && name.split('/').count() <= LEVELS_MAX
            && name.split('/').all(is_segment);
        if well_formed {
            return Ok(Self(name));
        }
        Err(Error::new(ErrorKind::Invalid, format!("{name:?} is no name for an object")))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, outermost first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the name lies below `folder` (at any depth); everything lies below the empty one.
    pub fn is_below(&self, folder: &str) -> bool {
        folder.is_empty() || self.0.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Checks the name of a folder: as an object's, or empty for the whole share.
pub(crate) fn check_folder(folder: &str) -> Result<()> {
    if folder.is_empty() { Ok(()) } else { ObjectName::new(folder).map(drop) }
}

pub(crate) fn is_segment(segment: &str) -> bool {
    (1..=SEGMENT_BYTES_MAX).contains(&segment.len())
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !segment.starts_with('.')
        && !segment.ends_with('.')
        && !is_device(segment)
}

fn is_device(segment: &str) -> bool {
    let stem = segment.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered = stem.strip_suffix(|last: char| last.is_ascii_digit());
    DEVICES[..4].contains(&stem.as_str()) || numbered.is_some_and(|stem| DEVICES[4..].contains(&stem))
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for ObjectName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ObjectName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::ObjectName;
    use proptest::prelude::proptest;
    use std::path::{Component, Path};

    #[test]
    fn the_repositorys_names_are_of_the_grammar() {
        for name in [
            "halfhour.json",
            "RESTORE.txt",
            "captures/db-01/20261121T031500Z-0a1b2c3d",
            "packs/7f/7f00",
            "checks/0a1b/read.data/x_y",
            "console/community",
        ] {
            assert_eq!(ObjectName::new(name).unwrap().as_str(), name);
        }
        assert!(ObjectName::new("a".repeat(100)).is_ok());
    }

    #[test]
    fn what_a_share_might_misunderstand_is_refused() {
        let long = "a".repeat(101);
        for name in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "a/.tmp",
            ".a",
            "a b",
            "a\\b",
            "a:b",
            "ü",
            "a\0",
            "a.",
            "a/b/c/d/e",
            "nul",
            "NUL.txt",
            "com1",
            "a/Lpt9.x",
            &long,
        ] {
            assert!(ObjectName::new(name).is_err(), "{name:?}");
        }
        let total = ["a".repeat(90), "b".repeat(90), "c".repeat(90)].join("/");
        assert!(ObjectName::new(total).is_err());
    }

    #[test]
    fn folders_end_at_a_slash() {
        let name = ObjectName::new("packs/7f/x").unwrap();
        assert!(name.is_below("") && name.is_below("packs") && name.is_below("packs/7f"));
        assert!(!name.is_below("pack") && !name.is_below("packs/7f/x"));
        assert_eq!(name.leaf(), "x");
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_a_folder(name in "[./a-c\\\\]{0,12}") {
            if let Ok(name) = ObjectName::new(name) {
                assert!(Path::new(name.as_str()).components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
