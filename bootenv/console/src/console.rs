//! The console's states, whoever does what they ask for, and the news between them.

use crate::app::{App, Ticket};
use crate::effect::{Effect, News};
use crate::engine::{Engine, Means};
use crate::known::Known;
use crate::page::{Answer, Page};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// What the terminal has to do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing.
    Show,
    /// Give itself to a shell.
    Shell,
    /// End.
    Leave,
}

/// The console without a terminal.
pub(crate) struct Console {
    app: App,
    engine: Engine,
    news: Receiver<(Ticket, News)>,
}

impl Console {
    /// At its menu.
    pub(crate) fn new(known: Known, means: Means) -> Self {
        let (mut engine, news) = Engine::new(means);
        let (app, first) = App::new(known);
        if let Some((ticket, effect)) = first {
            engine.begin(ticket, effect);
        }
        Self { app, engine, news }
    }

    /// What is shown.
    pub(crate) fn page(&self) -> Page {
        self.app.page()
    }

    /// Which screen it is, of all that were shown.
    pub(crate) fn turns(&self) -> u64 {
        self.app.turns()
    }

    /// Whether news are to be expected.
    pub(crate) fn is_working(&self) -> bool {
        self.app.is_working()
    }

    /// Takes an answer.
    pub(crate) fn answer(&mut self, answer: Answer) -> Turn {
        let effect = self.app.answer(answer);
        self.perform(effect)
    }

    /// Takes the news there are, waiting so long for the first.
    pub(crate) fn catch_up(&mut self, patience: Duration) -> Turn {
        let mut next = self.news.recv_timeout(patience).ok();
        while let Some((ticket, news)) = next {
            let effect = self.app.told(ticket, news);
            let turn = self.perform(effect);
            if turn != Turn::Show {
                return turn;
            }
            next = self.news.try_recv().ok();
        }
        Turn::Show
    }

    fn perform(&mut self, effect: Option<(Ticket, Effect)>) -> Turn {
        match effect {
            Some((_, Effect::Shell)) => return Turn::Shell,
            Some((_, Effect::Leave)) => return Turn::Leave,
            Some((ticket, effect)) => self.engine.begin(ticket, effect),
            None => {}
        }
        Turn::Show
    }

    /// Waits for what runs.
    pub(crate) fn finish(self) {
        self.engine.finish();
    }
}
