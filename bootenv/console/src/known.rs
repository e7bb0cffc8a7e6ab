//! What the console knows: where it runs, what was found, and what was chosen so far. A screen that is left keeps its
//! choices here, so that coming back asks nothing twice.

use crate::disk::{Disk, Scope};
use crate::documents::captures::Listed;
use crate::documents::manifest::Manifest;
use crate::order::Order;
use crate::share::Share;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Where the console runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The release of the rescue environment; elsewhere it is an ordinary system, which is not switched off from here.
    pub(crate) release: Option<String>,
    /// Whether the terminal knows ASCII only.
    pub(crate) ascii: bool,
    /// What the mainboard calls this machine, fit for a name.
    pub(crate) hardware: Option<String>,
    /// Why the medium's settings could not be used.
    pub(crate) trouble: Option<String>,
    /// What was set of `imager`'s patience and rate.
    pub(crate) manners: Vec<String>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Task {
    /// A server is restored.
    #[default]
    Restore,
    /// This server is captured.
    Capture,
    /// Captures are looked at.
    Look,
}

/// What was chosen to be restored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    /// Whose capture.
    pub(crate) machine: String,
    /// What of it.
    pub(crate) scope: Scope,
    /// Which volumes, for that scope.
    pub(crate) volumes: BTreeSet<String>,
    /// Which captured disk goes to which path.
    pub(crate) targets: BTreeMap<u32, String>,
    /// Names of disks whose contents may go.
    pub(crate) erase: Vec<String>,
    /// Why `imager` refused a target: path and reason.
    pub(crate) refused: BTreeMap<String, String>,
}

/// What was chosen to be captured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Making {
    /// Whose capture it is.
    pub(crate) machine: String,
    /// Paths of the disks.
    pub(crate) disks: BTreeSet<String>,
    /// Roles that a person gave: path of the disk and key of the volume, role.
    pub(crate) roles: BTreeMap<(String, String), String>,
    /// Whether the name passes from other hardware to this.
    pub(crate) rebind: bool,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Where we are.
    pub(crate) place: Place,
    /// The time, asked when something is shown.
    pub(crate) clock: Clock,
    /// What is to be done.
    pub(crate) task: Task,
    /// The share.
    pub(crate) share: Share,
    /// The captures on it.
    pub(crate) captures: Vec<Listed>,
    /// What of it could not be read.
    pub(crate) damaged: Vec<String>,
    /// The capture that was chosen.
    pub(crate) capture: Manifest,
    /// The disks of this machine.
    pub(crate) disks: Vec<Disk>,
    /// What was chosen to be restored.
    pub(crate) choice: Choice,
    /// What was chosen to be captured.
    pub(crate) making: Making,
}

/// The time; tests have their own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Clock {
    /// The machine's.
    #[default]
    Machine,
    /// One that stands still.
    #[cfg(test)]
    Standing(Timestamp),
}

impl Clock {
    /// Now.
    pub(crate) fn now(self) -> Timestamp {
        match self {
            Self::Machine => Timestamp::now(),
            #[cfg(test)]
            Self::Standing(time) => time,
        }
    }
}

impl Known {
    /// Whether this is the rescue environment.
    pub(crate) fn is_rescue(&self) -> bool {
        self.place.release.is_some()
    }

    /// The captured disks that the choice is about, each with where what is put back of it ends.
    pub(crate) fn wanted_disks(&self) -> Vec<(u32, u64)> {
        let choice = &self.choice;
        let wants = |volume: &&crate::documents::manifest::CapturedVolume| match choice.scope {
            Scope::System => matches!(volume.role.as_str(), "boot" | "os") && volume.has_content,
            Scope::Volumes => choice.volumes.contains(&volume.key),
            Scope::Tables | Scope::BareMetal => true,
        };
        let mut wanted = Vec::new();
        for disk in &self.capture.disks {
            let ends = self.capture.volumes.iter().filter(|volume| volume.disk == disk.number).filter(wants);
            let end = ends.map(|volume| volume.end).max();
            match choice.scope {
                Scope::Tables if !disk.has_table => {}
                Scope::Tables | Scope::BareMetal => wanted.push((disk.number, end.unwrap_or(0))),
                _ => wanted.extend(end.map(|end| (disk.number, end))),
            }
        }
        wanted
    }

    /// The restore that was chosen.
    pub(crate) fn restore(&self, confirmed: Option<&str>) -> Order {
        let choice = &self.choice;
        let mut words = vec!["restore".to_owned(), format!("id:{}", self.capture.id), "--to".to_owned()];
        for (number, path) in &choice.targets {
            let disk = self.disks.iter().find(|disk| disk.path == *path);
            let selector = disk.map_or_else(|| path.clone(), |disk| disk.selector(&self.disks));
            words.push(format!("{number}={selector}"));
        }
        match choice.scope {
            Scope::System => {}
            Scope::Volumes => {
                words.extend(choice.volumes.iter().flat_map(|key| ["--volume".to_owned(), key.clone()]));
            }
            Scope::Tables => words.push("--tables".to_owned()),
            Scope::BareMetal => {
                words.push("--bare-metal".to_owned());
                words.extend(choice.erase.iter().flat_map(|name| ["--erase".to_owned(), name.clone()]));
            }
        }
        words.extend(self.place.manners.iter().cloned());
        if self.is_rescue() {
            // Here every disk is write-protected.
            words.push("--unprotect".to_owned());
        }
        let what = format!("restore of {} as of {}", self.capture.machine, self.capture.time);
        let Some(hash) = confirmed else {
            let mut order = Order::look(&what, &[], Some(&self.share));
            words.push("--plan".to_owned());
            order.words = words;
            return order;
        };
        words.extend(["--confirm".to_owned(), hash.to_owned()]);
        if self.is_rescue() {
            // Nobody keeps a log when the machine is switched off.
            words.push("--report".to_owned());
        }
        Order::work(what, words, &self.share)
    }

    /// The capture that was chosen.
    pub(crate) fn make(&self) -> Order {
        let making = &self.making;
        let chosen: Vec<_> = self.disks.iter().filter(|disk| making.disks.contains(&disk.path)).collect();
        let mut words = vec!["capture".to_owned()];
        words.extend(chosen.iter().map(|disk| disk.selector(&self.disks)));
        words.extend(["--machine".to_owned(), making.machine.clone()]);
        let volumes =
            || chosen.iter().filter_map(|disk| disk.content.as_ref().ok()).flat_map(|on| &on.volumes);
        for disk in &chosen {
            for volume in disk.content.iter().flat_map(|on| &on.volumes) {
                let Some(role) = making.roles.get(&(disk.path.clone(), volume.key.clone())) else { continue };
                // A disk's number is the capture's affair, so a key may mean another volume; an identity does not.
                let is_unique = volumes().filter(|other| other.identity == volume.identity).count() == 1;
                let name = if is_unique { &volume.identity } else { &volume.key };
                words.extend(["--role".to_owned(), format!("{name}={role}")]);
            }
        }
        if making.rebind {
            words.push("--rebind".to_owned());
        }
        words.extend(self.place.manners.iter().cloned());
        Order::work(format!("capture of {}", making.machine), words, &self.share)
    }
}
