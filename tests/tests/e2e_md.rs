//! Arrays, volume groups and encrypted volumes of a kernel with md and device-mapper: members of a mirror come back
//! together and assemble, what of a group cannot be told apart comes back with its disks, what is encrypted comes back
//! as it is or through its open mapping, and what is active is not written.

use halfhour_tests::guest::{Disk, Guest};
use halfhour_tests::{MIB, Scratch, tool};
use serde_json::Value;

const PROGRAMS: [&str; 7] = ["mdadm", "lvm", "dmsetup", "cryptsetup", "blockdev", "mke2fs", "e2fsck"];

/// A machine with two disks full of junk, and the repository on a third.
fn machine(scratch: &Scratch, mib: u64, modules: &[&str]) -> Option<Guest> {
    if !halfhour_tests::need::programs(&PROGRAMS) {
        return None;
    }
    let disks = ["one.img", "two.img"].map(|name| scratch.junk(name, mib * MIB));
    let share = scratch.file("share.img", 256 * MIB);
    tool("mke2fs", &["-q", "-F", "-t", "ext4", &share]);
    let builder = PROGRAMS
        .iter()
        .fold(Guest::builder()?.program(halfhour_tests::binary::imager()), |all, name| all.program(name));
    let builder = modules.iter().fold(builder.module("ext4").module("dm_mod"), |all, name| all.module(name));
    let mut guest = builder
        .disk(&disks[0], Disk::Scsi(0x5000_c500_0000_0001), "ONE")
        .disk(&disks[1], Disk::Scsi(0x5000_c500_0000_0002), "TWO")
        .disk(&share, Disk::Virtio, "SHARE")
        .boot();
    for node in ["/dev/vda", "/dev/sda", "/dev/sdb"] {
        guest.expect_node(node);
    }
    guest.sh("mount -t ext4 /dev/vda /mnt");
    guest.set("IMAGER_REPO", "/mnt/repository");
    guest.set("DM_DISABLE_UDEV", "1");
    guest.imager(0, &["init"]);
    Some(guest)
}

/// A filesystem on a node with files in it; what it holds.
fn fill(guest: &mut Guest, node: &str) -> String {
    guest.sh(&format!(
        "/usr/bin/mke2fs -q -F -t ext4 {node}; mkdir -p /tmp/at; mount -t ext4 {node} /tmp/at
         for n in 1 2 3 4 5 6 7; do dd if=/dev/urandom of=/tmp/at/$n bs=7k count=$n 2>/dev/null; done"
    ));
    let held = guest.sh("cd /tmp/at; sha256sum 1 2 3 4 5 6 7");
    guest.sh("umount /tmp/at");
    held
}

fn assert_holds(guest: &mut Guest, node: &str, held: &str) {
    guest.sh(&format!("/usr/bin/e2fsck -fn {node} 2>&1; mount -t ext4 -o ro {node} /tmp/at"));
    assert_eq!(guest.sh("cd /tmp/at; sha256sum 1 2 3 4 5 6 7"), held, "{node}");
    guest.sh("umount /tmp/at");
}

fn wreck(guest: &mut Guest) {
    for disk in ["/dev/sda", "/dev/sdb"] {
        guest.sh(&format!("dd if=/dev/urandom of={disk} bs=1M count=40 conv=fsync 2>&1"));
    }
}

fn message(error: &Value) -> &str {
    error["error"]["message"].as_str().unwrap_or_default()
}

const DISKS: [&str; 4] = ["--to", "/dev/sda", "--to", "/dev/sdb"];

