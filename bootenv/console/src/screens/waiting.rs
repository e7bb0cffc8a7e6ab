//! Waiting for an `imager` command that only looks; its end leads on.

use crate::documents::Ended;
use crate::effect::{Effect, News};
use crate::known::Known;
use crate::order::Order;
use crate::page::{Answer, Line, Page};
use crate::screen::{Next, Screen};

/// A command that runs.
pub(crate) struct Waiting {
    order: Order,
    then: fn(&Ended, &mut Known) -> Next,
    words: Vec<String>,
}

impl Waiting {
    /// Waits for `order`, then goes on with what it found.
    pub(crate) fn new(order: Order, then: fn(&Ended, &mut Known) -> Next) -> Self {
        Self { order, then, words: Vec::new() }
    }
}

impl Screen for Waiting {
    fn enter(&mut self, _known: &mut Known) -> Option<Effect> {
        Some(Effect::Run(self.order.clone()))
    }

    fn page(&self, _known: &Known) -> Page {
        let text = self.words.iter().map(Line::plain).collect();
        Page::wait(self.order.what.clone(), text, Some("give up")).command(self.order.line())
    }

    fn answer(&mut self, answer: Answer, _known: &mut Known) -> Next {
        if answer == Answer::Back { Next::Back } else { Next::Stay }
    }

    fn told(&mut self, news: News, known: &mut Known) -> Next {
        match news {
            News::Progress(progress) => self.words = progress.words(),
            News::Notice(line) => self.words = vec![line],
            News::Ended(ended) => return (self.then)(&ended, known),
            _ => {}
        }
        Next::Stay
    }
}
