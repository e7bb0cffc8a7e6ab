//! What `imager show --json` says: the disks and volumes of a capture.

use super::{disk_number, list, number, some_text, text, texts};
use crate::say;
use serde_json::Value;

/// A captured disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapturedDisk {
    /// Its number in the capture.
    pub(crate) number: u32,
    /// What it was called.
    pub(crate) model: Option<String>,
    /// Its serial number.
    pub(crate) serial: Option<String>,
    /// Its world-wide name.
    pub(crate) wwn: Option<String>,
    /// Its size.
    pub(crate) size: u64,
    /// Its logical sectors.
    pub(crate) sector: u64,
    /// Whether it had a partition table.
    pub(crate) has_table: bool,
}

/// A captured volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapturedVolume {
    /// Its disk.
    pub(crate) disk: u32,
    /// Its key.
    pub(crate) key: String,
    /// How a person knows it.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) role: String,
    /// The filesystem on it.
    pub(crate) filesystem: Option<String>,
    /// Its size.
    pub(crate) size: u64,
    /// What was used of it.
    pub(crate) used: u64,
    /// Where it ends on its disk.
    pub(crate) end: u64,
    /// Whether anything of it is in the capture.
    pub(crate) has_content: bool,
}

/// A capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Its id.
    pub(crate) id: String,
    /// Whose it is.
    pub(crate) machine: String,
    /// When it was made.
    pub(crate) time: String,
    /// Its disks.
    pub(crate) disks: Vec<CapturedDisk>,
    /// Its volumes.
    pub(crate) volumes: Vec<CapturedVolume>,
    /// What a person should know.
    pub(crate) warnings: Vec<String>,
    /// What is not in it.
    pub(crate) missing: Vec<String>,
}

impl Manifest {
    /// Reads the object of `show`, and of `capture`, which is the same.
    pub(crate) fn read(object: &Value) -> Self {
        Self {
            id: text(object, "capture"),
            machine: text(object, "machine"),
            time: text(object, "time"),
            disks: list(object, "disks").iter().map(disk).collect(),
            volumes: list(object, "volumes").iter().map(volume).collect(),
            warnings: texts(object, "warnings"),
            missing: texts(object, "not_captured"),
        }
    }

    /// The volumes as rows: key, role, size, used, filesystem, name.
    pub(crate) fn rows(&self) -> Vec<String> {
        let head = ["KEY", "ROLE", "SIZE", "USED", "CONTENT", "NAME"].map(str::to_owned).to_vec();
        let rows = self.volumes.iter().map(|volume| {
            let content =
                if volume.has_content { volume.filesystem.clone() } else { Some("not in it".to_owned()) };
            let content = content.unwrap_or_else(|| "-".to_owned());
            let (size, used) = (say::size(volume.size), say::size(volume.used));
            vec![volume.key.clone(), volume.role.clone(), size, used, content, volume.called().to_owned()]
        });
        say::columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &[2, 3])
    }
}

impl CapturedVolume {
    /// Its name, unless that is only its key.
    pub(crate) fn called(&self) -> &str {
        if self.name == self.key { "" } else { &self.name }
    }
}

fn disk(object: &Value) -> CapturedDisk {
    CapturedDisk {
        number: disk_number(object),
        model: some_text(object, "model"),
        serial: some_text(object, "serial"),
        wwn: some_text(object, "wwn"),
        size: number(object, "size_bytes"),
        sector: number(object, "logical_sector_bytes"),
        has_table: object["table"]["kind"].as_str().is_some_and(|kind| kind != "none"),
    }
}

fn volume(object: &Value) -> CapturedVolume {
    let ends = list(object, "segments").iter();
    let ends = ends.map(|piece| number(piece, "start_byte").saturating_add(number(piece, "len_bytes")));
    CapturedVolume {
        disk: disk_number(object),
        key: text(object, "key"),
        name: text(object, "name"),
        role: text(object, "role"),
        filesystem: some_text(object, "filesystem"),
        size: number(object, "size_bytes"),
        used: number(object, "used_bytes"),
        end: ends.max().unwrap_or(0),
        has_content: object["mode"].as_str() != Some("none"),
    }
}