#[test]
fn members_of_a_mirror_come_back_together_and_assemble() {
    let scratch = Scratch::new();
    let Some(mut guest) = machine(&scratch, 40, &["raid1"]) else { return };
    for metadata in ["0.90", "1.0", "1.1", "1.2"] {
        guest.sh(&format!(
            "mdadm --create /dev/md0 --run --metadata={metadata} --level=1 --raid-devices=2 --assume-clean /dev/sda /dev/sdb 2>&1"
        ));
        let held = fill(&mut guest, "/dev/md0");
        guest.sh("mdadm --stop /dev/md0 2>&1");
        let seen = guest.imager(0, &["inspect", "/dev/sda", "/dev/sdb"]);
        for volume in seen["volumes"].as_array().expect("volumes") {
            println!("{metadata}: {} bytes used, {}", volume["used_bytes"], volume["stack"]);
            assert_eq!(
                (volume["exact"].as_bool(), volume["stack"]["level"].as_str()),
                (Some(true), Some("RAID1")),
                "{seen}"
            );
            assert!(volume["used_bytes"].as_u64() < Some(16 << 20), "{seen}");
        }
        guest.imager(0, &["capture", "/dev/sda", "/dev/sdb", "--machine", "m"]);
        let alone = guest.imager(4, &["restore", "m", "--to", "/dev/sda", "--yes", "--plan"]);
        assert!(message(&alone).contains("one of an array"), "{alone}");
        wreck(&mut guest);
        let hash = plan(&mut guest, &[]);
        guest.imager(0, &[&["restore", "m", "--confirm", &hash], &DISKS[..]].concat());
        guest.sh("mdadm --assemble --run /dev/md0 /dev/sda /dev/sdb 2>&1");
        let state = guest.sh("cat /sys/block/md0/md/degraded /sys/block/md0/md/sync_action");
        assert_eq!(state.split_whitespace().collect::<Vec<_>>(), ["0", "idle"], "{metadata}");
        assert_holds(&mut guest, "/dev/md0", &held);
        // Each member has all of it.
        guest.sh("mdadm /dev/md0 --fail /dev/sda --remove /dev/sda 2>&1");
        assert_holds(&mut guest, "/dev/md0", &held);
        guest.sh("mdadm --stop /dev/md0 2>&1; mdadm --zero-superblock /dev/sda /dev/sdb 2>&1");
    }
    guest.sh("umount /mnt");
    guest.end();
}

fn plan(guest: &mut Guest, more: &[&str]) -> String {
    let plan = guest.imager(0, &[&["restore", "m", "--plan"], &DISKS[..], more].concat());
    println!("{plan}");
    plan["plan"].as_str().expect("a hash").to_owned()
}

const LVM: &str = "devices { use_devicesfile=0 obtain_device_list_from_udev=0 } \
    activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0 } \
    backup { backup=0 archive=0 } global { thin_check_executable=\"\" thin_repair_executable=\"\" use_lvmlockd=0 use_lvmpolld=0 }";

fn lvm(guest: &mut Guest, command: &str) -> String {
    guest.sh(&format!("lvm {command} --config '{LVM}' 2>&1"))
}

#[test]
fn what_of_a_group_cannot_be_told_apart_comes_back_with_its_disks() {
    let scratch = Scratch::new();
    let modules = ["dm_thin_pool", "dm_snapshot", "dm_raid", "raid1"];
    let Some(mut guest) = machine(&scratch, 128, &modules) else { return };
    lvm(&mut guest, "vgcreate -y vg /dev/sda /dev/sdb");
    lvm(&mut guest, "lvcreate -y -Wn -n root -L 24M vg");
    lvm(&mut guest, "lvcreate -y -Wn -n origin -L 16M vg");
    lvm(&mut guest, "lvcreate -y -Wn --type raid1 -m1 -n mirrored -L 16M vg");
    lvm(&mut guest, "lvcreate -y -Wn -T vg/pool -L 32M -V 48M -n thin");
    let names = ["root", "origin", "mirrored", "thin"];
    let node = |name: &str| format!("/dev/mapper/vg-{name}");
    let mut held = Vec::new();
    for name in names {
        held.push(fill(&mut guest, &node(name)));
    }
    lvm(&mut guest, "lvcreate -y -s -n before -L 8M vg/origin");
    // While it is active its disks are not even read from behind its back, let alone written.
    guest.sh(&format!("mount -t ext4 {} /tmp/at", node("root")));
    guest.imager(4, &["capture", "/dev/sda", "/dev/sdb", "--machine", "m"]);
    guest.sh("umount /tmp/at");
    lvm(&mut guest, "vgchange -an vg");
    let seen = guest.imager(0, &["inspect", "/dev/sda", "/dev/sdb"]);
    let keys: Vec<_> =
        seen["volumes"].as_array().expect("volumes").iter().map(|v| v["key"].clone()).collect();
    assert_eq!(keys, ["0", "2:0", "vg/root"], "{seen}");
    let warnings = seen["warnings"].to_string();
    for name in ["origin", "(snapshot)", "mirrored (raid1)", "thin (thin)", "pool"] {
        assert!(warnings.contains(name), "{name} is not in {warnings}");
    }
    guest.imager(0, &["capture", "/dev/sda", "/dev/sdb", "--machine", "m"]);
    lvm(&mut guest, "vgchange -ay vg");
    let refused = guest.imager(4, &[&["restore", "m", "--plan"], &DISKS[..]].concat());
    assert!(message(&refused).contains("(vgchange -an vg)"), "{refused}");
    let refused = guest.imager(4, &[&["restore", "m", "--plan", "--volume", "vg/root"], &DISKS[..]].concat());
    assert!(message(&refused).contains("(vgchange -an vg)"), "{refused}");
    // By default all of it goes back: the system may lie in what was not told apart.
    for name in names {
        guest.sh(&format!("dd if=/dev/urandom of={} bs=1M count=12 conv=fsync 2>&1", node(name)));
    }
    lvm(&mut guest, "vgchange -an vg");
    let hash = plan(&mut guest, &[]);
    guest.imager(0, &[&["restore", "m", "--confirm", &hash], &DISKS[..]].concat());
    lvm(&mut guest, "vgck vg");
    lvm(&mut guest, "vgchange -ay vg");
    for (name, held) in names.iter().zip(&held) {
        assert_holds(&mut guest, &node(name), held);
    }
    assert_holds(&mut guest, &node("before"), &held[1]);
    lvm(&mut guest, "vgchange -an vg");
    guest.sh("umount /mnt");
    guest.end();
}

