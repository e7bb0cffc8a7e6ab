//! The console as one state machine: answers and news in, pages and things to be done out.

use crate::effect::{Effect, News};
use crate::known::Known;
use crate::page::{Answer, Page};
use crate::screen::{Next, Screen};
use crate::screens::menu::Menu;

/// Which effect some news are about: those of an effect that nobody waits for any more are not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The console.
pub(crate) struct App {
    known: Known,
    /// The way here; never empty.
    way: Vec<Box<dyn Screen>>,
    ticket: Ticket,
    /// How often the screen changed: a renderer forgets its cursor then.
    turns: u64,
    is_working: bool,
}

impl App {
    /// The console at its menu, and what is to be done first.
    pub(crate) fn new(known: Known) -> (Self, Option<(Ticket, Effect)>) {
        let mut app = Self { known, way: Vec::new(), ticket: Ticket(0), turns: 0, is_working: false };
        let effect = app.push(Box::new(Menu::default()));
        (app, effect)
    }

    /// What is shown.
    pub(crate) fn page(&self) -> Page {
        let page = self.way.last().map(|screen| screen.page(&self.known));
        page.unwrap_or_else(|| Page::wait("", Vec::new(), None)).printable(self.known.place.ascii)
    }

    /// Which screen it is, of all that were shown.
    pub(crate) fn turns(&self) -> u64 {
        self.turns
    }

    /// Whether news are to be expected.
    pub(crate) fn is_working(&self) -> bool {
        self.is_working
    }

    /// A person answered.
    pub(crate) fn answer(&mut self, answer: Answer) -> Option<(Ticket, Effect)> {
        let screen = self.way.last_mut()?;
        let next = screen.answer(answer, &mut self.known);
        self.follow(next)
    }

    /// Something happened.
    pub(crate) fn told(&mut self, ticket: Ticket, news: News) -> Option<(Ticket, Effect)> {
        if ticket != self.ticket {
            return None;
        }
        if !matches!(news, News::Progress(_) | News::Notice(_) | News::Looked(..)) {
            self.is_working = false;
        }
        let screen = self.way.last_mut()?;
        let next = screen.told(news, &mut self.known);
        self.follow(next)
    }

    fn follow(&mut self, next: Next) -> Option<(Ticket, Effect)> {
        match next {
            Next::Stay => None,
            Next::Anew => {
                self.turns = self.turns.wrapping_add(1);
                None
            }
            Next::Do(effect) => Some(self.begin(effect)),
            Next::Go(screen) => self.push(screen),
            Next::Instead(screen) => {
                self.way.pop();
                self.push(screen)
            }
            Next::Back => self.unwind(self.way.len().saturating_sub(1)),
            Next::BackTo(step) => {
                let to = self.way.iter().rposition(|screen| screen.step() == step).unwrap_or(0);
                self.unwind(to.saturating_add(1))
            }
        }
    }

    fn push(&mut self, mut screen: Box<dyn Screen>) -> Option<(Ticket, Effect)> {
        let effect = screen.enter(&mut self.known);
        self.way.push(screen);
        self.turns = self.turns.wrapping_add(1);
        effect.map(|effect| self.begin(effect))
    }

    /// Goes back until so many screens are left; what runs for those that go is stopped.
    fn unwind(&mut self, left: usize) -> Option<(Ticket, Effect)> {
        self.way.truncate(left.max(1));
        self.turns = self.turns.wrapping_add(1);
        // Whoever left a waiting screen waits for nothing any more.
        let stop = std::mem::take(&mut self.is_working);
        stop.then(|| (self.next_ticket(), Effect::Stop))
    }

    fn begin(&mut self, effect: Effect) -> (Ticket, Effect) {
        // Stopping is news of what runs, not of itself.
        if effect == Effect::Stop {
            return (self.ticket, effect);
        }
        self.is_working = !matches!(effect, Effect::Shell | Effect::Leave);
        (self.next_ticket(), effect)
    }

    fn next_ticket(&mut self) -> Ticket {
        self.ticket = Ticket(self.ticket.0.wrapping_add(1));
        self.ticket
    }

    /// Whether the menu is shown.
    #[cfg(test)]
    pub(crate) fn is_at(&self, step: crate::screen::Step) -> bool {
        self.way.last().is_some_and(|screen| screen.step() == step)
    }
}
