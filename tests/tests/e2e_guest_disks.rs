//! The rules for targets on disks as servers have them: NVMe, SCSI and virtio, partitions that the kernel itself found,
//! device mapper and md on top, and a power cut in the middle.

use halfhour_tests::guest::{Builder, Disk, Guest};
use halfhour_tests::{LoopDisk, MIB, Scratch, binary, judge, recipe, table, tool};
use serde_json::{Value, json};

const SERIAL: &str = "HALFHOUR0001";

/// A machine's disk, as it was made, and a folder for the repository on a disk of its own.
struct Machine {
    scratch: Scratch,
    disk: String,
    original: String,
    share: String,
}

impl Machine {
    /// With logical sectors of so many bytes.
    fn new(sector: u32) -> Option<Self> {
        let scratch = Scratch::new();
        let disk = recipe::machine(&scratch, "machine.img");
        if sector != 512 {
            let len = std::fs::metadata(&disk).expect("the disk").len();
            // The same volumes under a table of other sectors.
            for at in [0, len - MIB] {
                let zeros = vec![0; usize::try_from(MIB).expect("small")];
                halfhour_tests::junk::poke(std::path::Path::new(&disk), at, &zeros);
            }
            let attached = LoopDisk::attach(&disk, sector)?;
            table::write(&attached.path, &recipe::machine_table(sector.into()));
        }
        let original = scratch.copy(&disk, "original.img");
        let share = scratch.file("share.img", 96 * MIB);
        tool("mke2fs", &["-q", "-F", "-t", "ext4", &share]);
        Some(Self { scratch, disk, original, share })
    }

    fn boot(&self, disk: Disk) -> Option<Guest> {
        Some(self.start(Guest::builder()?, disk))
    }

    /// A guest with the disk, and the repository mounted at /mnt.
    fn start(&self, builder: Builder, disk: Disk) -> Guest {
        let builder =
            builder.program(binary::imager()).program("dmsetup").program("mdadm").program("blockdev");
        let builder =
            builder.module("ext4").module("vfat").module("nls_ascii").module("dm_mod").module("raid1");
        let mut guest =
            builder.disk(&self.disk, disk, SERIAL).disk(&self.share, Disk::Virtio, "SHARE").boot();
        guest.expect_node("/dev/vda");
        guest.sh("mount -t ext4 /dev/vda /mnt");
        guest.set("IMAGER_REPO", "/mnt/repository");
        // device-mapper without udev.
        guest.set("DM_DISABLE_UDEV", "1");
        guest
    }

    fn assert_restored(&self) {
        for (number, kind) in [(0, "fat12"), (1, "ext4"), (2, "ext4")] {
            let (start, mib) = recipe::MACHINE[number];
            let parts = [&self.original, &self.disk].map(|image| {
                let to = format!("{image}.{number}");
                judge::extract(image, start * MIB, mib * MIB, &to);
                to
            });
            judge::assert_same_filesystem(
                &parts[0],
                &parts[1],
                kind,
                &self.scratch,
                &format!("volume {}", number + 1),
            );
        }
    }
}

fn wreck(guest: &mut Guest, node: &str) {
    guest.sh(&format!("dd if=/dev/urandom of={node} bs=1M count=8 conv=fsync 2>&1"));
}

fn told(report: &Value) -> Vec<Value> {
    let untouched = report["untouched"].as_array().expect("a list");
    untouched.iter().map(|one| json!([one["key"], one["unchanged"], one["written_bytes"]])).collect()
}

fn message(guest: &mut Guest, code: i32, arguments: &[&str]) -> String {
    let error = guest.imager(code, arguments)["error"].clone();
    println!("{}: {} ({})", arguments.join(" "), error["message"], error["advice"]);
    error["message"].as_str().unwrap_or_default().to_owned()
}

/// What holds for every kind of disk: found by name, written through its partitions, the others proven untouched.
fn restored_in_place(disk: Disk, sector: u32, node: &str, part: &str) {
    let Some(machine) = Machine::new(sector) else { return };
    let Some(mut guest) = machine.boot(disk.clone()) else { return };
    guest.expect_node(&format!("{node}{part}4"));
    guest.imager(0, &["init"]);
    let seen = guest.imager(0, &["inspect", node])["disks"][0].clone();
    println!("{seen}");
    assert_eq!((&seen["serial"], &seen["logical_sector_bytes"]), (&json!(SERIAL), &json!(sector)), "{seen}");
    guest.imager(0, &["capture", &format!("serial:{SERIAL}"), "--machine", "m"]);
    let mut name = format!("serial:{SERIAL}");
    if let Disk::Scsi(wwn) = disk {
        let shown = seen["wwn"].as_str().unwrap_or_default();
        assert!(shown.contains(&format!("{wwn:x}")), "{seen}");
        name = format!("wwn:{shown}");
    }
    // A page that is cached through the partition before is not what is seen after.
    let root = format!("{node}{part}2");
    wreck(&mut guest, &root);
    let before = guest.sh(&format!("dd if={root} bs=4096 count=8 2>/dev/null | sha256sum"));
    let report = guest.imager(0, &["restore", "m", "--to", &name, "--yes"]);
    // Debian 12's kernel does not count what is written to an NVMe disk that may have several paths (its iostats are 0):
    // then the samples alone tell.
    let written = if matches!(disk, Disk::Nvme(_)) { Value::Null } else { json!(0) };
    assert_eq!(
        told(&report),
        [json!(["3", true, written]), json!(["4", true, written])],
        "by the kernel's count: {report}"
    );
    assert_eq!((&report["verified"], &report["warnings"]), (&json!(true), &json!([])), "{report}");
    let after = guest.sh(&format!("dd if={root} bs=4096 count=8 2>/dev/null | sha256sum"));
    assert_ne!(before, after, "the cache of the partition is fresh");
    guest.sh(&format!("mkdir -p /tmp/root && mount -t ext4 -o ro {root} /tmp/root && cat /tmp/root/etc/fstab && umount /tmp/root"));
    for number in 1..=4 {
        assert_eq!(guest.sh(&format!("blockdev --getro {node}{part}{number}")).trim(), "0", "writable again");
    }
    // A plan's hash is as good as a name.
    let plan = guest.imager(0, &["restore", "m", "--to", node, "--plan"]);
    let hash = plan["plan"].as_str().expect("a hash").to_owned();
    wreck(&mut guest, &root);
    guest.imager(4, &["restore", "m", "--to", node, "--confirm", "0123456789abcdef"]);
    guest.imager(0, &["restore", "m", "--to", node, "--confirm", &hash]);
    // Bare metal onto the same disk, which is not blank: only with its name.
    message(&mut guest, 4, &["restore", "m", "--to", &name, "--bare-metal", "--yes"]);
    guest.imager(0, &["restore", "m", "--to", &name, "--bare-metal", "--erase", SERIAL, "--yes"]);
    guest.expect_node(&format!("{node}{part}4"));
    guest.sh("umount /mnt");
    guest.end();
    machine.assert_restored();
}