const PHRASE: &str = "printf %s secret | cryptsetup";

#[test]
fn what_is_encrypted_is_copied_whole_or_through_its_open_mapping() {
    let scratch = Scratch::new();
    let Some(mut guest) = machine(&scratch, 40, &["dm_crypt"]) else { return };
    guest.sh("mkdir -p /run/cryptsetup");
    for (version, key) in [("luks1", "one"), ("luks2", "two")] {
        guest.sh(&format!(
            "{PHRASE} luksFormat -q --type {version} --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - /dev/sda 2>&1
             {PHRASE} open --key-file - /dev/sda plain 2>&1"
        ));
        let held = fill(&mut guest, "/dev/mapper/plain");
        // Of the open mapping as a disk what is used counts, as of any other.
        let plain = format!("plain-{key}");
        let report = guest.imager(0, &["capture", "/dev/mapper/plain", "--machine", &plain]);
        let volume = &report["volumes"][0];
        assert_eq!(volume["mode"], "used", "{report}");
        assert!(volume["used_bytes"].as_u64() < Some(16 << 20), "{report}");
        guest.sh("dd if=/dev/urandom of=/dev/mapper/plain bs=1M count=8 conv=fsync 2>&1");
        confirmed(&mut guest, &plain, "/dev/mapper/plain");
        assert_holds(&mut guest, "/dev/mapper/plain", &held);
        let whole = format!("whole-{key}");
        guest.sh("cryptsetup close plain 2>&1");
        let report = guest.imager(0, &["capture", "/dev/sda", "--machine", &whole]);
        let volume = &report["volumes"][0];
        assert_eq!(volume["used_bytes"].as_u64(), Some(40 << 20), "{report}");
        assert!(report["warnings"].to_string().contains("nobody can tell what is used"), "{report}");
        // Under an open mapping nothing is written.
        guest.sh(&format!("{PHRASE} open --key-file - /dev/sda plain 2>&1"));
        let refused = guest.imager(4, &["restore", &whole, "--to", "/dev/sda", "--plan"]);
        assert!(message(&refused).contains("(plain)"), "{refused}");
        guest.sh("cryptsetup close plain 2>&1");
        wreck(&mut guest);
        confirmed(&mut guest, &whole, "/dev/sda");
        guest.sh(&format!("{PHRASE} open --key-file - /dev/sda plain 2>&1"));
        assert_holds(&mut guest, "/dev/mapper/plain", &held);
        guest.sh("cryptsetup close plain 2>&1");
    }
    guest.sh("umount /mnt");
    guest.end();
}

/// Restores onto one disk what the plan for it says.
fn confirmed(guest: &mut Guest, machine: &str, disk: &str) {
    let restore = ["restore", machine, "--to", disk];
    let plan = guest.imager(0, &[&restore[..], &["--plan"]].concat());
    let hash = plan["plan"].as_str().expect("a hash");
    guest.imager(0, &[&restore[..], &["--confirm", hash]].concat());
}
