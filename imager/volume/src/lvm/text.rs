//! The text of a volume group's metadata: nested sections of `key = value`, as libdm's configuration parser reads it
//! (lvm2, libdm/libdm-config.c).
//!
//! Stricter than that parser: a key or section that comes twice is refused, because which one counts is a matter of
//! implementation, and a map must not depend on it.

use imager_units::{Error, Result};

/// How deep sections may lie in each other; LVM itself needs four levels.
const MOST_DEPTH: usize = 8;

/// What a key has.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
}

/// What stands between two braces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Section {
    values: Vec<(String, Value)>,
    sections: Vec<(String, Section)>,
}

impl Section {
    /// The sections in it, with their names, in order.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.sections.iter().map(|(name, section)| (name.as_str(), section))
    }

    /// The section of that name.
    pub(super) fn section(&self, name: &str) -> Option<&Self> {
        self.sections().find(|(found, _)| *found == name).map(|(_, section)| section)
    }

    /// All values with their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.values().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// The number that `key` has, which cannot be negative.
    ///
    /// # Errors
    /// `Corrupt` when there is none.
    pub(super) fn number(&self, key: &str) -> Result<u64> {
        match self.value(key) {
            Some(Value::Number(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
        .ok_or_else(|| Error::corrupt(format!("its metadata has no number {key:?} where there must be one")))
    }

    /// The text that `key` has.
    ///
    /// # Errors
    /// `Corrupt` when there is none.
    pub(super) fn text(&self, key: &str) -> Result<&str> {
        self.optional_text(key).ok_or_else(|| {
            Error::corrupt(format!("its metadata has no text {key:?} where there must be one"))
        })
    }

    /// The text that `key` has, if it has one.
    pub(super) fn optional_text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The list that `key` has; LVM writes one of a single element as a list too.
    ///
    /// # Errors
    /// `Corrupt` when there is none.
    pub(super) fn list(&self, key: &str) -> Result<&[Value]> {
        match self.value(key) {
            Some(Value::List(list)) => Ok(list),
            _ => Err(Error::corrupt(format!("its metadata has no list {key:?} where there must be one"))),
        }
    }

    /// The words of the list that `key` has.
    ///
    /// # Errors
    /// `Corrupt` when there is no list, or something else in it.
    pub(super) fn words(&self, key: &str) -> Result<Vec<&str>> {
        let mut words = Vec::new();
        for value in self.list(key)? {
            let Value::Text(text) = value else {
                return Err(Error::corrupt(format!(
                    "the list {key:?} of its metadata holds more than words"
                )));
            };
            words.push(text.as_str());
        }
        Ok(words)
    }
}

/// Reads a whole text.
///
/// # Errors
/// `Corrupt` when it is not one.
pub(super) fn parse(text: &str) -> Result<Section> {
    let mut parser = Parser { rest: text };
    let section = parser.section(0)?;
    match parser.next() {
        None => Ok(section),
        Some(_) => Err(malformed("a closing brace too many")),
    }
}

fn malformed(what: &str) -> Error {
    Error::corrupt(format!("its metadata is no metadata: {what}"))
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// What stands up to the closing brace (which is left) or the end.
    fn section(&mut self, depth: usize) -> Result<Section> {
        let mut section = Section::default();
        loop {
            match self.next() {
                None if depth == 0 => return Ok(section),
                None => return Err(malformed("a section without an end")),
                Some('}') => return Ok(section),
                Some(_) => {}
            }
            let name = self.name()?;
            match self.next() {
                Some('{') if depth < MOST_DEPTH => {
                    self.skip();
                    let inner = self.section(depth.saturating_add(1))?;
                    self.expect('}')?;
                    section.sections.push((name, inner));
                }
                Some('=') => {
                    self.skip();
                    let value = self.value()?;
                    section.values.push((name, value));
                }
                _ => return Err(malformed("a name without a value")),
            }
        }
    }

    fn name(&mut self) -> Result<String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        match self.rest.split_at_checked(end) {
            Some((name, rest)) if !name.is_empty() => {
                self.rest = rest;
                Ok(name.to_owned())
            }
            _ => Err(malformed("a name of odd characters")),
        }
    }

    fn value(&mut self) -> Result<Value> {
        if self.next() != Some('[') {
            return self.single();
        }
        self.skip();
        let mut list = Vec::new();
        loop {
            if self.next() == Some(']') {
                self.skip();
                return Ok(Value::List(list));
            }
            list.push(self.single()?);
            match self.next() {
                Some(',') => self.skip(),
                Some(']') => {}
                _ => return Err(malformed("a list without an end")),
            }
        }
    }

    fn single(&mut self) -> Result<Value> {
        match self.next() {
            Some('"') => {
                self.skip();
                self.quoted().map(Value::Text)
            }
            _ => self.number().map(Value::Number),
        }
    }

    /// The text up to the closing quotation mark; `\` takes the next character as it is.
    fn quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next() {
                Some('"') => break,
                Some('\\') => text.extend(characters.next()),
                Some(other) => text.push(other),
                None => return Err(malformed("a text without an end")),
            }
        }
        self.rest = characters.as_str();
        Ok(text)
    }

    fn number(&mut self) -> Result<i64> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        self.rest = rest;
        digits.parse().map_err(|_| malformed("a number of odd characters"))
    }

    /// The next character that is neither blank nor in a comment; it is left.
    fn next(&mut self) -> Option<char> {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.chars().next()? {
                '#' => self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest),
                other => return Some(other),
            }
        }
    }

    fn skip(&mut self) {
        let mut characters = self.rest.chars();
        characters.next();
        self.rest = characters.as_str();
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if self.next() != Some(wanted) {
            return Err(malformed("a section without an end"));
        }
        self.skip();
        Ok(())
    }
}

