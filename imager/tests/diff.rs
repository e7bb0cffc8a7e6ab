//! What changed between captures of a real disk, against what was changed on it.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a small disk, and what fails has failed"
)]

mod captured;

use captured::{Fixture, MAKERS, MIB, PARTITIONS, command, have, noise, run, text};
use imager::diff::{self, Presence, VolumeDiff};
use imager::map::{MapReader, block_extent};
use imager::monitor::Silent;
use imager_image::manifest::{Manifest, Map, Run};
use imager_image::node::Content;
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet};
use std::fs;

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
}

fn set(runs: &[Run]) -> ExtentSet {
    runs.iter().copied().map(Run::extent).collect()
}

fn of<'d>(report: &'d diff::DiffReport, key: &str) -> &'d VolumeDiff {
    report.volumes.iter().find(|volume| volume.key == key).unwrap()
}

fn map<'m>(manifest: &'m Manifest, key: &str) -> &'m Map {
    manifest.volumes.iter().find(|volume| volume.key == key).unwrap().map.as_ref().unwrap()
}

/// What counts in a volume.
fn counting(fixture: &Fixture, map: &Map) -> ExtentSet {
    let mut reader = MapReader::new(fixture.repository.frames().unwrap(), map).unwrap();
    let (size, unit) = (reader.size(), reader.unit());
    let mut found = ExtentSet::new();
    for index in 0..reader.blocks() {
        let entry = reader.entry(index).unwrap();
        let block = block_extent(index, size);
        for run in entry.mask.runs(unit, block.len().to_usize().unwrap()) {
            found.insert(extent(block.start().get() + run.start as u64, run.len() as u64));
        }
    }
    found
}

/// The naive model: every block of both maps, looked at on its own.
fn naive(fixture: &Fixture, before: &Map, after: &Map) -> (ExtentSet, ExtentSet, ExtentSet) {
    let open = |map| MapReader::new(fixture.repository.frames().unwrap(), map).unwrap();
    let (mut a, mut b) = (open(before), open(after));
    let (had, has) = (counting(fixture, before), counting(fixture, after));
    let mut changed = ExtentSet::new();
    for index in 0..a.blocks().min(b.blocks()) {
        let (x, y) = (a.entry(index).unwrap().content, b.entry(index).unwrap().content);
        let same = match (x, y) {
            (Content::Data(x, _), Content::Data(y, _)) => x == y,
            (x, y) => x == y,
        };
        if !same {
            changed.insert(block_extent(index, a.size()));
        }
    }
    let both = had.intersection(&has);
    (changed.intersection(&both), has.difference(&had), had.difference(&has))
}

fn agrees(fixture: &Fixture, volume: &VolumeDiff, before: &Manifest, after: &Manifest) {
    let (changed, added, freed) = naive(fixture, map(before, &volume.key), map(after, &volume.key));
    assert_eq!(set(&volume.changed_extents), changed, "changed in {}", volume.key);
    assert_eq!(set(&volume.added_extents), added, "added in {}", volume.key);
    assert_eq!(set(&volume.freed_extents), freed, "freed in {}", volume.key);
    assert_eq!(volume.changed_bytes, changed.total().get());
    assert_eq!(volume.added_bytes, added.total().get());
    assert_eq!(volume.freed_bytes, freed.total().get());
    assert!(volume.exact_extents);
}