#[test]
fn an_nvme_disk_with_sectors_of_4096_bytes_is_restored_in_place() {
    restored_in_place(Disk::Nvme(4096), 4096, "/dev/nvme0n1", "p");
}

#[test]
fn a_scsi_disk_is_restored_by_its_world_wide_name() {
    restored_in_place(Disk::Scsi(0x5000_c500_1234_5678), 512, "/dev/sda", "");
}

#[test]
fn what_is_held_by_anything_is_not_written() {
    let Some(machine) = Machine::new(512) else { return };
    let Some(mut guest) = machine.boot(Disk::Nvme(512)) else { return };
    let disk = "/dev/nvme0n1";
    guest.expect_node("/dev/nvme0n1p4");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", disk, "--machine", "m"]);
    let restore = ["restore", "m", "--to", disk, "--plan"];
    let refused = |guest: &mut Guest, words: &str| {
        let said = message(guest, 4, &restore);
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    };
    guest.sh("mkdir -p /tmp/srv; mount -t ext4 /dev/nvme0n1p3 /tmp/srv");
    refused(&mut guest, "/tmp/srv");
    guest.sh("umount /tmp/srv; swapon /dev/nvme0n1p4");
    refused(&mut guest, "nvme0n1p4");
    guest.sh("swapoff /dev/nvme0n1p4");
    guest.sh("echo \"0 $(blockdev --getsz /dev/nvme0n1p2) linear /dev/nvme0n1p2 0\" | dmsetup create held");
    refused(&mut guest, "nvme0n1p2");
    guest.sh("dmsetup remove held");
    guest.sh("mdadm --build /dev/md0 --level=1 --raid-devices=2 --force /dev/nvme0n1p3 missing 2>&1");
    refused(&mut guest, "nvme0n1p3");
    guest.sh("mdadm --stop /dev/md0 2>&1");
    // The disk that holds the repository.
    let said = message(&mut guest, 4, &["restore", "m", "--to", "/dev/vda", "--plan"]);
    assert!(said.contains("repository"), "{said}");
    guest.imager(0, &restore);
    guest.sh("umount /mnt");
    guest.end();
}

#[test]
fn a_restore_that_loses_power_leaves_nothing_that_looks_whole_and_is_run_again() {
    let Some(machine) = Machine::new(512) else { return };
    let Some(mut guest) = machine.boot(Disk::Nvme(512)) else { return };
    guest.expect_node("/dev/nvme0n1p4");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", "/dev/nvme0n1", "--machine", "m"]);
    wreck(&mut guest, "/dev/nvme0n1p2");
    guest.sh("sync; umount /mnt; mount -t ext4 -o ro /dev/vda /mnt");
    let (name, root) = (format!("serial:{SERIAL}"), "/dev/nvme0n1p2");
    let job = guest.start(&["imager", "--limit", "2M", "restore", "m", "--to", &name, "--yes"]);
    guest.process(&job);
    // In the middle of it: the head is gone, and what differs is being written.
    guest.sh(&format!(
        "for n in $(seq 900); do cmp -s -n 4096 {root} /dev/zero && exit 0; blockdev --flushbufs {root}; sleep 0.02; done; exit 1"
    ));
    std::thread::sleep(std::time::Duration::from_millis(500));
    guest.cut_power();
    let (start, mib) = recipe::MACHINE[1];
    let part = machine.scratch.name("cut");
    judge::extract(&machine.disk, start * MIB, mib * MIB, &part);
    let seen = judge::identity(&part);
    assert!(!seen.contains("TYPE="), "no filesystem is recognised: {seen}");
    let Some(mut guest) = machine.boot(Disk::Nvme(512)) else { return };
    guest.expect_node("/dev/nvme0n1p4");
    let report = guest.imager(0, &["restore", "m", "--to", &name, "--yes"]);
    assert_eq!(told(&report), [json!(["3", true, null]), json!(["4", true, null])], "{report}");
    guest.sh("umount /mnt");
    guest.end();
    machine.assert_restored();
}
