//! Which disks are captured.

use super::roles::Roles;
use crate::disk::Disk;
use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen};

/// The disks, to be marked.
pub(crate) struct Sources;

impl Sources {
    /// All disks that can be captured are marked, unless some were chosen before.
    pub(crate) fn new(known: &mut Known) -> Self {
        let there: Vec<_> =
            known.disks.iter().filter(|disk| refusal(disk).is_none()).map(|disk| disk.path.clone()).collect();
        known.making.disks.retain(|path| there.contains(path));
        if known.making.disks.is_empty() {
            known.making.disks.extend(there);
        }
        Self
    }
}

fn refusal(disk: &Disk) -> Option<String> {
    match &disk.content {
        _ if disk.is_medium => Some("the rescue medium itself".to_owned()),
        _ if disk.holds_repository => Some("the repository lies on it".to_owned()),
        Err(why) => Some(why.clone()),
        Ok(_) => None,
    }
}

impl Screen for Sources {
    fn page(&self, known: &Known) -> Page {
        let items = known.disks.iter().map(|disk| {
            let mark = if known.making.disks.contains(&disk.path) { "[x]" } else { "[ ]" };
            let used = disk.uses.iter().map(|used| format!("; {used}")).collect::<String>();
            Item::new(format!("{mark} {}", disk.describe()))
                .with(format!("{}{used}", disk.summary()))
                .refused(refusal(disk))
        });
        let chosen = known.making.disks.len();
        let go = Item::new("Go on").with(format!("with {}", say::count(chosen, "disk")));
        let go = go.refused((chosen == 0).then(|| "choose at least one disk".to_owned()));
        let text =
            vec![Line::quiet("Disks are only read. A restore needs every disk that the system lies on.")];
        Page::choose("Capture: which disks?", text, items.chain([go]).collect())
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        match known.disks.get(index) {
            Some(disk) if refusal(disk).is_none() => {
                if !known.making.disks.remove(&disk.path) {
                    known.making.disks.insert(disk.path.clone());
                }
                Next::Stay
            }
            None if !known.making.disks.is_empty() => Next::go(Roles),
            _ => Next::Stay,
        }
    }
}
