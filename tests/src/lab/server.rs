//! The lab's server: its disk, where its volumes lie, and what it says of itself once it runs.

use super::machine::{Machine, Moment};
use crate::imager::Imager;
use crate::scratch::Scratch;
use crate::{MIB, judge, junk, recipe, tool};
use serde_json::Value;
use std::path::Path;

/// Root's password; see `tests/lab/tree.py`.
const PASSWORD: &str = "halfhour";
/// What a backup has to bring back. Everything here is written by packages or by us, not by services that run.
const FILES: &str = "/etc /usr/bin /usr/sbin /usr/lib/systemd /boot /srv /var/lib/halfhour-lab /var/lib/dpkg";

/// A server's disk: a file.
#[derive(Clone, Debug)]
pub struct Server {
    /// The file.
    pub disk: String,
    /// Its volumes, in the order of the table.
    pub volumes: Vec<Volume>,
}

/// A volume of it.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its key.
    pub key: String,
    /// Its role.
    pub role: String,
    /// Where the server mounts it.
    pub at: String,
    /// Its filesystem.
    pub kind: String,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub len: u64,
    /// What its filesystem uses: start and length, from its beginning.
    pub used: Vec<(u64, u64)>,
}

/// What a running server says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Health {
    /// What systemd calls its state.
    pub state: String,
    /// A digest of its files, the data volume's too.
    pub files: String,
    /// How many there are.
    pub count: u64,
}

impl Server {
    /// Builds its disk; `None`, with the reason printed, where that cannot be done.
    pub fn build(scratch: &Scratch, options: &[&str]) -> Option<Self> {
        let disk = recipe::server_disk(scratch, options)?;
        Some(Self::look(scratch, disk))
    }

    /// Looks at a disk as it is now.
    pub fn look(scratch: &Scratch, disk: String) -> Self {
        let imager = Imager::new(scratch.path("state"), scratch.path("none"));
        let seen = imager.json(&["inspect", "--extents", &disk]);
        let volumes = seen["volumes"].as_array().expect("volumes").iter().map(volume).collect();
        Self { disk, volumes }
    }

    /// The volume that the server mounts there.
    pub fn at(&self, at: &str) -> &Volume {
        let found = self.volumes.iter().find(|volume| volume.at == at);
        found.unwrap_or_else(|| panic!("no volume is mounted at {at:?}: {:?}", self.volumes))
    }

    /// The digest of every byte of a volume.
    pub fn digest(&self, at: &str) -> String {
        let volume = self.at(at);
        judge::digest(&self.disk, volume.start, volume.len)
    }

    /// Its volumes of the system: what a restore puts back.
    pub fn system(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.iter().filter(|volume| ["boot", "os"].contains(&volume.role.as_str()))
    }

    /// The same server on another disk.
    #[must_use]
    pub fn on(&self, disk: &str) -> Self {
        Self { disk: disk.to_owned(), volumes: self.volumes.clone() }
    }

    /// Loses the system: nothing of it is left, and no code that starts it.
    pub fn lose(&self) {
        let disk = Path::new(&self.disk);
        self.system().for_each(|volume| junk::over(disk, volume.start, volume.len.min(256 * MIB)));
        junk::over(disk, 0, 440);
    }

    /// Fails unless the system of `restored` is this one: boot code, every used byte, and what checkers say.
    pub fn assert_same_system(&self, restored: &Self, scratch: &Scratch) {
        let disks = (self.disk.as_str(), restored.disk.as_str());
        judge::assert_same_bytes((disks.0, 0), (disks.1, 0), &[(0, 440)], "boot code");
        for volume in self.system() {
            let what = format!("volume {} ({})", volume.key, volume.at);
            judge::assert_same_bytes((disks.0, volume.start), (disks.1, volume.start), &volume.used, &what);
            if !volume.kind.is_empty() {
                let part = scratch.name("part");
                judge::extract(disks.1, volume.start, volume.len, &part);
                let (status, said) = match volume.kind.as_str() {
                    "linux_raid_member" => tool::judge("mdadm", &["--examine", &part]),
                    kind => judge::fsck(&part, kind),
                };
                assert_eq!(status, Some(0), "{what}: {said}");
            }
        }
    }

    /// Waits until the server asks who is there.
    pub fn expect_login(machine: &mut Machine) -> Moment {
        machine.expect("login: ")
    }

    /// Logs in where it asks, and has it tell how it is.
    pub fn health(machine: &mut Machine) -> Health {
        machine.type_in("root\n");
        machine.expect("Password: ");
        machine.type_in(&format!("{PASSWORD}\n"));
        machine.expect("root@server");
        // Otherwise long lines are broken, and services may say something in between.
        let (code, said) = machine.run("stty cols 1000; dmesg -n 1; systemctl is-system-running --wait; systemctl --failed --no-legend --plain");
        // A shell whose line was too long for the terminal may say spaces.
        let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let state = lines.next().unwrap_or_default().to_owned();
        assert_eq!(
            (code, state.as_str(), 1 + lines.count()),
            (0, "running", 1),
            "no unit has failed: {said}"
        );
        let list = format!("find {FILES} -xdev -type f -print0 | sort -z");
        let (_, said) =
            machine.run(&format!("{list} | xargs -0 b2sum | tee /run/sums | b2sum -l 128; wc -l </run/sums"));
        let mut lines = said.lines();
        let files = lines.next().unwrap_or_default().trim_end_matches(" -").trim().to_owned();
        let count = lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
        assert!(files.len() == 32 && count > 3000, "sums of all files: {said:?}");
        Health { state, files, count }
    }
}

fn volume(seen: &Value) -> Volume {
    let text = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().expect("a number");
    let used = seen["used_extents"].as_array().expect("extents");
    Volume {
        key: text("key"),
        role: text("role"),
        at: text("name"),
        kind: text("filesystem"),
        start: number(&seen["start_byte"]),
        len: number(&seen["size_bytes"]),
        used: used.iter().map(|e| (number(&e[0]), number(&e[1]))).collect(),
    }
}
