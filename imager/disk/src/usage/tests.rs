use super::{Release, Use, What};
use crate::system::described::Machine;
use crate::{Access, Device, DeviceNumber};
use std::collections::BTreeSet;

/// sda1 plain, sda2 and sdb1 under an array that is a physical volume of two logical ones, sdb2 free.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.disk("sda", "8:0").partition("sda", 1, "8:1", 1, 1).partition("sda", 2, "8:2", 2, 1);
    machine.disk("sdb", "8:16").partition("sdb", 1, "8:17", 1, 1).partition("sdb", 2, "8:18", 2, 1);
    machine.disk("md0", "9:0").disk("dm-0", "253:0").disk("dm-1", "253:1").disk("loop0", "7:0");
    machine.stack("sda/sda2", "md0").stack("sdb/sdb1", "md0").stack("md0", "dm-0").stack("md0", "dm-1");
    machine
}

fn number(text: &str) -> DeviceNumber {
    text.parse().unwrap()
}

fn uses(machine: &Machine, device: &str) -> Vec<String> {
    let (system, device) = (&machine.system, number(device));
    let mut uses = BTreeSet::new();
    let all = system.stacked_on(vec![device], system.disk_of_partition(device).unwrap(), &mut uses).unwrap();
    system.mounts_and_swaps_on(&all, &mut uses).unwrap();
    system.claims_on(&all, &mut uses).unwrap();
    uses.iter().map(Use::to_string).collect()
}

#[test]
fn what_is_built_on_a_partition_uses_its_disk() {
    let machine = machine();
    machine.file("proc/self/mountinfo", "1 0 253:1 / /data rw - xfs /dev/mapper/vg-data rw\n");
    machine.file("proc/swaps", "Filename Type Size Used Priority\n/dev/dm-0 partition 1 0 -2\n");
    let expected = [
        "dm-0 is swap space in use",
        "dm-1 is mounted at /data",
        "md0 is part of dm-0",
        "md0 is part of dm-1",
        "sda2 is part of md0",
    ];
    assert_eq!(uses(&machine, "8:0"), expected);
    assert_eq!(uses(&machine, "8:2"), expected);
    assert_eq!(uses(&machine, "253:0"), expected[..1]);
    assert!(uses(&machine, "8:18").is_empty() && uses(&machine, "8:1").is_empty());
}

#[test]
fn a_use_of_the_whole_disk_is_a_use_of_its_partitions_but_not_the_other_way_round() {
    let machine = machine();
    machine.file(
        "proc/self/mountinfo",
        "1 0 8:1 / /one\\040two ro - ext4 /dev/root ro\n2 0 8:16 / /whole rw - vfat /dev/sdb rw\n",
    );
    assert_eq!(uses(&machine, "8:1"), ["sda1 is mounted read-only at /one two"]);
    assert_eq!(uses(&machine, "8:18"), ["sdb is mounted at /whole"]);
    assert!(uses(&machine, "8:0").contains(&"sda1 is mounted read-only at /one two".to_owned()));
}

#[test]
fn how_what_is_built_on_a_disk_is_taken_apart_is_told() {
    let machine = machine();
    let told = [("dm-0", "CRYPT-LUKS2-abc-vg-data", "vg-data"), ("dm-1", "LVM-abc", "my--vg--2-da--ta-real")];
    for (device, uuid, name) in told {
        machine.attribute(device, "dm/uuid", uuid);
        machine.attribute(device, "dm/name", name);
    }
    machine.attribute("md0", "md/level", "raid1");
    let mut uses = BTreeSet::new();
    machine.system.stacked_on(vec![number("8:0")], None, &mut uses).unwrap();
    let release = |one: &Use| match &one.what {
        What::Holder { release, .. } => release.as_ref().map(Release::to_string),
        _ => None,
    };
    let told: Vec<_> = uses.iter().filter_map(release).collect();
    assert_eq!(told, ["cryptsetup close vg-data", "vgchange -an my-vg-2", "mdadm --stop /dev/md0"]);
}

