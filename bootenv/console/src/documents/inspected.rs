//! What `imager inspect --json` says of one disk.

use super::{list, number, some_text, text, texts};
use serde_json::Value;

/// What is on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// The kind of its table, if it has one.
    pub(crate) table: Option<String>,
    /// Its volumes.
    pub(crate) volumes: Vec<Volume>,
    /// What a person should know.
    pub(crate) warnings: Vec<String>,
    /// The name of the system on it, where it tells.
    pub(crate) hostname: Option<String>,
}

/// A volume as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Its key on this disk.
    pub(crate) key: String,
    /// How a person knows it.
    pub(crate) name: String,
    /// What it is for, as far as can be seen.
    pub(crate) role: String,
    /// Why.
    pub(crate) because: String,
    /// The filesystem on it.
    pub(crate) filesystem: Option<String>,
    /// Its size.
    pub(crate) size: u64,
    /// What of it is used.
    pub(crate) used: u64,
    /// What it is called by whatever number its disk has: partition UUID, filesystem UUID or key.
    pub(crate) identity: String,
}

impl Inspected {
    /// Reads the object.
    pub(crate) fn read(object: &Value) -> Self {
        let kind = list(object, "disks").first().and_then(|disk| some_text(&disk["table"], "kind"));
        Self {
            table: kind.filter(|kind| kind != "none"),
            volumes: list(object, "volumes").iter().map(volume).collect(),
            warnings: texts(object, "warnings"),
            hostname: some_text(object, "hostname"),
        }
    }

    /// What is on it, in one line.
    pub(crate) fn summary(&self) -> String {
        let named = |volume: &Volume| {
            let called = if volume.name == volume.key { "" } else { &volume.name };
            let kind = volume.filesystem.as_deref().unwrap_or(&volume.role);
            format!("{kind} {called}").trim_end().to_owned()
        };
        let volumes: Vec<_> = self.volumes.iter().map(named).collect();
        match (&self.table, self.volumes.iter().any(|volume| volume.filesystem.is_some())) {
            (Some(table), _) => format!("{}: {}", table.to_uppercase(), volumes.join(", ")),
            (None, true) => format!("no table: {}", volumes.join(", ")),
            (None, false) => "nothing recognised on it".to_owned(),
        }
    }
}

fn volume(object: &Value) -> Volume {
    let key = text(object, "key");
    let identity = some_text(object, "partition_uuid").or_else(|| some_text(object, "uuid"));
    Volume {
        name: text(object, "name"),
        role: text(object, "role"),
        because: text(object, "role_because"),
        filesystem: some_text(object, "filesystem"),
        size: number(object, "size_bytes"),
        used: number(object, "used_bytes"),
        identity: identity.unwrap_or_else(|| key.clone()),
        key,
    }
}

#[cfg(test)]
mod tests {
    use super::Inspected;
    use serde_json::json;

    #[test]
    fn a_disk_is_summed_up_in_a_line() {
        let volumes = json!([
            { "key": "1", "name": "ESP", "filesystem": "vfat", "role": "boot", "partition_uuid": "P" },
            { "key": "2", "name": "2", "filesystem": null, "role": "os", "uuid": null },
        ]);
        let disk = Inspected::read(&json!({ "disks": [{ "table": { "kind": "gpt" } }], "volumes": volumes }));
        assert_eq!(disk.summary(), "GPT: vfat ESP, os");
        assert_eq!((disk.volumes[0].identity.as_str(), disk.volumes[1].identity.as_str()), ("P", "2"));
        let blank = Inspected::read(
            &json!({ "disks": [{ "table": { "kind": "none" } }], "volumes": [{ "key": "0" }] }),
        );
        assert_eq!(blank.summary(), "nothing recognised on it");
    }
}
