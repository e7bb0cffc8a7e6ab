//! The screens that the README shows: of a server as there are many.

use super::Person;
use super::server::disk;
use crate::disk::Disk;
use crate::page::Page;
use crate::share::Field;
use serde_json::{Value, json};

/// A server as there are many.
fn server(line: &str) -> (i32, Value) {
    const GIB: u64 = 1 << 30;
    if line.contains(" list ") {
        let row = |sequence: u64, time: &str| {
            json!({ "id": "56d73dfe8ef2ca60b67596b8cd265bf7", "machine": "web1", "sequence": sequence, "time": time,
                    "kind": "incremental", "consistency": "offline", "size_bytes": 480 * GIB, "used_bytes": 9 * GIB })
        };
        let rows =
            [row(1, "2026-11-20T05:00:00Z"), row(2, "2026-11-21T05:00:00Z"), row(3, "2026-11-22T05:00:00Z")];
        return (0, json!({ "captures": rows }));
    }
    let sizes = [
        ("1", "/boot/efi", "boot", 1),
        ("2", "/", "os", 60),
        ("3", "/srv", "data", 400),
        ("4", "swap", "swap", 8),
    ];
    if line.contains(" show ") {
        let disk = json!({ "disk": 1, "serial": "S6ESNX0R504127", "model": "SAMSUNG MZ7L3480", "size_bytes": 480 * GIB,
                           "logical_sector_bytes": 512, "table": { "kind": "gpt" } });
        let volumes = sizes.map(|(key, name, role, gib)| {
            json!({ "disk": 1, "key": key, "name": name, "role": role, "mode": "used", "size_bytes": gib * GIB,
                    "used_bytes": gib * GIB / 7, "segments": [{ "disk": 1, "start_byte": 0, "len_bytes": gib * GIB }] })
        });
        return (
            0,
            json!({ "capture": "56d73dfe8ef2ca60b67596b8cd265bf7", "machine": "web1",
                           "time": "2026-11-22T05:00:00Z", "disks": [disk], "volumes": volumes }),
        );
    }
    let volumes = [0, 1].map(|index: usize| {
        let (key, name, role, gib) = sizes[index];
        json!({ "disk": 1, "key": key, "name": name, "role": role, "size_bytes": gib * GIB, "content_bytes": gib * GIB / 7 })
    });
    let disk = json!({ "disk": 1, "target": "/dev/sda", "model": "SAMSUNG MZ7L3480", "serial": "S6ESNX0R504127",
                       "size_bytes": 480 * GIB, "scope": "volumes go back into their partitions", "volumes": volumes,
                       "untouched": ["3", "4"], "writes_boot_code": true });
    (0, json!({ "plan": "9d41c6e2b07a3f58", "disks": [disk], "warnings": [] }))
}

/// The screens that the README shows, by the names of their files.
pub(crate) fn pictures() -> Vec<(&'static str, Page)> {
    let mut person = Person::with(server, |known| {
        known.place.release = Some("Halfhour 0.1.0".to_owned());
        known.share.set(Field::Place, "https://backup.example.net:8443/default");
    });
    let ours = disk("/dev/sda", "S6ESNX0R504127", 480 << 30);
    let other = Disk { model: "WDC WD4003FRYZ".to_owned(), ..disk("/dev/sdb", "VBHW1R6F", 3726 << 30) };
    let medium =
        Disk { model: "SanDisk Ultra".to_owned(), is_medium: true, ..disk("/dev/sdc", "4C530001", 14 << 30) };
    person.disks = vec![Disk { model: "SAMSUNG MZ7L3480".to_owned(), ..ours }, other, medium];
    person.picks("Restore a server");
    person.picks("The share that is set");
    person.picks("web1");
    person.picks("2026-11-22");
    person.picks("The operating system");
    let target = person.page();
    person.picks("S6ESNX0R504127");
    vec![("target.txt", target), ("plan.txt", person.page())]
}