#[test]
fn uses_of_a_disk_are_told_apart_by_its_partitions() {
    let machine = machine();
    machine.attribute("dm-1", "dm/name", "vg-data\n");
    machine.file("proc/self/mountinfo", "1 0 253:1 / /data rw - xfs /dev/mapper/vg-data rw\n");
    machine.file("proc/swaps", "Filename Type Size Used Priority\n/dev/sdb2 partition 1 0 -2\n");
    let told = |disk: &str| {
        let found = machine.system.uses_of_disk(number(disk)).unwrap();
        let words = |uses: &[Use]| uses.iter().map(Use::to_string).collect::<Vec<_>>().join("; ");
        let parts = found.partitions.iter().map(|(part, uses)| format!("{}: {}", part.number, words(uses)));
        (words(&found.whole), parts.collect::<Vec<_>>())
    };
    let array = "dm-1 is mounted at /data; md0 is part of dm-0; md0 is part of dm-1 (vg-data)";
    assert_eq!(told("8:0"), (String::new(), vec![format!("2: {array}; sda2 is part of md0")]));
    let swap = "2: sdb2 is swap space in use".to_owned();
    assert_eq!(told("8:16"), (String::new(), vec![format!("1: {array}; sdb1 is part of md0"), swap.clone()]));
    // What holds the whole disk, mounted or built on.
    machine.disk("dm-2", "253:2").stack("sda", "dm-2");
    machine.file("proc/self/mountinfo", "1 0 8:16 / /whole rw - vfat /dev/sdb rw\n");
    assert_eq!(told("8:0").0, "sda is part of dm-2");
    assert_eq!(told("8:0").1.len(), 1);
    assert_eq!(
        (told("8:16").0.as_str(), told("8:16").1[1].as_str()),
        ("sdb is mounted at /whole", swap.as_str())
    );
    // Nothing is lost by telling apart.
    for disk in ["8:0", "8:16", "9:0", "7:0"] {
        let found = machine.system.uses_of_disk(number(disk)).unwrap();
        let apart: BTreeSet<_> = found.iter().map(Use::to_string).collect();
        assert_eq!(apart.into_iter().collect::<Vec<_>>(), uses(&machine, disk), "{disk}");
    }
}

#[test]
fn every_device_of_a_btrfs_is_mounted() {
    let machine = machine();
    for device in ["sda/sda1", "sdb/sdb2"] {
        let folder = machine.path("sys/fs/btrfs/0123/devices");
        std::fs::create_dir_all(&folder).unwrap();
        let target = machine.path("sys/devices").join(device);
        std::os::unix::fs::symlink(target, folder.join(&device[4..])).unwrap();
    }
    machine.file("proc/self/mountinfo", "1 0 0:40 /@ / rw - btrfs /dev/sda1 rw,subvol=/@\n");
    assert_eq!(uses(&machine, "8:18"), ["sdb2 is mounted at /"]);
    assert_eq!(uses(&machine, "8:1"), ["sda1 is mounted at /"]);
}

#[test]
fn a_loop_device_on_a_partition_uses_it() {
    let machine = machine();
    machine.attribute("loop0", "loop/backing_file", "/dev/sda1\n");
    machine.file("proc/self/mountinfo", "1 0 7:0 / /x rw - ext4 /dev/loop0 rw\n");
    assert_eq!(uses(&machine, "8:1"), ["loop0 is mounted at /x", "sda1 is the file behind loop0"]);
}

#[test]
fn a_loop_device_on_a_file_uses_it_by_whatever_name() {
    let machine = machine();
    machine.file("image", "x");
    std::fs::hard_link(machine.path("image"), machine.path("other name")).unwrap();
    machine.attribute("loop0", "loop/backing_file", format!("{}\n", machine.path("other name").display()));
    machine.file("proc/self/mountinfo", "1 0 7:0 / /x ro - ext4 /dev/loop0 ro\n");
    let device = Device::open(&machine.path("image"), Access::Read, None).unwrap();
    let uses = machine.system.uses(&device).unwrap();
    let on = machine.path("image").display().to_string();
    let mounted = What::Mounted { at: "/x".into(), read_only: true };
    assert_eq!(uses.len(), 2);
    assert!(uses.contains(&Use { on, what: What::Loop("loop0".to_owned()) }));
    assert!(uses.contains(&Use { on: "loop0".to_owned(), what: mounted }));
    assert!(!uses.iter().any(Use::writes));
}

