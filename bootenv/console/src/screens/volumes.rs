//! Which volumes are put back.

use super::scope;
use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen};

/// The volumes of the capture, to be marked.
pub(crate) struct Volumes;

impl Screen for Volumes {
    fn page(&self, known: &Known) -> Page {
        let volumes = &known.capture.volumes;
        let items = volumes.iter().map(|volume| {
            let mark = if known.choice.volumes.contains(&volume.key) { "[x]" } else { "[ ]" };
            let filesystem = volume.filesystem.as_deref().unwrap_or("no filesystem");
            Item::new(format!("{mark} {} {}", volume.key, volume.called()))
                .with(format!(
                    "{}, {filesystem}, {}, {} used",
                    volume.role,
                    say::size(volume.size),
                    say::size(volume.used)
                ))
                .refused((!volume.has_content).then(|| "not in the image".to_owned()))
        });
        let chosen = known.choice.volumes.len();
        let go = Item::new("Go on").with(format!("with {}", say::count(chosen, "volume")));
        let go = go.refused((chosen == 0).then(|| "choose at least one volume".to_owned()));
        let text = vec![Line::plain("What is on these volumes now is replaced.")];
        Page::choose("Which volumes are to be put back?", text, items.chain([go]).collect())
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        match known.capture.volumes.get(index) {
            Some(volume) if volume.has_content => {
                if !known.choice.volumes.remove(&volume.key) {
                    known.choice.volumes.insert(volume.key.clone());
                }
                known.choice.targets.clear();
                Next::Stay
            }
            None if !known.choice.volumes.is_empty() => Next::go(scope::targets()),
            _ => Next::Stay,
        }
    }
}
