//! Looking at disks, captures, the network and the log.

use super::reading::Reading;
use super::share_kind::ShareKind;
use crate::disk::Disk;
use crate::effect::{Effect, News};
use crate::known::{Known, Task};
use crate::page::{Answer, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen};

/// What to look at.
pub(crate) struct Look;

impl Screen for Look {
    fn page(&self, _known: &Known) -> Page {
        let items = vec![
            Item::new("Disks").with("what this machine has, and what is on it"),
            Item::new("Captures").with("what a share holds"),
            Item::new("Network").with("addresses and name servers"),
            Item::new("Log").with("what happened since the start"),
        ];
        Page::choose("Look at what?", Vec::new(), items)
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        match answer {
            Answer::Pick(0) => {
                Next::go(Disks::new(|known| Next::instead(Reading::new("Disks", disks(&known.disks)))))
            }
            Answer::Pick(1) => {
                known.task = Task::Look;
                Next::go(ShareKind)
            }
            Answer::Pick(2) => Next::go(Lines { title: "Network", effect: Effect::Network }),
            Answer::Pick(3) => Next::go(Lines { title: "Log", effect: Effect::Log }),
            _ => Next::Back,
        }
    }
}

fn disks(disks: &[Disk]) -> Vec<Line> {
    let mut text = Vec::new();
    for disk in disks {
        text.push(Line::strong(disk.describe()));
        text.push(Line::plain(format!("  {}", disk.summary())));
        text.extend(disk.uses.iter().map(|used| Line::plain(format!("  in use: {used}"))));
        if let Ok(content) = &disk.content {
            let row = |volume: &crate::documents::inspected::Volume| {
                let (key, size, used) = (volume.key.clone(), say::size(volume.size), say::size(volume.used));
                let filesystem = volume.filesystem.clone().unwrap_or_else(|| "-".to_owned());
                vec![key, volume.role.clone(), size, used, filesystem, volume.name.clone()]
            };
            let rows: Vec<_> = content.volumes.iter().map(row).collect();
            text.extend(
                say::columns(&rows, &[2, 3]).into_iter().map(|row| Line::plain(format!("    {row}"))),
            );
            text.extend(content.warnings.iter().map(Line::warning));
        }
    }
    if disks.is_empty() {
        text.push(Line::bad("No disk was found. Is its driver loaded? The log says what the kernel saw."));
    }
    text
}

/// Looking at every disk; then it goes on.
pub(crate) struct Disks {
    then: fn(&mut Known) -> Next,
    looked: (usize, usize),
}

impl Disks {
    /// Looks, then goes on.
    pub(crate) fn new(then: fn(&mut Known) -> Next) -> Self {
        Self { then, looked: (0, 0) }
    }
}

impl Screen for Disks {
    fn enter(&mut self, known: &mut Known) -> Option<Effect> {
        Some(Effect::Disks(known.share.folder()))
    }

    fn page(&self, _known: &Known) -> Page {
        let (done, all) = self.looked;
        let text = if all > 0 {
            vec![Line::plain(format!("disk {} of {all}", done.saturating_add(1).min(all)))]
        } else {
            Vec::new()
        };
        Page::wait("Looking at the disks", text, Some("give up"))
    }

    fn answer(&mut self, answer: Answer, _known: &mut Known) -> Next {
        if answer == Answer::Back { Next::Back } else { Next::Stay }
    }

    fn told(&mut self, news: News, known: &mut Known) -> Next {
        match news {
            News::Looked(done, all) => self.looked = (done, all),
            News::Disks(disks) => {
                known.disks = disks;
                return (self.then)(known);
            }
            _ => {}
        }
        Next::Stay
    }
}

/// Lines that have to be fetched first.
struct Lines {
    title: &'static str,
    effect: Effect,
}

impl Screen for Lines {
    fn enter(&mut self, _known: &mut Known) -> Option<Effect> {
        Some(self.effect.clone())
    }

    fn page(&self, _known: &Known) -> Page {
        Page::wait(self.title, Vec::new(), Some("give up"))
    }

    fn answer(&mut self, answer: Answer, _known: &mut Known) -> Next {
        if answer == Answer::Back { Next::Back } else { Next::Stay }
    }

    fn told(&mut self, news: News, _known: &mut Known) -> Next {
        match news {
            News::Text(lines) => {
                Next::instead(Reading::new(self.title, lines.into_iter().map(Line::plain).collect()))
            }
            _ => Next::Stay,
        }
    }
}
