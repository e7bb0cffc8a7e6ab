//! Whose capture.

use super::moment::Moments;
use crate::documents::captures::machines;
use crate::known::{Known, Task};
use crate::page::{Answer, Ask, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen};

/// The machines of the repository.
pub(crate) struct Machines;

impl Screen for Machines {
    fn page(&self, known: &Known) -> Page {
        let now = known.clock.now();
        let machines = machines(&known.captures);
        let items = machines.iter().map(|(name, captures)| {
            let newest = captures.first().map_or(String::new(), |capture| say::age(&capture.time, now));
            let count = say::count(captures.len(), "capture");
            Item::new(*name).with(format!("{count}, the newest {newest}"))
        });
        let text =
            known.damaged.iter().map(|damaged| Line::warning(format!("cannot be read: {damaged}"))).collect();
        let title = if known.task == Task::Look { "Look: which machine?" } else { "Restore: which machine?" };
        let mut page = Page::choose(title, text, items.collect());
        if let Ask::Choose { first, .. } = &mut page.ask {
            let chosen = machines.iter().position(|(name, _)| *name == known.choice.machine);
            *first = chosen.unwrap_or(0);
        }
        page
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        let machines = machines(&known.captures);
        let Some((name, _)) = machines.get(index) else { return Next::Stay };
        known.choice.machine = (*name).to_owned();
        Next::go(Moments)
    }
}
