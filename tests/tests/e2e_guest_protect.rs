//! Write protection as the rescue environment sets it, on a real kernel: a restore lifts it for what its plan writes and
//! for nothing else, and it is there again afterwards, however the restore ended.

use halfhour_tests::guest::{Disk, Guest};
use halfhour_tests::{MIB, Scratch, binary, recipe, tool};
use serde_json::{Value, json};

const SERIAL: &str = "HALFHOUR0001";
const NODES: [&str; 5] = ["/dev/sda", "/dev/sda1", "/dev/sda2", "/dev/sda3", "/dev/sda4"];

/// A guest with a machine's disk, captured to a repository at /mnt, its system then overwritten, and everything protected.
fn protected(scratch: &Scratch) -> Option<Guest> {
    let builder = Guest::builder()?.program(binary::imager()).program("blockdev");
    let disk = recipe::machine(scratch, "machine.img");
    let share = scratch.file("share.img", 96 * MIB);
    tool("mke2fs", &["-q", "-F", "-t", "ext4", &share]);
    let builder = builder.module("ext4").module("vfat").module("nls_ascii");
    let mut guest = builder
        .disk(&disk, Disk::Scsi(0x5000_c500_1234_5678), SERIAL)
        .disk(&share, Disk::Virtio, "SHARE")
        .boot();
    guest.expect_node("/dev/vda");
    guest.expect_node("/dev/sda4");
    guest.sh("mount -t ext4 /dev/vda /mnt");
    guest.set("IMAGER_REPO", "/mnt/repository");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", "/dev/sda", "--machine", "m", "--data", "used"]);
    wreck_and_protect(&mut guest);
    Some(guest)
}

fn wreck_and_protect(guest: &mut Guest) {
    NODES.iter().for_each(|node| drop(guest.ok(&["blockdev", "--setrw", node])));
    guest.sh("dd if=/dev/urandom of=/dev/sda2 bs=1M count=8 conv=fsync 2>&1; blockdev --flushbufs /dev/sda");
    NODES.iter().rev().for_each(|node| drop(guest.ok(&["blockdev", "--setro", node])));
}

/// Whether the disk refuses writes, and each partition would by itself: the disk's flag covers them, so it is taken off to
/// see.
fn assert_protected(guest: &mut Guest, after: &str) {
    let mut is_protected = |node: &str| guest.ok(&["blockdev", "--getro", node]).trim() == "1";
    assert!(NODES.iter().all(|node| is_protected(node)), "after {after}");
    guest.ok(&["blockdev", "--setrw", "/dev/sda"]);
    let own = NODES.map(|node| guest.ok(&["blockdev", "--getro", node]).trim().to_owned());
    assert_eq!(own, ["0", "1", "1", "1", "1"], "after {after}");
    guest.ok(&["blockdev", "--setro", "/dev/sda"]);
}

