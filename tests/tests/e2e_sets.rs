//! A filesystem on several devices goes back whole or not at all: what would leave one of its devices as it is now, beside
//! others as they were, is refused before anything is written.

use halfhour_tests::{Imager, Scratch, judge, need, table, tool};

const ID: &str = "44444444-0000-4000-8000-000000000001";
const DEVICE_MIB: u64 = 128;

/// Makes the devices anew; the filesystem is always the same one, which mkfs must not see.
fn make(devices: &[String]) {
    for device in devices {
        let file = std::fs::File::create(device).expect("a file");
        file.set_len(DEVICE_MIB << 20).expect("its length");
    }
    let paths: Vec<_> = devices.iter().map(String::as_str).collect();
    tool("mkfs.btrfs", &[&["-q", "-f", "-m", "raid1", "-d", "raid0", "-U", ID], &paths[..]].concat());
}

fn device(scratch: &Scratch, name: &str) -> String {
    scratch.file(name, DEVICE_MIB << 20)
}

fn digest(disk: &str) -> String {
    judge::digest(disk, 0, std::fs::metadata(disk).expect("a file").len())
}

/// Refused with these words, and nothing is written.
fn refused(imager: &Imager, arguments: &[&str], disks: &[&String], words: &str) {
    let before: Vec<_> = disks.iter().map(|disk| digest(disk)).collect();
    let error = imager.fails(4, arguments);
    let said = error["message"].as_str().expect("a message");
    assert!(said.contains(words), "{said:?} says {words:?}");
    assert_eq!(before, disks.iter().map(|disk| digest(disk)).collect::<Vec<_>>(), "nothing is written");
}

#[test]
fn half_of_a_filesystem_is_not_put_back_beside_the_other_half() {
    if !need::programs(&["mkfs.btrfs"]) {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let disks = [device(&scratch, "first"), device(&scratch, "second")];
    make(&disks);
    let captured = imager.json(&["capture", &disks[0], "--machine", "m"]);
    let said = captured["warnings"].to_string();
    assert!(said.contains("lies on 2 devices, of which only volume 0"), "{said}");
    let words = "the filesystem of volume 0 lies on 2 devices, of which the capture has 1: put back beside the others";
    refused(&imager, &["restore", "m", "--to", &disks[0], "--yes"], &[&disks[0], &disks[1]], words);
    refused(&imager, &["restore", "m", "--to", &disks[0], "--plan"], &[&disks[0]], words);
    let empty = device(&scratch, "empty");
    let report = imager.json(&["restore", "m", "--to", &empty, "--bare-metal", "--yes"]);
    let said = report["warnings"].to_string();
    assert!(said.contains("of which the capture has 1: without the others it cannot be used"), "{said}");
    // Both together go back; to what has a third device by now they do not.
    imager.ok(&["capture", &disks[0], &disks[1], "--machine", "both"]);
    let (first, second) = (format!("1={}", disks[0]), format!("2={}", disks[1]));
    let both = ["restore", "both", "--to", &first, "--to", &second, "--yes"];
    assert_eq!(imager.json(&both)["verified"], true);
    let third = device(&scratch, "third");
    make(&[disks[0].clone(), disks[1].clone(), third.clone()]);
    let words = "now, and had 2 when it was captured";
    refused(&imager, &both, &[&disks[0], &disks[1], &third], words);
    // As it is a new one, with two devices again.
    make(&disks);
    assert_eq!(imager.json(&both)["verified"], true);
}

#[test]
fn a_device_that_came_since_the_capture_is_not_left_beside() {
    if !need::programs(&["mkfs.btrfs", "sfdisk"]) {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let sectors = DEVICE_MIB << 11;
    let script = format!(
        "label: gpt\nlabel-id: {ID}\nstart=2048, size={sectors}, type=linux, uuid={ID}\n\
         start={}, size={sectors}, type=linux, uuid=44444444-0000-4000-8000-000000000002\n",
        2048 + sectors
    );
    let disks = ["disk1", "disk2"].map(|name| {
        let disk = scratch.file(name, (2 * DEVICE_MIB + 4) << 20);
        table::write(&disk, &script);
        disk
    });
    let parts = [device(&scratch, "part1"), device(&scratch, "part2")];
    make(&parts);
    place(&parts[0], &disks[0], 2048);
    place(&parts[1], &disks[1], 2048);
    imager.ok(&["capture", &disks[0], &disks[1], "--machine", "m"]);
    let (first, second) = (format!("1={}", disks[0]), format!("2={}", disks[1]));
    let arguments =
        ["restore", "m", "--to", &first, "--to", &second, "--volume", "1", "--volume", "2:1", "--yes"];
    assert_eq!(imager.json(&arguments)["verified"], true);
    // The second device moved to the other partition of the first disk.
    make(&parts);
    place(&parts[0], &disks[0], 2048);
    place(&parts[1], &disks[0], 2048 + sectors);
    refused(&imager, &arguments, &[&disks[0], &disks[1]], "volume 2 of ");
}

/// Puts the content of a partition onto a disk.
fn place(part: &str, disk: &str, sector: u64) {
    let (from, to, seek) = (format!("if={part}"), format!("of={disk}"), format!("seek={}", sector * 512));
    tool("dd", &[&from, &to, &seek, "bs=64K", "oflag=seek_bytes", "conv=notrunc,sparse", "status=none"]);
}
