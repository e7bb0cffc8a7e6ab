//! Another console is at work: what it does, until it is done.

use crate::effect::{Effect, News};
use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::screen::{Next, Screen};

/// What the other console does.
#[derive(Default)]
pub(crate) struct Busy {
    lines: Vec<String>,
    is_over: bool,
}

impl Screen for Busy {
    fn enter(&mut self, _known: &mut Known) -> Option<Effect> {
        Some(Effect::Others)
    }

    fn page(&self, _known: &Known) -> Page {
        let mut text = Vec::new();
        if self.is_over {
            text.push(Line::strong("The other console is done; nothing was begun here."));
            text.extend(self.lines.iter().map(Line::plain));
            return Page::choose("One thing at a time", text, vec![Item::new("Back")]);
        }
        text.push(Line::strong("Another console of this machine is at work, so nothing is begun here:"));
        text.extend(self.lines.iter().map(Line::plain));
        Page::wait("One thing at a time", text, Some("go back"))
    }

    fn answer(&mut self, _answer: Answer, _known: &mut Known) -> Next {
        Next::Back
    }

    fn told(&mut self, news: News, _known: &mut Known) -> Next {
        match news {
            News::Busy(lines) => self.lines = lines,
            News::Text(lines) => (self.lines, self.is_over) = (lines, true),
            _ => {}
        }
        Next::Stay
    }
}