fn restore(more: &[&'static str]) -> Vec<&'static str> {
    [&["restore", "m", "--to", "serial:HALFHOUR0001", "--yes"], more].concat()
}

fn digest(guest: &mut Guest, node: &str) -> String {
    guest.sh(&format!("blockdev --flushbufs /dev/sda; sha256sum < {node}"))
}

#[test]
fn a_protected_disk_is_written_only_when_told_and_protected_again_whatever_happens() {
    let scratch = Scratch::new();
    let Some(mut guest) = protected(&scratch) else { return };
    assert_protected(&mut guest, "setting it");
    // Not told: refused before the first write.
    let before = digest(&mut guest, "/dev/sda");
    let error = guest.imager(4, &restore(&[]))["error"].clone();
    let said = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    assert!(said("message").contains("write-protected") && said("advice").contains("--unprotect"), "{error}");
    let plan = guest.imager(0, &restore(&["--plan"]));
    assert!(plan["warnings"].to_string().contains("--unprotect"), "{plan}");
    guest.imager(0, &restore(&["--plan", "--unprotect"]));
    assert_eq!(digest(&mut guest, "/dev/sda"), before, "nothing was written");
    assert_protected(&mut guest, "a refusal");
    // Interrupted in the middle.
    let words = [&["imager", "--limit", "2M"][..], &restore(&["--unprotect", "--report"])].concat();
    let job = guest.start(&words);
    let process = guest.process(&job);
    let flags = guest
        .sh("for n in $(seq 900); do [ $(blockdev --getro /dev/sda) = 0 ] && break; sleep 0.05; done; \
         for n in '' 1 2 3 4; do blockdev --getro /dev/sda$n; done");
    // The data volume and the swap space keep their own, the ESP and the system are written.
    assert_eq!(flags.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "1", "1"], "while it runs");
    guest.ok(&["kill", "-INT", &process]);
    assert_eq!(guest.wait(&job).code, 130);
    assert_protected(&mut guest, "an interruption");
    // To its end.
    let report = guest.imager(0, &restore(&["--unprotect", "--report"]));
    assert_eq!((&report["verified"], &report["warnings"]), (&json!(true), &json!([])), "{report}");
    assert_protected(&mut guest, "a restore");
    // A disk made anew has partitions made anew.
    let words = restore(&["--bare-metal", "--erase", SERIAL, "--unprotect", "--report"]);
    let report = guest.imager(0, &words);
    assert_eq!(report["warnings"], json!([]), "the kernel took the new table: {report}");
    guest.expect_node("/dev/sda4");
    assert_protected(&mut guest, "a restore to bare metal");
    reports(&mut guest);
    guest.sh("umount /mnt");
    guest.end();
}

/// Each restore that began has left a report.
fn reports(guest: &mut Guest) {
    let listed = guest.imager(0, &["reports", "m"]);
    let reports = listed["reports"].as_array().expect("a list");
    let codes: Vec<_> = reports.iter().map(|report| report["exit_status"].clone()).collect();
    assert_eq!(codes, [json!(130), json!(0), json!(0)], "{listed}");
    for report in reports {
        assert_eq!(
            (&report["machine"], &report["targets"][0]["serial"]),
            (&json!("m"), &json!(SERIAL)),
            "{report}"
        );
    }
    assert_eq!(reports.first().map(|report| &report["error"]["kind"]), Some(&json!("cancelled")));
    assert!(
        reports
            .iter()
            .skip(1)
            .all(|report| report["result"]["verified"] == true && report["error"] == Value::Null)
    );
}

/// What the kernel promises of a disk that refuses writes is about the disk's own node. Whatever is built on it writes
/// all the same (`bio_check_ro` in block/blk-core.c only warns), so the rescue environment protects each mapping too.
#[test]
fn a_mapping_writes_to_a_protected_disk_unless_it_is_protected_itself() {
    let scratch = Scratch::new();
    let Some(builder) = Guest::builder() else { return };
    let builder = builder.program("blockdev").program("dmsetup").module("dm_mod");
    let disk = scratch.file("disk.img", 16 * MIB);
    let mut guest = builder.disk(&disk, Disk::Virtio, SERIAL).boot();
    guest.expect_node("/dev/vda");
    let create =
        |name: &str| format!("echo '0 2048 linear /dev/vda 0' | DM_DISABLE_UDEV=1 dmsetup create {name}");
    guest.sh(&create("before"));
    guest.sh("blockdev --setro /dev/vda");
    guest.sh(&create("after"));
    for (number, name) in ["before", "after"].iter().enumerate() {
        let node = format!("/dev/dm-{number}");
        guest.expect_node(&node);
        let mut try_write = |to: &str| {
            let line = format!(
                "w() {{ set -- $(cat /sys/block/vda/stat); echo $7; }}; a=$(w); \
                 r=0; dd if=/dev/zero of={to} bs=4096 count=1 conv=fsync 2>/dev/null || r=1; echo $r $(($(w) - a))"
            );
            guest.sh(&line).trim().to_owned()
        };
        assert_eq!(try_write("/dev/vda"), "1 0", "the disk");
        // The eight sectors are on the disk.
        assert_eq!(try_write(&node), "0 8", "the mapping made {name}");
        guest.ok(&["blockdev", "--setro", &node]);
        assert_eq!(guest.run(&["dd", "if=/dev/zero", &format!("of={node}"), "bs=4096", "count=1"]).code, 1);
        guest.ok(&["dmsetup", "remove", name]);
    }
    guest.sh("dmesg | grep -q 'read-only block'");
    guest.end();
}
