//! A screen as a state: it shows a page, and an answer or news says what comes next. Nothing here draws or runs anything.

use crate::effect::{Effect, News};
use crate::known::Known;
use crate::page::{Answer, Page};

/// Where one is on the way, to come back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The main menu.
    Menu,
    /// Which kind of share.
    Kind,
    /// What was asked for to open it.
    Field,
    /// Which point in time.
    Moment,
    /// What is put back.
    Scope,
    /// Onto which disk.
    Target,
    /// Whose capture is made.
    Name,
    /// Anywhere else.
    Other,
}

/// What comes next.
pub(crate) enum Next {
    /// The same screen.
    Stay,
    /// The same screen, asked anew.
    Anew,
    /// The same screen, while something is done.
    Do(Effect),
    /// Another screen, from which one comes back here.
    Go(Box<dyn Screen>),
    /// Another screen in place of this one.
    Instead(Box<dyn Screen>),
    /// The screen before.
    Back,
    /// The last screen of that step, or the menu.
    BackTo(Step),
}

impl Next {
    /// Another screen.
    pub(crate) fn go(screen: impl Screen + 'static) -> Self {
        Self::Go(Box::new(screen))
    }

    /// Another screen in place of this one.
    pub(crate) fn instead(screen: impl Screen + 'static) -> Self {
        Self::Instead(Box::new(screen))
    }
}

/// A state of the console.
pub(crate) trait Screen {
    /// Where it is on the way.
    fn step(&self) -> Step {
        Step::Other
    }

    /// What is to be done when it is first shown.
    fn enter(&mut self, _known: &mut Known) -> Option<Effect> {
        None
    }

    /// What it shows.
    fn page(&self, known: &Known) -> Page;

    /// What an answer leads to.
    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next;

    /// What news lead to.
    fn told(&mut self, _news: News, _known: &mut Known) -> Next {
        Next::Stay
    }
}