#[test]
fn equal_captures_do_not_differ_and_changed_bytes_are_named() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let first = fixture.capture();
    let second = fixture.capture();
    let report = diff::run(&fixture.repository, &first, &second, &Silent::default()).unwrap();
    assert_eq!((report.changed_bytes, report.added_bytes, report.freed_bytes), (0, 0, 0));
    assert_eq!(report.volumes.len(), 5);
    assert!(report.volumes.iter().all(|volume| volume.presence == Presence::Both));

    // Within what counts: in the second volume and in the boot code of the gap.
    let device = format!("{}?offset={}", text(&fixture.image), PARTITIONS[1].0 * MIB);
    let blocks = run("debugfs", &["-R", "blocks /etc/conf.d/noise0", &device]);
    let blocks: Vec<u64> =
        blocks.split_whitespace().skip(100).take(400).map(|n| n.parse().unwrap()).collect();
    assert!(blocks.windows(2).all(|pair| pair[1] == pair[0] + 1), "a file in one piece");
    let at = blocks[0] * 4096 + 1000;
    fixture.poke(PARTITIONS[1].0 * MIB + at, &noise(5, 1_500_000));
    fixture.poke(100 * 512 + 7, b"x");
    let third = fixture.capture();
    let report = diff::run(&fixture.repository, &second, &third, &Silent::default()).unwrap();
    let volume = of(&report, "2");
    agrees(&fixture, volume, &second, &third);
    // To the block: everything that was changed, and nothing further off than a block.
    let poked = extent(at, 1_500_000);
    let changed = set(&volume.changed_extents);
    assert!(changed.contains(poked));
    let around = poked.align_out(ByteLen::new(65_536));
    assert!(changed.iter().all(|e| around.contains(e)), "{changed:?}");
    let gap = of(&report, "1:remainder");
    let sector = extent(100 * 512, 512);
    assert!(set(&gap.changed_extents).contains(sector) && gap.changed_bytes <= 65_536);
    for other in ["1", "3", "4"] {
        assert_eq!(of(&report, other).changed_bytes, 0, "volume {other}");
    }
    assert_eq!(report.changed_bytes, volume.changed_bytes + gap.changed_bytes);
    // The other way round the same bytes differ.
    let back = diff::run(&fixture.repository, &third, &second, &Silent::default()).unwrap();
    assert_eq!(back.changed_bytes, report.changed_bytes);
}

#[test]
fn files_that_come_and_go_are_added_and_freed() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let first = fixture.capture();
    let part = fixture.path("part");
    let (start, len) = (PARTITIONS[3].0 * MIB, PARTITIONS[3].1 * MIB);
    let disk = fs::read(&fixture.image).unwrap();
    fs::write(&part, &disk[start as usize..(start + len) as usize]).unwrap();
    let new = fixture.path("new");
    fs::write(&new, noise(77, 4_000_000)).unwrap();
    run("debugfs", &["-w", "-R", "rm /etc/conf.d/noise0", text(&part)]);
    run("debugfs", &["-w", "-R", &format!("write {} new", text(&new)), text(&part)]);
    let check = command("e2fsck").args(["-fn", text(&part)]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    fixture.poke(start, &fs::read(&part).unwrap());
    let second = fixture.capture();
    let report = diff::run(&fixture.repository, &first, &second, &Silent::default()).unwrap();
    let volume = of(&report, "4");
    agrees(&fixture, volume, &first, &second);
    // The new file may have gone where the old one was.
    let moved = volume.changed_bytes + volume.added_bytes;
    assert!(moved >= 4_000_000 && volume.freed_bytes >= 10_000_000, "{moved} {}", volume.freed_bytes);
    assert_eq!(of(&report, "2").changed_bytes, 0);
}

#[test]
fn volumes_that_came_went_or_grew_are_named() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let first = fixture.capture();
    let mut before = first.clone();
    before.volumes.retain(|volume| volume.key != "4");
    let mut after = first.clone();
    after.volumes.retain(|volume| volume.key != "1");
    let report = diff::run(&fixture.repository, &before, &after, &Silent::default()).unwrap();
    assert_eq!(of(&report, "4").presence, Presence::Added);
    assert_eq!(of(&report, "1").presence, Presence::Removed);
    assert_eq!((of(&report, "4").size_bytes_before, of(&report, "1").size_bytes_after), (None, None));
    assert_eq!(report.changed_bytes, 0);
    assert_eq!(serde_json::to_value(&report).unwrap()["volumes"][0]["presence"], "both");

    // Volumes of other sizes are compared as far as both go: the third against the fourth under one key.
    let rename = |manifest: &Manifest, key: &str| {
        let mut manifest = manifest.clone();
        manifest.volumes.retain(|volume| volume.key == key);
        manifest.volumes[0].key = "9".to_owned();
        manifest
    };
    for (a, b) in [("2", "4"), ("4", "2"), ("3", "1"), ("1", "4")] {
        let (x, y) = (rename(&first, a), rename(&first, b));
        let report = diff::run(&fixture.repository, &x, &y, &Silent::default()).unwrap();
        let volume = of(&report, "9");
        assert_ne!(volume.size_bytes_before, volume.size_bytes_after);
        agrees(&fixture, volume, &x, &y);
    }
}
