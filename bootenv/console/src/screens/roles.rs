//! What each volume is for, as far as can be seen; a person may know better.

use super::start::Start;
use crate::disk::Disk;
use crate::documents::inspected::Volume;
use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen};

/// The volumes of the chosen disks.
pub(crate) struct Roles;

/// In the order in which choosing a volume changes its role.
const ROLES: [&str; 5] = ["boot", "os", "data", "swap", "ignore"];

/// The volumes of the chosen disks, with their disks.
fn volumes(known: &Known) -> Vec<(&Disk, &Volume)> {
    let disks = known.disks.iter().filter(|disk| known.making.disks.contains(&disk.path));
    disks
        .flat_map(|disk| {
            disk.content.iter().flat_map(move |on| on.volumes.iter().map(move |volume| (disk, volume)))
        })
        .collect()
}

impl Screen for Roles {
    fn page(&self, known: &Known) -> Page {
        let several = known.making.disks.len() > 1;
        let items = volumes(known).into_iter().map(|(disk, volume)| {
            let said = known.making.roles.get(&(disk.path.clone(), volume.key.clone()));
            let (role, because) = match said {
                Some(role) => (role.as_str(), "as you said"),
                None => (volume.role.as_str(), volume.because.as_str()),
            };
            let on = if several { format!(" of {}", disk.path) } else { String::new() };
            let called = if volume.name == volume.key { "" } else { &volume.name };
            let filesystem = volume.filesystem.as_deref().unwrap_or("no filesystem");
            Item::new(format!("{role:<6}  volume {}{on} {called}", volume.key)).with(format!(
                "{filesystem}, {}, {} used; {because}",
                say::size(volume.size),
                say::size(volume.used)
            ))
        });
        let text = vec![
            Line::plain(
                "boot, os: put back by a restore.  data, swap: captured, left alone by a restore of the system.",
            ),
            Line::plain("ignore: not captured.  Choosing a volume changes what it is for."),
        ];
        Page::choose("Capture: what are the volumes for?", text, items.chain([Item::new("Go on")]).collect())
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        let Some((place, seen)) = volumes(known)
            .get(index)
            .map(|(disk, volume)| ((disk.path.clone(), volume.key.clone()), volume.role.clone()))
        else {
            return Next::go(Start);
        };
        let now = known.making.roles.get(&place).unwrap_or(&seen);
        let after = ROLES.iter().position(|role| role == now).map_or(0, |at| at.saturating_add(1));
        let next = ROLES.get(after).copied().unwrap_or(ROLES[0]);
        if next == seen {
            known.making.roles.remove(&place);
        } else {
            known.making.roles.insert(place, next.to_owned());
        }
        Next::Stay
    }
}