/// Refuses keys and sections that come twice, everywhere.
pub(super) fn check_unique(section: &Section) -> Result<()> {
    let mut names: Vec<&str> = section.values().map(|(key, _)| key).collect();
    names.extend(section.sections().map(|(name, _)| name));
    names.sort_unstable();
    if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err(malformed("a name that comes twice"));
    }
    section.sections().try_for_each(|(_, inner)| check_unique(inner))
}

#[cfg(test)]
mod tests {
    use super::{Value, check_unique, parse};

    #[test]
    fn sections_values_lists_and_comments_are_read() {
        let text = "# one\nvg {\n id = \"a\\\"b\" # two\n n = -5 list = [\"x\", 3,\n\"}\"] empty=[]\n in { } }\nversion = 1\n";
        let section = parse(text).unwrap();
        let vg = section.section("vg").unwrap();
        assert_eq!(vg.text("id").unwrap(), "a\"b");
        assert!(vg.number("n").is_err() && vg.number("id").is_err());
        let list = [Value::Text("x".into()), Value::Number(3), Value::Text("}".into())];
        assert_eq!(vg.list("list").unwrap(), list);
        assert!(vg.words("list").is_err());
        assert_eq!(vg.words("empty").unwrap(), Vec::<&str>::new());
        assert!(vg.section("in").is_some());
        assert_eq!(section.number("version").unwrap(), 1);
    }

    #[test]
    fn what_is_cut_off_or_malformed_is_refused() {
        for text in [
            "a {",
            "a { b = [1",
            "a = \"x",
            "a = ",
            "a",
            "}",
            "a { } }",
            "= 3",
            "a = 1-1",
            "a = 99999999999999999999",
            "a = [1 2]",
            "a = 0x1",
            "ä = 1",
            "a = \"x\\",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"a{".repeat(100_000)).is_err(), "deep nesting does not overflow the stack");
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        for text in ["a = 1 a = 2", "a { } a { }", "a = 1 a { }", "b { a = 1 a = 1 }"] {
            assert!(check_unique(&parse(text).unwrap()).is_err(), "{text}");
        }
        assert!(check_unique(&parse("a = 1 b { a = 1 }").unwrap()).is_ok());
    }
}
