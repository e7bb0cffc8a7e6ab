//! How a machine is put together, as its disks or a capture of them tell it.

use super::Tree;
use crate::boot_check::{self, Finding as Way};
use crate::survey::Survey;
use crate::view::CaptureView;
use imager_disk::ReadAt;
use imager_image::manifest::{Manifest, Mode, Role, Stack, Uefi};
use imager_units::Result;
use std::collections::{BTreeMap, BTreeSet};

/// A machine.
#[derive(Default)]
pub struct Design {
    /// Its volumes, but for those that only hold others.
    pub parts: Vec<Part>,
    /// Files that say how it is put together, by path.
    pub files: BTreeMap<String, String>,
    /// Ways to start from its disks that firmware would try.
    pub(super) ways: Vec<Way>,
    /// `bios` or `uefi`, where that is known.
    pub(super) firmware: Option<String>,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct Part {
    /// How the command line calls it.
    pub key: String,
    /// Where it is mounted, or what else it is called.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The filesystem on it.
    pub filesystem: Option<String>,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of it that are free, where that is known.
    pub free_bytes: Option<u64>,
    /// The numbers of the disks that it is on.
    pub disks: BTreeSet<u32>,
    /// What it is a part of.
    pub(super) stack: Option<Stack>,
}

impl Design {
    /// Of disks of this machine.
    pub fn of_survey(survey: &Survey, tree: &Tree) -> Self {
        let parts = survey.volumes.iter().map(|volume| Part {
            key: volume.key.clone(),
            name: volume.name.clone(),
            role: volume.role,
            filesystem: volume.mounted().map(|filesystem| filesystem.kind.to_owned()),
            size_bytes: volume.size().get(),
            free_bytes: tree.free_bytes(&volume.name).filter(|_| volume.name.starts_with('/')),
            disks: volume.pieces.iter().map(|piece| piece.disk).collect(),
            stack: volume.stack.clone(),
        });
        let menu = survey.firmware.uefi.as_ref();
        let ways = survey.disks.iter().flat_map(|disk| ways(&*disk.device, menu)).collect();
        Self {
            parts: joined(parts.collect()),
            files: survey.files.clone(),
            ways,
            firmware: survey.firmware.kind.map(|kind| kind.word().to_owned()),
        }
    }

    /// Of a captured machine.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn of_capture(view: &CaptureView<'_>) -> Result<Self> {
        let manifest = view.manifest();
        let parts = manifest.volumes.iter().map(|volume| Part {
            key: volume.key.clone(),
            name: volume.name.clone(),
            role: volume.role,
            filesystem: volume.filesystem.clone(),
            size_bytes: volume.size_bytes,
            free_bytes: (volume.mode == Mode::Used)
                .then(|| volume.size_bytes.saturating_sub(volume.cost.used_bytes)),
            disks: volume.segments.iter().map(|segment| segment.disk).collect(),
            stack: volume.stack.clone(),
        });
        let mut found = Vec::new();
        for disk in &manifest.disks {
            found.extend(ways(&view.disk(disk.number)?, manifest.system.uefi.as_ref()));
        }
        Ok(Self {
            parts: joined(parts.collect()),
            files: manifest.system.files.clone(),
            ways: found,
            firmware: manifest.system.firmware.clone(),
        })
    }

    /// A file that says how the machine is put together; nothing where there is none.
    pub(super) fn file(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// The volumes of a role.
    pub(super) fn of_role(&self, role: Role) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(move |part| part.role == role)
    }
}

impl Part {
    /// How a person is told of it.
    pub(super) fn said(&self) -> String {
        match self.name == self.key {
            true => format!("volume {}", self.key),
            false => format!("volume {} ({})", self.key, self.name),
        }
    }

    /// Whether it outlives one of its disks.
    pub(super) fn is_mirrored(&self) -> bool {
        matches!(&self.stack, Some(Stack::Member { level, .. }) if !level.eq_ignore_ascii_case("raid0"))
            && self.disks.len() > 1
    }
}

fn ways(disk: &dyn ReadAt, menu: Option<&Uefi>) -> Vec<Way> {
    boot_check::look(disk, menu)
}

/// The volumes without those that only hold others, and the members of an array as one.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    for part in parts {
        if matches!(part.stack, Some(Stack::Physical { .. })) {
            continue;
        }
        let array = |part: &Part| match &part.stack {
            Some(Stack::Member { array, .. }) => Some(array.clone()),
            _ => None,
        };
        let known = array(&part).and_then(|id| found.iter_mut().find(|f| array(f).as_ref() == Some(&id)));
        match known {
            Some(known) => known.disks.extend(part.disks),
            None => found.push(part),
        }
    }
    found
}

/// The volumes of a capture that a recovery of the system puts back.
pub(super) fn is_recovered(manifest: &Manifest) -> impl Iterator<Item = &imager_image::manifest::Volume> {
    manifest.volumes.iter().filter(|volume| matches!(volume.role, Role::Boot | Role::Os))
}