#[test]
fn a_swap_file_is_in_use() {
    let machine = machine();
    machine.file("swap file", "x");
    let path = machine.path("swap file").display().to_string().replace(' ', "\\040");
    machine.file("proc/swaps", format!("Filename Type Size Used Priority\n{path} file 1 0 -2\n"));
    let device = Device::open(&machine.path("swap file"), Access::Read, None).unwrap();
    assert_eq!(machine.system.uses(&device).unwrap()[0].what, What::Swap);
}

#[test]
fn what_lies_under_a_path_is_followed_to_the_disks() {
    let machine = machine();
    let root = machine.path("").canonicalize().unwrap();
    let mount =
        |line: &str| machine.file("proc/self/mountinfo", line.replace("ROOT", root.to_str().unwrap()));
    let backs = |path: &str| machine.system.backs_path(&machine.path(path)).unwrap();
    machine.file("share/repository/file", "");
    mount("1 0 0:41 / ROOT/share rw - btrfs /dev/dm-1 rw\n");
    let expected: Vec<_> = ["8:0", "8:2", "8:16", "8:17", "9:0", "253:1"].map(number).into();
    assert_eq!(backs("share/repository"), expected);
    machine.file("upper/x", "");
    machine.file("lower/x", "");
    mount(
        "1 0 0:41 / ROOT/share rw - overlay overlay rw,lowerdir=/gone:ROOT/lower,upperdir=ROOT/upper\n2 0 8:1 / ROOT/upper rw - ext4 /dev/sda1 rw\n3 0 7:0 / ROOT/lower ro - squashfs /dev/loop0 ro\n4 0 8:18 / ROOT/medium ro - iso9660 /dev/sdb2 ro\n",
    );
    machine.file("medium/live.squashfs", "");
    machine.attribute(
        "loop0",
        "loop/backing_file",
        format!("{}\n", machine.path("medium/live.squashfs").display()),
    );
    let expected: Vec<_> = ["7:0", "8:0", "8:1", "8:16", "8:18"].map(number).into();
    assert_eq!(backs("share"), expected);
    mount("1 0 0:50 / ROOT/share rw - nfs4 server:/export rw\n");
    assert!(backs("share").is_empty());
}

#[test]
fn a_filesystem_is_one_however_often_it_is_mounted_and_knows_what_lies_beneath() {
    let machine = machine();
    machine.file("image", "x");
    let image = machine.path("image").canonicalize().unwrap();
    machine.attribute("loop0", "loop/backing_file", format!("{}\n", image.display()));
    let root = image.parent().unwrap().display().to_string();
    machine.file("sys/class/block/sdz/dev", "8:99\n");
    let mounts = "5 0 8:1 / ROOT rw - ext4 /dev/sda1 rw\n6 5 0:9 / /proc rw - proc proc rw\n\
        7 5 7:0 / /inner ro - xfs /dev/loop0 ro\n9 5 8:99 / /gone rw - ext4 /dev/sdz rw\n8 5 8:1 /home /bound rw - ext4 /dev/sda1 rw\n";
    machine.file("proc/self/mountinfo", mounts.replace("ROOT", &root));
    let found = machine.system.filesystems().unwrap();
    let [outer, inner] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(outer.mounts, [(5, root.into()), (8, "/bound".into())]);
    assert_eq!((outer.kind.as_str(), outer.read_only), ("ext4", false));
    assert_eq!(outer.devices, [number("8:1")]);
    assert!(inner.read_only);
    assert_eq!(inner.beneath, ["8:0", "8:1", "7:0"].map(number).into());
}
