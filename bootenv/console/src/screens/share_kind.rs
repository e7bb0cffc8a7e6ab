//! Which kind of share holds the repository.

use super::fields::ShareField;
use super::opening;
use crate::known::{Known, Task};
use crate::page::{Answer, Item, Line, Page};
use crate::screen::{Next, Screen, Step};
use crate::share::Kind;

/// The question.
pub(crate) struct ShareKind;

/// Whether a place is known already: from the medium, or from this session.
fn is_known(known: &Known) -> bool {
    !known.share.place().is_empty()
}

impl Screen for ShareKind {
    fn step(&self) -> Step {
        Step::Kind
    }

    fn page(&self, known: &Known) -> Page {
        let what = match known.task {
            Task::Restore => "Restore: which share are the captures on?",
            Task::Capture => "Capture: which share is the capture to go to?",
            Task::Look => "Look: which share are the captures on?",
        };
        let known = is_known(known).then(|| Item::new("The share that is set").with(known.share.place()));
        let kinds = Kind::ALL.map(|kind| {
            let (name, form) = kind.words();
            Item::new(name).with(form)
        });
        let text = vec![Line::quiet(
            "A share holds the repository: the folder, bucket or server that captures are in.",
        )];
        Page::choose(what, text, known.into_iter().chain(kinds).collect())
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        match answer {
            Answer::Pick(0) if is_known(known) => Next::go(opening::screen(known)),
            Answer::Pick(index) => {
                let index = index.saturating_sub(usize::from(is_known(known)));
                Kind::ALL.get(index).map_or(Next::Stay, |kind| Next::go(ShareField::new(*kind, 0)))
            }
            _ => Next::Back,
        }
    }
}
