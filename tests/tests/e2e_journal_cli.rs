//! `imager journal` as a person and a script use it.

use halfhour_tests::{LoopDisk, MIB, Scratch, journal, junk, tool};
use serde_json::{Value, json};
use std::path::Path;

/// What is said of a disk among all that are recorded.
fn of(status: &Value, disk: &str) -> Option<Value> {
    let disks = status["disks"].as_array().expect("a list");
    disks.iter().find(|one| one["disk"] == disk).cloned()
}

/// Ceases to record a disk, also when the test failed.
struct Stop<'a>(&'a str);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let _was_stopped = imager_journal::Journal::stop(self.0);
    }
}

#[test]
fn the_journal_is_started_looked_at_and_stopped() {
    if !journal::can_follow() {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager_without_repository();
    let Some(disk) = LoopDisk::attach(&scratch.file("disk.img", 64 * MIB), 512) else { return };
    let (node, name) = (disk.path.as_str(), disk.name());
    // Others may be recorded too, and in doubt.
    let status = || of(&imager.run_json(&["journal", "status"]).json(), name);
    assert_eq!(status(), None);
    imager.fails(1, &["journal", "stop", node]);
    let started = imager.json(&["journal", "start", node]);
    let _stopped = Stop(name);
    assert_eq!(started["disks"], json!([{ "disk": name, "started": true }]));
    assert_eq!(imager.json(&["journal", "start", node])["disks"][0]["started"], false);
    junk::over(Path::new(node), 0, 100_000);
    tool("sync", &["-d", node]);
    let told = status().expect("it is recorded");
    assert_eq!(
        (&told["recorded"], &told["doubt"], &told["cursors"]),
        (&json!(true), &Value::Null, &json!([]))
    );
    assert_eq!((&told["written_bytes"], &told["size_bytes"]), (&json!(128 << 10), &json!(64 * MIB)));
    let text = imager.run(&["journal", "status"]).stdout;
    assert!(
        text.contains(&format!("{name}: 64.0 MiB, recorded since")) && text.contains("every write was seen"),
        "{text}"
    );
    assert!(imager.ok(&["journal", "stop", node]).stdout.contains(name));
    assert_eq!(status(), None);
}

#[test]
fn what_cannot_be_recorded_is_refused_with_the_reason() {
    if !journal::can_follow() {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager_without_repository();
    let file = scratch.file("disk.img", 64 * MIB);
    let said = imager.fails(64, &["journal", "start", &file])["message"].to_string();
    assert!(said.contains("no block device"), "{said}");
    let Some(disk) = LoopDisk::attach(&file, 512) else { return };
    let switch = format!("/sys/block/{}/queue/iostats", disk.name());
    std::fs::write(&switch, "0").expect("a switch");
    let said = imager.fails(1, &["journal", "start", &disk.path])["message"].to_string();
    std::fs::write(&switch, "1").expect("a switch");
    assert!(said.contains("statistics") && said.contains("iostats"), "{said}");
}
