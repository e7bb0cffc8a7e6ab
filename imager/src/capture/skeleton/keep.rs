//! Which files of a data volume are in its skeleton all the same.
//!
//! A pattern is of bytes and about the path below the volume's root: `*` and `?` stand for anything but `/`, `**` for
//! anything, `[…]` for one of some, a backslash takes the meaning from what follows.

use std::os::unix::ffi::OsStrExt;

/// How much of files there is in a skeleton at most.
pub(super) const MOST_BYTES: u64 = 16 << 20;
/// How many there are.
pub(super) const MOST_FILES: u64 = 65_536;

/// Patterns, and whether anything was found by them.
pub(super) struct Keep {
    patterns: Vec<(String, bool)>,
}

impl Keep {
    pub(super) fn new(patterns: &[String]) -> Self {
        Self { patterns: patterns.iter().map(|pattern| (pattern.clone(), false)).collect() }
    }

    /// Whether a file is kept.
    pub(super) fn has(&mut self, path: &std::path::Path) -> bool {
        let mut is_kept = false;
        for (pattern, found) in &mut self.patterns {
            if matches(pattern.trim_start_matches('/').as_bytes(), path.as_os_str().as_bytes()) {
                (is_kept, *found) = (true, true);
            }
        }
        is_kept
    }

    /// What a person should know.
    pub(super) fn unmatched(&self) -> impl Iterator<Item = String> {
        let unmatched = self.patterns.iter().filter(|(_, found)| !found);
        unmatched.map(|(pattern, _)| format!("no file is kept by the pattern {pattern:?}: none is called so"))
    }
}

/// Whether the whole of `text` is as the pattern says.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            // Folders, or none.
            matches(rest, text) || tails(text).any(|(before, tail)| before == b'/' && matches(rest, tail))
        }
        [b'*', b'*', rest @ ..] => matches(rest, text) || tails(text).any(|(_, tail)| matches(rest, tail)),
        [b'*', rest @ ..] => {
            let inside = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=inside).any(|at| text.get(at..).is_some_and(|tail| matches(rest, tail)))
        }
        [b'?', rest @ ..] => matches!(text, [byte, tail @ ..] if *byte != b'/' && matches(rest, tail)),
        [b'[', rest @ ..] => match (set(rest), text) {
            (Some((has, rest)), [byte, tail @ ..]) => *byte != b'/' && has(*byte) && matches(rest, tail),
            (Some(_), []) => false,
            (None, _) => matches!(text, [b'[', tail @ ..] if matches(rest, tail)),
        },
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
            matches!(text, [first, tail @ ..] if first == byte && matches(rest, tail))
        }
    }
}

/// What follows each byte of a text, with that byte.
fn tails(text: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    (0..text.len()).filter_map(|at| Some((*text.get(at)?, text.get(at + 1..)?)))
}

/// A set of bytes up to its `]`, and what follows.
fn set(pattern: &[u8]) -> Option<(impl Fn(u8) -> bool, &[u8])> {
    let (is_negated, body) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    // A bracket that comes first is one of them.
    let end = body.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let (members, rest) = (body.get(..end)?, body.get(end + 1..)?);
    let has = move |byte: u8| {
        let mut at = members;
        let mut found = false;
        while let Some((&first, behind)) = at.split_first() {
            (found, at) = match behind {
                [b'-', last, rest @ ..] => (found || (first..=*last).contains(&byte), rest),
                rest => (found || first == byte, rest),
            };
        }
        found != is_negated
    };
    Some((has, rest))
}

#[cfg(test)]
mod tests {
    use super::{Keep, matches};
    use std::path::Path;

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, text) in [
            ("a/*.conf", "a/b.conf"),
            ("**/pg_control", "base/global/pg_control"),
            ("**/pg_control", "pg_control"),
            ("pg/**", "pg/a/b"),
            ("a?c", "abc"),
            ("[a-c]x[!0-9]", "bxz"),
            ("\\*", "*"),
            ("[]]", "]"),
            ("a[", "a["),
        ] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("*.conf", "a/b.conf"),
            ("a?c", "a/c"),
            ("pg_control", "x/pg_control"),
            ("**/b", "ab"),
            ("[!a]", "a"),
            ("[a-c]", "/"),
            ("a", ""),
            ("", "a"),
        ] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        assert!(matches(b"\xFF*", b"\xFF\xFE\n"));
    }

    #[test]
    fn a_pattern_by_which_nothing_is_found_is_named() {
        let mut keep = Keep::new(&["/etc/*".to_owned(), "none".to_owned()]);
        assert!(keep.has(Path::new("etc/x")) && !keep.has(Path::new("x")));
        assert_eq!(keep.unmatched().count(), 1);
    }
}
