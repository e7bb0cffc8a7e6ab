//! An `imager` command to be run, and how a person would type it.

use crate::share::Share;

/// Whether a command may run beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It only looks.
    Looks,
    /// It writes a disk or a share: one at a time.
    Works,
}

/// An `imager` command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// What it does, for whoever waits for it.
    pub(crate) what: String,
    /// Its words.
    pub(crate) words: Vec<String>,
    /// The share it uses.
    pub(crate) share: Option<Share>,
    /// Whether it may run beside others.
    pub(crate) presence: Presence,
}

impl Order {
    /// A command that only looks.
    pub(crate) fn look(what: &str, words: &[&str], share: Option<&Share>) -> Self {
        let words = words.iter().map(ToString::to_string).collect();
        Self { what: what.to_owned(), words, share: share.cloned(), presence: Presence::Looks }
    }

    /// A command that writes.
    pub(crate) fn work(what: String, words: Vec<String>, share: &Share) -> Self {
        Self { what, words, share: Some(share.clone()), presence: Presence::Works }
    }

    /// The words, with the repository.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let repo = self.share.iter().flat_map(|share| ["--repo".to_owned(), share.place().to_owned()]);
        self.words.iter().cloned().chain(repo).collect()
    }

    /// As a person would type it.
    pub(crate) fn line(&self) -> String {
        let words = self.arguments();
        let words = words.iter().map(|word| quoted(word));
        std::iter::once("imager".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// A word as the shell takes it.
fn quoted(word: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@,+%".contains(letter);
    if !word.is_empty() && word.chars().all(is_bare) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::Order;
    use crate::share::{Field, Kind, Share};

    #[test]
    fn the_line_is_what_the_shell_takes_and_tells_no_secret() {
        let mut share = Share::default();
        share.set_place(Kind::Https, "https://h:1/d#ab").expect("right");
        share.set(Field::Token, "hush");
        let order = Order::look("", &["restore", "id:1", "--to", "serial:it's X"], Some(&share));
        assert_eq!(order.line(), r"imager restore id:1 --to 'serial:it'\''s X' --repo 'https://h:1/d#ab'");
        assert!(!format!("{order:?}").contains("hush"));
    }
}
