//! Something to read.

use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::screen::{Next, Screen, Step};

/// A text.
pub(crate) struct Reading {
    title: String,
    text: Vec<Line>,
}

impl Reading {
    /// A text with a title.
    pub(crate) fn new(title: &str, text: Vec<Line>) -> Self {
        Self { title: title.to_owned(), text }
    }
}

impl Screen for Reading {
    fn page(&self, _known: &Known) -> Page {
        Page::choose(self.title.clone(), self.text.clone(), vec![Item::new("Back"), Item::new("Main menu")])
    }

    fn answer(&mut self, answer: Answer, _known: &mut Known) -> Next {
        if answer == Answer::Pick(1) { Next::BackTo(Step::Menu) } else { Next::Back }
    }
}
