//! What is put back.

use super::looking;
use super::target::Targets;
use super::volumes::Volumes;
use crate::disk::Scope;
use crate::known::{Choice, Known};
use crate::page::{Answer, Ask, Item, Page};
use crate::say;
use crate::screen::{Next, Screen, Step};

/// The question.
pub(crate) struct Scopes;

const ALL: [Scope; 4] = [Scope::System, Scope::Volumes, Scope::Tables, Scope::BareMetal];

fn item(scope: Scope, known: &Known) -> Item {
    let capture = &known.capture;
    let is_system = |role: &str| matches!(role, "boot" | "os");
    let system = capture.volumes.iter().filter(|volume| is_system(&volume.role) && volume.has_content);
    let used = say::size(system.clone().map(|volume| volume.used).sum());
    let none = |is_none: bool, why: &str| is_none.then(|| why.to_owned());
    match scope {
        Scope::System => Item::new("The operating system")
            .with(format!("boot and OS volumes into their partitions ({used}); data is left as it is"))
            .refused(none(system.count() == 0, "the capture has no such volumes")),
        Scope::Volumes => {
            Item::new("Chosen volumes").with("into their partitions; everything else is left as it is")
        }
        Scope::Tables => Item::new("The partition table alone")
            .with("where it was lost and everything else is still there")
            .refused(none(capture.disks.iter().all(|disk| !disk.has_table), "the captured disk had none")),
        Scope::BareMetal => Item::new("The whole disk anew (bare metal)")
            .with("table, boot code and every volume; EVERYTHING on the disk is lost"),
    }
}

impl Screen for Scopes {
    fn step(&self) -> Step {
        Step::Scope
    }

    fn page(&self, known: &Known) -> Page {
        let text = super::moment::contents(&known.capture);
        let mut page =
            Page::choose("What is to be put back?", text, ALL.map(|scope| item(scope, known)).into());
        if let Ask::Choose { items, first } = &mut page.ask {
            let chosen = ALL.iter().position(|scope| *scope == known.choice.scope).unwrap_or(0);
            if items.get(chosen).is_some_and(|item| item.refused.is_none()) {
                *first = chosen;
            }
        }
        page
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        let Some(scope) = ALL.get(index).copied() else { return Next::Stay };
        if scope != known.choice.scope {
            // Another disk may be right for it.
            let Choice { machine, volumes, .. } = std::mem::take(&mut known.choice);
            known.choice = Choice { machine, volumes, scope, ..Choice::default() };
        }
        match scope {
            Scope::Volumes => Next::go(Volumes),
            _ => Next::go(targets()),
        }
    }
}

/// Looks at the disks, then asks for the target.
pub(crate) fn targets() -> looking::Disks {
    looking::Disks::new(|known| {
        known.choice.refused.clear();
        Next::instead(Targets::new(0))
    })
}
