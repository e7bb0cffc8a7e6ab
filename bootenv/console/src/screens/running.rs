//! An operation under way: how far it is, and stopping it, which is asked.

use super::busy::Busy;
use super::done;
use crate::documents::{Ended, Progress};
use crate::effect::{Effect, News};
use crate::known::Known;
use crate::order::Order;
use crate::page::{Answer, Ask, Item, Line, Page};
use crate::screen::{Next, Screen};

/// So many of the last notices are shown.
const NOTICES: usize = 8;

/// The operation.
pub(crate) struct Running {
    order: Order,
    stopping: &'static str,
    then: fn(&Ended, &mut Known) -> Next,
    progress: Option<Progress>,
    notices: Vec<String>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    /// It works on, while a person is asked.
    Asks,
    Stops,
}

impl Running {
    /// A restore.
    pub(crate) fn restore(order: Order) -> Self {
        let stopping = "The target is incomplete then: do not start it until the restore was run again.";
        Self::new(order, stopping, done::restored)
    }

    /// A capture.
    pub(crate) fn capture(order: Order) -> Self {
        let stopping = "There is no capture then; what was stored already is used by the next one.";
        Self::new(order, stopping, done::captured)
    }

    fn new(order: Order, stopping: &'static str, then: fn(&Ended, &mut Known) -> Next) -> Self {
        Self { order, stopping, then, progress: None, notices: Vec::new(), state: State::Works }
    }

    fn text(&self) -> Vec<Line> {
        let mut text = Vec::new();
        match &self.progress {
            Some(progress) => text.extend(progress.words().into_iter().map(Line::plain)),
            None => text.push(Line::plain("It has begun.")),
        }
        let skipped = self.notices.len().saturating_sub(NOTICES);
        text.extend(self.notices.iter().skip(skipped).map(|notice| Line::quiet(notice.clone())));
        text
    }
}

impl Screen for Running {
    fn enter(&mut self, _known: &mut Known) -> Option<Effect> {
        Some(Effect::Run(self.order.clone()))
    }

    fn page(&self, _known: &Known) -> Page {
        let mut text = self.text();
        let title = format!("Under way: {}", self.order.what);
        let page = match self.state {
            State::Works => Page::wait(title, text, Some("stop it")),
            State::Stops => {
                text.push(Line::strong("It is being stopped."));
                Page::wait(title, text, None)
            }
            State::Asks => {
                text.push(Line::bad(self.stopping));
                let items = vec![Item::new("Let it go on"), Item::new("Stop it")];
                return Page::choose("Stop it?", text, items).command(self.order.line());
            }
        };
        let done = self.progress.as_ref().and_then(|progress| Some((progress.done, progress.total?)));
        let stop = match page.ask {
            Ask::Wait { stop, .. } => stop,
            _ => None,
        };
        Page { ask: Ask::Wait { stop, done }, ..page }.command(self.order.line())
    }

    fn answer(&mut self, answer: Answer, _known: &mut Known) -> Next {
        match (self.state, answer) {
            (State::Works, Answer::Back) => self.state = State::Asks,
            (State::Asks, Answer::Pick(1)) => {
                self.state = State::Stops;
                return Next::Do(Effect::Stop);
            }
            (State::Asks, Answer::Pick(0) | Answer::Back) => self.state = State::Works,
            _ => {}
        }
        Next::Stay
    }

    fn told(&mut self, news: News, known: &mut Known) -> Next {
        match news {
            News::Progress(progress) => self.progress = Some(progress),
            News::Notice(line) => self.notices.push(line),
            News::Ended(ended) => return (self.then)(&ended, known),
            News::Busy(_) => return Next::instead(Busy::default()),
            _ => {}
        }
        Next::Stay
    }
}
