//! What a request is about, read from its path as it came: nothing is decoded, so nothing can be smuggled by encoding.

use crate::repositories::check_repository;
use imager_units::{Error, ErrorKind, Result};
use netshare_store::ObjectName;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/healthz`
    Health,
    /// `/REPO`
    Repository(String),
    /// `/REPO/objects/NAME`
    Object(String, ObjectName),
    /// `/REPO/list` and `/REPO/list/FOLDER`; `""` is the whole repository.
    List(String, String),
}

impl Target {
    /// Reads a path, which starts with `/` and has neither query nor escapes.
    ///
    /// # Errors
    /// `Invalid` when it is none of the four.
    pub(crate) fn parse(path: &str) -> Result<Self> {
        let path = path.strip_prefix('/').ok_or_else(|| unknown(path))?;
        let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        if (first, rest) == ("healthz", None) {
            return Ok(Self::Health);
        }
        check_repository(first)?;
        let repository = first.to_owned();
        let Some(rest) = rest else { return Ok(Self::Repository(repository)) };
        match rest.split_once('/') {
            Some(("objects", name)) => Ok(Self::Object(repository, ObjectName::new(name)?)),
            Some(("list", folder)) => {
                ObjectName::new(folder).map(|folder| Self::List(repository, folder.as_str().to_owned()))
            }
            None if rest == "list" => Ok(Self::List(repository, String::new())),
            _ => Err(unknown(path)),
        }
    }

    /// The repository it is in.
    pub(crate) fn repository(&self) -> Option<&str> {
        match self {
            Self::Health => None,
            Self::Repository(repository) | Self::Object(repository, _) | Self::List(repository, _) => {
                Some(repository)
            }
        }
    }

    /// What is named in it, for the log.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Health | Self::Repository(_) => "",
            Self::Object(_, name) => name.as_str(),
            Self::List(_, folder) => folder,
        }
    }

    /// The methods that it knows.
    pub(crate) fn methods(&self) -> &'static str {
        match self {
            Self::Health | Self::List(..) => "GET",
            Self::Repository(_) => "GET, PUT",
            Self::Object(..) => "DELETE, GET, HEAD, PUT",
        }
    }
}

fn unknown(path: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{path:?} is no path of a share"))
}

#[cfg(test)]
mod tests {
    use super::Target;
    use netshare_store::ObjectName;
    use proptest::prelude::{prop_assert, proptest};

    #[test]
    fn the_four_shapes_of_a_path_are_known() {
        let object = |name: &str| Target::Object("r-1".to_owned(), ObjectName::new(name).unwrap());
        assert_eq!(Target::parse("/healthz").unwrap(), Target::Health);
        assert_eq!(Target::parse("/r-1").unwrap(), Target::Repository("r-1".to_owned()));
        assert_eq!(Target::parse("/r-1/objects/packs/00/x").unwrap(), object("packs/00/x"));
        assert_eq!(Target::parse("/r-1/list").unwrap(), Target::List("r-1".to_owned(), String::new()));
        assert_eq!(
            Target::parse("/r-1/list/captures/m").unwrap(),
            Target::List("r-1".to_owned(), "captures/m".to_owned())
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for path in [
            "",
            "*",
            "/",
            "//",
            "/R",
            "/-r",
            "/.netshare",
            "/r/",
            "/r/x",
            "/r/list/",
            "/r/objects",
            "/r/objects/",
            "/r//objects/a",
            "/r/objects//a",
            "/r/objects/a/",
            "/r/objects/../a",
            "/r/objects/a/../../../etc/passwd",
            "/r/objects/./a",
            "/r/objects/%2e%2e/a",
            "/r/objects/a%00",
            "/r/objects/a%2fb",
            "/r/objects/.tmp-1",
            "/r/objects/a\\b",
            "/r/objects/a;b",
            "/r/objects/nul",
            "/r/objects/\u{fc}",
            "/../r/objects/a",
        ] {
            assert!(Target::parse(path).is_err(), "{path}");
        }
        assert!(Target::parse(&format!("/{}", "r".repeat(64))).is_err());
    }

    proptest! {
        #[test]
        fn no_path_panics_or_leads_outside(path in "/[a-z/.%]{0,24}") {
            if let Ok(target) = Target::parse(&path) {
                prop_assert!(!target.name().contains("..") && !path.contains('%'));
            }
        }
    }
}
