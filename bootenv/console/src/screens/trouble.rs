//! Something failed: what it was, what `imager` advises, and what can be done about it. There is always something.

use crate::documents::{Failure, WRONG_SECRET};
use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::screen::{Next, Screen};

/// What a person may do about it, and where that leads.
pub(crate) struct Fix {
    text: String,
    next: Box<dyn Fn(&mut Known) -> Next>,
}

impl Fix {
    /// A way on.
    pub(crate) fn new(text: impl Into<String>, next: impl Fn(&mut Known) -> Next + 'static) -> Self {
        Self { text: text.into(), next: Box::new(next) }
    }
}

/// The failure.
pub(crate) struct Trouble {
    title: String,
    text: Vec<Line>,
    fixes: Vec<Fix>,
    command: Option<String>,
}

impl Trouble {
    /// A failed command, and what can be done.
    pub(crate) fn new(title: &str, failure: &Failure, fixes: Vec<Fix>) -> Self {
        let mut text = vec![Line::bad(failure.message.clone())];
        // That advice is about variables, which are set from what is typed here.
        if failure.code != Some(WRONG_SECRET)
            && !failure.advice.is_empty()
            && failure.advice != "see imager --help"
        {
            text.push(Line::gap());
            text.push(Line::plain(failure.advice.clone()));
        }
        Self { title: title.to_owned(), text, fixes, command: None }
    }

    /// The same with one more line.
    pub(crate) fn saying(mut self, line: Line) -> Self {
        self.text.push(Line::gap());
        self.text.push(line);
        self
    }

    /// The same with the command that failed.
    pub(crate) fn command(self, command: String) -> Self {
        Self { command: Some(command), ..self }
    }
}

impl Screen for Trouble {
    fn page(&self, _known: &Known) -> Page {
        let items = self.fixes.iter().map(|fix| Item::new(fix.text.clone())).collect();
        let page = Page::choose(self.title.clone(), self.text.clone(), items);
        Page { command: self.command.clone(), ..page }
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        self.fixes.get(index).map_or(Next::Stay, |fix| (fix.next)(known))
    }
}
