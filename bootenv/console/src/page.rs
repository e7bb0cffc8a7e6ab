//! What a screen shows and asks, without a word about how: the full screen and the plain lines both draw it.

/// How a line is meant. Colour never carries it alone: a warning says that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// What matters most.
    Strong,
    /// What should make a person stop and think.
    Warning,
    /// What only helps.
    Quiet,
}

/// A paragraph; it is wrapped to the width there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The words.
    pub(crate) text: String,
    /// How they are meant.
    pub(crate) tone: Tone,
}

impl Line {
    /// An ordinary line.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    /// An empty line.
    pub(crate) fn gap() -> Self {
        Self::plain("")
    }

    /// A line that matters.
    pub(crate) fn strong(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Strong }
    }

    /// A warning; it says so.
    pub(crate) fn warning(text: impl AsRef<str>) -> Self {
        Self { text: format!("warning: {}", text.as_ref()), tone: Tone::Warning }
    }

    /// Something that went wrong, in its own words.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Warning }
    }

    /// A hint.
    pub(crate) fn quiet(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Quiet }
    }
}

/// Something to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// What it is.
    pub(crate) text: String,
    /// More about it, on a line of its own.
    pub(crate) detail: String,
    /// Why it cannot be chosen.
    pub(crate) refused: Option<String>,
}

impl Item {
    /// Something to choose.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), detail: String::new(), refused: None }
    }

    /// The same with more about it.
    pub(crate) fn with(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// The same, not to be chosen if there is a reason.
    pub(crate) fn refused(self, why: Option<String>) -> Self {
        Self { refused: why, ..self }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// One of these.
    Choose {
        /// What there is.
        items: Vec<Item>,
        /// Where the cursor is at first.
        first: usize,
    },
    /// A text.
    Type {
        /// What it is.
        label: String,
        /// What it is so far; Enter alone keeps it.
        value: String,
        /// Whether it stays invisible.
        secret: bool,
    },
    /// Nothing: something goes on.
    Wait {
        /// What Esc does, where it does anything.
        stop: Option<&'static str>,
        /// How much of how much is done.
        done: Option<(u64, u64)>,
    },
}

/// A screen's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Where one is.
    pub(crate) title: String,
    /// What there is to know.
    pub(crate) text: Vec<Line>,
    /// What is asked.
    pub(crate) ask: Ask,
    /// The command that does the same at the shell.
    pub(crate) command: Option<String>,
}

impl Page {
    /// A page that asks for one of some things.
    pub(crate) fn choose(title: impl Into<String>, text: Vec<Line>, items: Vec<Item>) -> Self {
        // The cursor begins where Enter does something.
        let first = items.iter().position(|item| item.refused.is_none()).unwrap_or(0);
        Self { title: title.into(), text, ask: Ask::Choose { items, first }, command: None }
    }

    /// A page that asks for a text.
    pub(crate) fn question(title: impl Into<String>, text: Vec<Line>, label: &str, value: &str) -> Self {
        let ask = Ask::Type { label: label.to_owned(), value: value.to_owned(), secret: false };
        Self { title: title.into(), text, ask, command: None }
    }

    /// A page that waits.
    pub(crate) fn wait(title: impl Into<String>, text: Vec<Line>, stop: Option<&'static str>) -> Self {
        Self { title: title.into(), text, ask: Ask::Wait { stop, done: None }, command: None }
    }

    /// The same with the command that does it.
    pub(crate) fn command(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }

    /// The same, fit for a terminal: what disks and servers wrote must not steer it. `ascii` where it knows no more.
    pub(crate) fn printable(mut self, ascii: bool) -> Self {
        let clean = |text: &mut String| *text = printable(text, ascii);
        clean(&mut self.title);
        self.text.iter_mut().for_each(|line| clean(&mut line.text));
        self.command.iter_mut().for_each(clean);
        match &mut self.ask {
            Ask::Choose { items, .. } => {
                for item in items {
                    clean(&mut item.text);
                    clean(&mut item.detail);
                    item.refused.iter_mut().for_each(clean);
                }
            }
            // What was typed is what will be used: it is shown printable, but kept.
            Ask::Type { label, .. } => clean(label),
            Ask::Wait { .. } => {}
        }
        self
    }
}

/// Text without control characters, and without what is not ASCII where the terminal knows only that.
pub(crate) fn printable(text: &str, ascii: bool) -> String {
    let fit = |letter: char| match letter {
        '\t' => ' ',
        _ if letter.is_control() || (ascii && !letter.is_ascii()) => '?',
        _ => letter,
    };
    text.chars().map(fit).collect()
}

/// What a person answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The item of this index.
    Pick(usize),
    /// This text.
    Typed(String),
    /// The screen before.
    Back,
}

#[cfg(test)]
mod tests {
    use super::{Ask, Item, Line, Page, printable};

    #[test]
    fn what_a_disk_wrote_does_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\tc\u{9b}d", false), "a?[2Jb c?d");
        assert_eq!(printable("größe", true), "gr??e");
        let items = vec![Item::new("label \u{7}").with("\r\n").refused(Some("\u{1b}c".to_owned()))];
        let page =
            Page::choose("t\u{8}", vec![Line::plain("\u{1b}")], items).command("\u{1b}").printable(false);
        assert!(!format!("{page:?}").contains("\\u{"), "{page:?}");
    }

    #[test]
    fn the_cursor_begins_where_something_can_be_chosen() {
        let items = vec![Item::new("small").refused(Some("too small".to_owned())), Item::new("large")];
        let page = Page::choose("disks", Vec::new(), items);
        assert!(matches!(page.ask, Ask::Choose { first: 1, .. }));
    }
}
