//! The main menu: what a person may want of a dead server, and how to leave.

use super::looking::Look;
use super::share_kind::ShareKind;
use crate::effect::{Effect, News};
use crate::known::{Known, Task};
use crate::page::{Answer, Item, Line, Page};
use crate::screen::{Next, Screen, Step};

/// The main menu.
#[derive(Default)]
pub(crate) struct Menu {
    network: Vec<String>,
}

#[derive(Clone, Copy)]
enum Entry {
    Restore,
    Capture,
    Look,
    Shell,
    Reboot,
    PowerOff,
    Leave,
}

fn entries(known: &Known) -> Vec<(Entry, Item)> {
    let mut entries = vec![
        (Entry::Restore, Item::new("Restore a server").with("put a captured point in time back onto a disk")),
        (
            Entry::Capture,
            Item::new("Capture this server").with("image its disks to a share; nothing of them is changed"),
        ),
        (Entry::Look, Item::new("Look").with("disks, captures, network, log")),
        (Entry::Shell, Item::new("Shell").with("F2 or ! at any time; exit comes back")),
    ];
    if known.is_rescue() {
        entries.push((Entry::Reboot, Item::new("Reboot")));
        entries.push((Entry::PowerOff, Item::new("Power off")));
    } else {
        entries.push((Entry::Leave, Item::new("Leave")));
    }
    entries
}

impl Screen for Menu {
    fn step(&self) -> Step {
        Step::Menu
    }

    fn enter(&mut self, _known: &mut Known) -> Option<Effect> {
        Some(Effect::Network)
    }

    fn page(&self, known: &Known) -> Page {
        let mut text = Vec::new();
        match &known.place.release {
            Some(release) => {
                text.push(Line::plain(release.clone()));
                text.push(Line::quiet("Every disk is write-protected. A restore lifts that for what its plan says, and no more."));
            }
            None => text.push(Line::quiet("This is not the rescue environment: disks in use are refused.")),
        }
        // Servers have many ports; those without an address are under Look.
        let shown = self.network.iter().filter(|line| !line.contains("no address"));
        text.extend(shown.map(|line| Line::plain(format!("network: {line}"))));
        text.extend(known.place.trouble.iter().map(Line::warning));
        let items = entries(known).into_iter().map(|(_, item)| item).collect();
        Page::choose("What is to be done?", text, items)
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Stay };
        let task = |known: &mut Known, task| {
            known.task = task;
            Next::go(ShareKind)
        };
        match entries(known).get(index).map(|(entry, _)| *entry) {
            Some(Entry::Restore) => task(known, Task::Restore),
            Some(Entry::Capture) => task(known, Task::Capture),
            Some(Entry::Look) => Next::go(Look),
            Some(Entry::Shell) => Next::Do(Effect::Shell),
            Some(Entry::Reboot) => Next::Do(Effect::Reboot),
            Some(Entry::PowerOff) => Next::Do(Effect::PowerOff),
            Some(Entry::Leave) => Next::Do(Effect::Leave),
            None => Next::Stay,
        }
    }

    fn told(&mut self, news: News, _known: &mut Known) -> Next {
        match news {
            News::Text(lines) => self.network = lines,
            News::Busy(_) => return Next::go(super::busy::Busy::default()),
            _ => {}
        }
        Next::Stay
    }
}
