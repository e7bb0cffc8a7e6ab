//! The machine that this program runs on, for a capture of it.

use imager::capture::hot::{Held, Running};
use imager::survey::{Disk, Survey, Volume};
use imager_disk::usage::MountedFilesystem;
use imager_disk::{DeviceNumber, System};
use imager_image::manifest::Stack;
use imager_journal::{Freeze, FreezeOptions, Freezer, FrozenFor, Hooks, Outcome, Ran, live_map};
use imager_units::{Error, ErrorKind, ExtentSet, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Instant;

/// The machine.
pub(super) struct Machine<'h> {
    system: System,
    disks: Vec<(u32, DeviceNumber)>,
    freezer: Freezer,
    hooks: &'h Hooks,
    facts: Map<String, Value>,
    ran: Option<Ran<'h>>,
}

impl<'h> Machine<'h> {
    /// What is mounted on these disks, by their numbers in the survey.
    pub(super) fn new(survey: &Survey, name: &str, hooks: &'h Hooks) -> Result<Self> {
        let number = |disk: &Disk| Ok((disk.number, node_number(&disk.identity.path)?));
        let disks = survey.disks.iter().map(number).collect::<Result<Vec<_>>>()?;
        let keys: Vec<_> = survey.volumes.iter().map(|volume| volume.key.as_str()).collect();
        let facts = [("machine", json!(name)), ("volumes", json!(keys))];
        let facts = facts.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        let freezer = freezer(&disks)?;
        Ok(Self { system: System::new(), disks, freezer, hooks, facts, ran: None })
    }

    /// The kernel's number of a volume.
    fn number(&self, volume: &Volume) -> Result<Option<DeviceNumber>> {
        if let Some(Stack::Logical { .. }) = volume.stack {
            return Ok(node_number(&Path::new("/dev").join(&volume.key)).ok());
        }
        let disk = self.disks.iter().find(|(number, _)| *number == volume.disk).map(|(_, device)| *device);
        let Some(disk) = disk else { return Ok(None) };
        if volume.partition.is_none() {
            return Ok(Some(disk));
        }
        let partitions = self.system.partitions(disk)?;
        Ok(partitions.iter().find(|partition| partition.extent == volume.extent).map(|found| found.device))
    }

    /// The filesystems that are on a volume: directly, or else on what is made of it.
    fn on(&self, volume: &Volume) -> Result<Vec<&MountedFilesystem>> {
        let Some(number) = self.number(volume)? else { return Ok(Vec::new()) };
        let all = || self.freezer.filesystems().iter().filter(|found| !found.read_only);
        let direct: Vec<_> = all().filter(|found| found.devices.contains(&number)).collect();
        let stacked = || all().filter(|found| found.beneath.contains(&number)).collect();
        Ok(if direct.is_empty() { stacked() } else { direct })
    }
}

fn node_number(path: &Path) -> Result<DeviceNumber> {
    DeviceNumber::of_node(path)
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{} is no block device", path.display())))
}

fn freezer(disks: &[(u32, DeviceNumber)]) -> Result<Freezer> {
    let numbers: Vec<_> = disks.iter().map(|(_, device)| *device).collect();
    Freezer::open(System::new(), &numbers, FreezeOptions::default())
}

impl Freeze for Machine<'_> {
    fn sync(&mut self) -> Result<()> {
        self.freezer.sync()
    }

    fn frozen(&mut self, work: &mut dyn FnMut(Instant)) -> Result<FrozenFor> {
        let frozen = self.freezer.frozen(work);
        if frozen.as_ref().is_err_and(|error| error.kind() == ErrorKind::Cancelled) {
            // Perhaps something was mounted or unmounted.
            self.freezer = freezer(&self.disks)?;
        }
        frozen
    }
}

impl Running for Machine<'_> {
    fn held(&self, volume: &Volume) -> Result<Held> {
        let found = self.on(volume)?;
        Ok(if found.iter().any(|filesystem| self.freezer.is_unfreezable(filesystem)) {
            Held::Mounted
        } else if found.is_empty() {
            Held::Free
        } else {
            Held::Frozen
        })
    }

    fn used(&self, volume: &Volume) -> Option<ExtentSet> {
        let number = self.number(volume).ok()??;
        let found = self.on(volume).ok()?;
        let [filesystem] = found.as_slice() else { return None };
        if filesystem.devices != [number] {
            return None;
        }
        live_map(filesystem, volume.size()).unwrap_or_else(|error| {
            tracing::info!("the filesystem of volume {} does not tell what it uses: {error}", volume.key);
            None
        })
    }

    fn prepare(&mut self) -> Result<()> {
        self.ran = Some(self.hooks.before(self.facts.clone())?);
        Ok(())
    }

    fn resume(&mut self, succeeded: bool) -> Vec<String> {
        let outcome = if succeeded { Outcome::Frozen } else { Outcome::Failed };
        self.ran.take().map(|ran| ran.after(outcome)).unwrap_or_default()
    }
}
