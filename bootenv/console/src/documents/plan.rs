//! What `imager restore --plan --json` says, in words.

use super::manifest::{CapturedVolume, Manifest};
use super::{list, number, some_text, text, texts};
use crate::page::Line;
use crate::say;
use serde_json::Value;

/// A disk of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlannedDisk {
    /// Its path now.
    pub(crate) path: String,
    /// Its model.
    pub(crate) model: String,
    /// Its serial number.
    pub(crate) serial: Option<String>,
    /// Its world-wide name.
    pub(crate) wwn: Option<String>,
    size: u64,
    scope: String,
    volumes: Vec<(String, String, u64, u64)>,
    writes_table: bool,
    writes_boot_code: bool,
    swap_resets: Vec<String>,
    untouched: Vec<String>,
    /// Keys of volumes that somebody uses, and goes on using.
    in_use: Vec<String>,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What confirms it.
    pub(crate) hash: String,
    /// Its disks.
    pub(crate) disks: Vec<PlannedDisk>,
    firmware: Vec<String>,
    warnings: Vec<String>,
    missing: Vec<String>,
}

impl PlannedDisk {
    /// What a person types to agree: what the disk calls itself, or the last part of its path.
    pub(crate) fn word(&self) -> &str {
        let name = self.serial.as_deref().or(self.wwn.as_deref());
        name.unwrap_or_else(|| self.path.rsplit('/').next().unwrap_or(&self.path))
    }

    /// How a person knows it: model, serial number, size, path.
    pub(crate) fn describe(&self) -> String {
        let serial = self.serial.as_ref().or(self.wwn.as_ref());
        let serial = serial.map_or("no serial number".to_owned(), |serial| format!("serial {serial}"));
        format!("{}, {serial}, {}, {}", self.model, say::size(self.size), self.path)
    }

    fn lines(&self, manifest: &Manifest) -> Vec<Line> {
        let captured = |key: &str| manifest.volumes.iter().find(|volume| volume.key == key);
        let called = |key: &str| captured(key).map(CapturedVolume::called).unwrap_or_default().to_owned();
        let mut rows = Vec::new();
        for (key, role, size, content) in &self.volumes {
            let what = format!("{} in the image", say::size(*content));
            rows.push(vec![
                "write".to_owned(),
                key.clone(),
                called(key),
                role.clone(),
                say::size(*size),
                what,
            ]);
        }
        for key in &self.swap_resets {
            let what = "the hibernated system in it is discarded".to_owned();
            rows.push(vec![
                "write".to_owned(),
                key.clone(),
                called(key),
                "swap".to_owned(),
                String::new(),
                what,
            ]);
        }
        for key in &self.untouched {
            let what = if self.in_use.contains(key) { "not touched; it stays in use" } else { "not touched" };
            let (role, size) = captured(key)
                .map_or_else(Default::default, |volume| (volume.role.clone(), say::size(volume.size)));
            rows.push(vec!["leave".to_owned(), key.clone(), called(key), role, size, what.to_owned()]);
        }
        let mut lines = vec![Line::strong(format!("Onto {}", self.describe()))];
        lines.push(Line::plain(format!("  {}", self.scope)));
        lines.extend(say::columns(&rows, &[4]).into_iter().map(|row| Line::plain(format!("  {row}"))));
        if self.writes_table {
            lines.push(Line::plain("  write  the partition table"));
        }
        if self.writes_boot_code {
            lines.push(Line::plain("  write  boot code outside volumes"));
        }
        lines
    }
}

impl Plan {
    /// Reads the object.
    pub(crate) fn read(object: &Value) -> Self {
        Self {
            hash: text(object, "plan"),
            disks: list(object, "disks").iter().map(disk).collect(),
            firmware: list(object, "firmware_entries").iter().map(firmware_entry).collect(),
            warnings: texts(object, "warnings"),
            missing: texts(object, "not_captured"),
        }
    }

    /// What will be done, in words.
    pub(crate) fn lines(&self, manifest: &Manifest) -> Vec<Line> {
        let mut lines = Vec::new();
        for disk in &self.disks {
            lines.extend(disk.lines(manifest));
        }
        lines.extend(self.firmware.iter().map(Line::plain));
        lines.extend(self.warnings.iter().map(Line::warning));
        lines.extend(self.missing.iter().map(|missing| Line::plain(format!("not in the image: {missing}"))));
        lines
    }
}

/// What becomes of an entry of the firmware's boot menu.
fn firmware_entry(object: &Value) -> String {
    let what = if object["write"] == Value::Bool(true) { "is written" } else { "is there already" };
    format!("firmware entry: {} starts {} ({what})", text(object, "description"), text(object, "file"))
}

fn disk(object: &Value) -> PlannedDisk {
    let volume = |object: &Value| {
        let (key, role) = (text(object, "key"), text(object, "role"));
        (key, role, number(object, "size_bytes"), number(object, "content_bytes"))
    };
    PlannedDisk {
        path: text(object, "target"),
        model: text(object, "model"),
        serial: some_text(object, "serial"),
        wwn: some_text(object, "wwn"),
        size: number(object, "size_bytes"),
        scope: text(object, "scope"),
        volumes: list(object, "volumes").iter().map(volume).collect(),
        writes_table: object["writes_table"] == Value::Bool(true),
        writes_boot_code: object["writes_boot_code"] == Value::Bool(true),
        swap_resets: texts(object, "swap_resets"),
        untouched: texts(object, "untouched"),
        in_use: list(object, "in_use").iter().map(|volume| text(volume, "key")).collect(),
    }
}
