//! What `imager list --json` says: the captures of a repository.

use super::{list, number, text};
use serde_json::Value;

/// A capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its id.
    pub(crate) id: String,
    /// Whose it is.
    pub(crate) machine: String,
    /// When it was made.
    pub(crate) time: String,
    /// Its place among those of its machine.
    pub(crate) sequence: u64,
    /// `full`, `incremental` and so on.
    pub(crate) kind: String,
    /// `offline`, `inconsistent` and so on.
    pub(crate) consistency: String,
    /// The disks' size.
    pub(crate) size: u64,
    /// What they used of it.
    pub(crate) used: u64,
    /// What it took on the share.
    pub(crate) stored: u64,
    /// How many parts are missing.
    pub(crate) problems: u64,
}

impl Listed {
    /// Whether it was taken while something wrote to the disks.
    pub(crate) fn is_inconsistent(&self) -> bool {
        self.consistency == "inconsistent"
    }

    /// What sort of capture it is, in words.
    pub(crate) fn sort(&self) -> String {
        let how = match self.consistency.as_str() {
            "offline" => "taken while the server was off",
            "frozen" => "taken from the running server, filesystems frozen",
            "stable" => "taken from the running server, proven quiet",
            "inconsistent" => "INCONSISTENT: taken while the disks were written",
            other => other,
        };
        format!("{}, {how}", self.kind)
    }
}

/// The captures, newest first; and what of the repository could not be read.
pub(crate) fn read(object: &Value) -> (Vec<Listed>, Vec<String>) {
    let mut rows: Vec<_> = list(object, "captures").iter().map(row).collect();
    rows.sort_by(|a, b| (&a.machine, b.sequence, &b.time).cmp(&(&b.machine, a.sequence, &a.time)));
    (rows, super::texts(object, "damaged"))
}

fn row(object: &Value) -> Listed {
    Listed {
        id: text(object, "id"),
        machine: text(object, "machine"),
        time: text(object, "time"),
        sequence: number(object, "sequence"),
        kind: text(object, "kind"),
        consistency: text(object, "consistency"),
        size: number(object, "size_bytes"),
        used: number(object, "used_bytes"),
        stored: number(object, "stored_bytes"),
        problems: number(object, "problems"),
    }
}

/// The machines, each with its captures, newest first.
pub(crate) fn machines(captures: &[Listed]) -> Vec<(&str, Vec<&Listed>)> {
    let mut machines: Vec<(&str, Vec<&Listed>)> = Vec::new();
    for capture in captures {
        match machines.iter_mut().find(|(name, _)| *name == capture.machine) {
            Some((_, of)) => of.push(capture),
            None => machines.push((&capture.machine, vec![capture])),
        }
    }
    machines
}

#[cfg(test)]
mod tests {
    use super::{machines, read};
    use serde_json::json;

    #[test]
    fn captures_are_listed_by_machine_and_newest_first() {
        let row =
            |machine: &str, sequence: u64| json!({ "machine": machine, "sequence": sequence, "id": "x" });
        let object = json!({ "captures": [row("b", 1), row("a", 1), row("a", 2)], "damaged": ["c"] });
        let (rows, damaged) = read(&object);
        let machines = machines(&rows);
        assert_eq!(
            machines.iter().map(|(name, of)| (*name, of.len())).collect::<Vec<_>>(),
            [("a", 2), ("b", 1)]
        );
        assert_eq!((machines[0].1[0].sequence, damaged.len()), (2, 1));
        assert_eq!(read(&json!({})).0, []);
    }
}
