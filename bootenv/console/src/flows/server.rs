//! A repository in order, and a machine that can be restored from it: what `imager` says of them.

use crate::disk::Disk;
use crate::documents::inspected::Inspected;
use serde_json::{Value, json};

pub(super) fn disk(path: &str, serial: &str, size: u64) -> Disk {
    Disk {
        path: path.to_owned(),
        model: "DISK".to_owned(),
        serial: Some(serial.to_owned()),
        wwn: None,
        size,
        sector: 512,
        is_block: true,
        uses: Vec::new(),
        is_medium: false,
        holds_repository: false,
        content: Ok(Inspected::read(&json!({
            "disks": [{ "table": { "kind": "gpt" } }], "hostname": "Web1.example.net",
            "volumes": [
                { "key": "1", "name": "ESP", "role": "boot", "filesystem": "vfat", "partition_uuid": format!("{serial}-1") },
                { "key": "2", "name": "/", "role": "os", "filesystem": "ext4", "partition_uuid": format!("{serial}-2") },
            ],
        }))),
    }
}

pub(super) fn failure(code: i32, message: &str) -> (i32, Value) {
    (code, json!({ "error": { "kind": "denied", "message": message, "advice": "do this" } }))
}

fn volume(key: &str, role: &str, start: u64, len: u64) -> Value {
    json!({
        "disk": 1, "key": key, "name": format!("name{key}"), "role": role, "mode": "used", "size_bytes": len,
        "used_bytes": len, "segments": [{ "disk": 1, "start_byte": start, "len_bytes": len }],
    })
}

/// A repository in order, and a machine that can be restored.
pub(super) fn well(line: &str) -> (i32, Value) {
    if line.contains(" list ") {
        let row = |machine: &str, sequence: u64, consistency: &str| {
            json!({ "id": format!("{sequence}{machine}"), "machine": machine, "sequence": sequence, "kind": "full",
                    "time": format!("2026-11-2{sequence}T05:00:00Z"), "consistency": consistency })
        };
        let rows = [row("db1", 1, "offline"), row("web1", 2, "offline"), row("web1", 3, "inconsistent")];
        return (0, json!({ "captures": rows, "damaged": [] }));
    }
    if line.contains(" show ") {
        let disk = json!({ "disk": 1, "serial": "s1", "model": "DISK", "size_bytes": 100, "logical_sector_bytes": 512,
                           "table": { "kind": "gpt" } });
        let volumes = [volume("1", "boot", 1, 9), volume("2", "os", 10, 50), volume("3", "data", 60, 30)];
        return (
            0,
            json!({ "capture": "2web1", "machine": "web1", "time": "2026-11-22T05:00:00Z", "disks": [disk],
                           "volumes": volumes, "warnings": [], "not_captured": ["volume 4: ignored"] }),
        );
    }
    if line.contains("--plan") {
        let disk = json!({ "disk": 1, "target": "/dev/sda", "model": "DISK", "serial": "S1", "size_bytes": 100,
                           "scope": "volumes go back", "volumes": [{ "key": "2", "role": "os", "size_bytes": 50 }],
                           "untouched": ["3"], "writes_boot_code": true });
        return (0, json!({ "plan": "cafe", "disks": [disk], "warnings": ["mind the gap"] }));
    }
    if line.contains(" restore ") {
        let untouched = json!([{ "key": "3", "unchanged": true, "proof": "4096 samples" }]);
        return (
            0,
            json!({ "written_bytes": 1024, "verified": true, "volumes": [{ "key": "2", "complete": true }],
                           "untouched": untouched, "problems": [], "warnings": [] }),
        );
    }
    if line.contains(" capture ") {
        return (
            0,
            json!({ "capture": "x", "machine": "web1", "volumes": [], "not_captured": ["volume 9 of the data"] }),
        );
    }
    panic!("nobody expected {line}");
}
