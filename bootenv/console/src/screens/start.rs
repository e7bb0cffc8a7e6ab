//! What will be captured, before it begins.

use super::running::Running;
use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::screen::{Next, Screen};

/// The last question.
pub(crate) struct Start;

impl Screen for Start {
    fn page(&self, known: &Known) -> Page {
        let making = &known.making;
        let mut text = vec![Line::strong(format!("{} goes to {}", making.machine, known.share.place()))];
        let chosen = known.disks.iter().filter(|disk| making.disks.contains(&disk.path));
        for disk in chosen {
            text.push(Line::plain(disk.describe()));
            text.push(Line::plain(format!("  {}", disk.summary())));
            text.extend(disk.uses.iter().map(Line::warning));
        }
        let roles = making
            .roles
            .iter()
            .map(|((path, key), role)| format!("volume {key} of {path} is {role}, as you said"));
        text.extend(roles.map(Line::plain));
        if making.rebind {
            text.push(Line::warning(format!(
                "the name {} passes from other hardware to this",
                making.machine
            )));
        }
        text.push(Line::quiet("Nothing of the disks is changed."));
        let items = vec![Item::new("Begin"), Item::new("Back")];
        Page::choose("Capture", text, items).command(known.make().line())
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        if answer == Answer::Pick(0) { Next::go(Running::capture(known.make())) } else { Next::Back }
    }
}
