//! Onto which disk: by model, serial number and size; what cannot be it is shown with the reason.

use super::planning;
use super::scope;
use crate::documents::manifest::CapturedDisk;
use crate::known::Known;
use crate::page::{Answer, Ask, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen, Step};

/// The disks, for one of the captured ones.
pub(crate) struct Targets {
    /// Which of the wanted disks.
    index: usize,
}

enum Entry {
    Disk(usize),
    LeaveOut,
    LookAgain,
}

impl Targets {
    /// The question about the captured disk of that index.
    pub(crate) fn new(index: usize) -> Self {
        Self { index }
    }

    fn captured(&self, known: &Known) -> Option<(CapturedDisk, u64)> {
        let (number, end) = known.wanted_disks().get(self.index).copied()?;
        let disk = known.capture.disks.iter().find(|disk| disk.number == number)?;
        Some((disk.clone(), end))
    }

    fn entries(&self, known: &Known) -> Vec<(Entry, Item)> {
        let Some((captured, end)) = self.captured(known) else { return Vec::new() };
        let mut entries = Vec::new();
        for (index, disk) in known.disks.iter().enumerate() {
            let taken = known
                .choice
                .targets
                .iter()
                .find(|(number, path)| **number != captured.number && **path == disk.path);
            let taken = taken.map(|(number, _)| format!("takes captured disk {number} already"));
            let refused = disk
                .refusal(&captured, known.choice.scope, end)
                .or(taken)
                .or_else(|| known.choice.refused.get(&disk.path).cloned());
            let mark = if disk.is(&captured) { "the captured disk itself; " } else { "" };
            let used = if disk.uses.is_empty() { "" } else { "; IN USE" };
            let item =
                Item::new(disk.describe()).with(format!("{mark}{}{used}", disk.summary())).refused(refused);
            entries.push((Entry::Disk(index), item));
        }
        if known.wanted_disks().len() > 1 {
            let last = known.wanted_disks().len() == self.index.saturating_add(1);
            let others = known.choice.targets.keys().any(|number| *number != captured.number);
            let nothing = (last && !others).then(|| "then nothing would be restored".to_owned());
            entries.push((Entry::LeaveOut, Item::new("Leave this disk out").refused(nothing)));
        }
        let again = Item::new("Look at the disks again").with("after one was connected or freed");
        entries.push((Entry::LookAgain, again));
        entries
    }

    fn go_on(&self, known: &Known) -> Next {
        let next = self.index.saturating_add(1);
        if next < known.wanted_disks().len() {
            Next::go(Self::new(next))
        } else {
            Next::go(planning::screen(known))
        }
    }
}

impl Screen for Targets {
    fn step(&self) -> Step {
        Step::Target
    }

    fn page(&self, known: &Known) -> Page {
        let Some((captured, _)) = self.captured(known) else {
            let text =
                vec![Line::bad("What was chosen lies on no disk of the capture: choose something else.")];
            return Page::choose("Onto which disk?", text, vec![Item::new("Back")]);
        };
        let serial = captured
            .serial
            .as_ref()
            .map_or("no serial number".to_owned(), |serial| format!("serial {serial}"));
        let model = captured.model.as_deref().unwrap_or("unknown model");
        let mut text = vec![Line::plain(format!(
            "Captured disk {}: {model}, {serial}, {}",
            captured.number,
            say::size(captured.size)
        ))];
        if known.disks.is_empty() {
            text.push(Line::bad("No disk was found. Look > Log says what the kernel saw."));
        }
        let entries = self.entries(known);
        let first = entries.iter().position(|(entry, item)| {
            let is_captured = matches!(entry, Entry::Disk(index) if known.disks.get(*index).is_some_and(|disk| disk.is(&captured)));
            is_captured && item.refused.is_none()
        });
        let mut page =
            Page::choose("Onto which disk?", text, entries.into_iter().map(|(_, item)| item).collect());
        if let (Ask::Choose { first: cursor, .. }, Some(first)) = (&mut page.ask, first) {
            *cursor = first;
        }
        page
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        let Some((captured, _)) = self.captured(known) else { return Next::Back };
        let entries = self.entries(known);
        let Some((entry, item)) = entries.get(index) else { return Next::Stay };
        if item.refused.is_some() {
            return Next::Stay;
        }
        match entry {
            Entry::Disk(disk) => {
                let Some(disk) = known.disks.get(*disk) else { return Next::Stay };
                known.choice.targets.insert(captured.number, disk.path.clone());
                known.choice.erase.clear();
                self.go_on(known)
            }
            Entry::LeaveOut => {
                known.choice.targets.remove(&captured.number);
                self.go_on(known)
            }
            Entry::LookAgain => Next::instead(scope::targets()),
        }
    }
}
