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
        let programs = ["dmsetup", "mdadm", "lvm", "blockdev", "mke2fs"];
        let builder = programs.iter().fold(builder.program(binary::imager()), |all, name| all.program(name));
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
        self.assert_restored_at(&[(0, "fat12"), (1, "ext4"), (2, "ext4")]);
    }

    /// The volumes that a system is: without its data.
    fn assert_system_restored(&self) {
        self.assert_restored_at(&[(0, "fat12"), (1, "ext4")]);
    }

    fn assert_restored_at(&self, volumes: &[(usize, &str)]) {
        for &(number, kind) in volumes {
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

/// Waits for the middle of a restore: the head is gone, and what differs is being written.
fn until_the_head_is_gone(guest: &mut Guest, node: &str) {
    guest.sh(&format!(
        "for n in $(seq 900); do cmp -s -n 4096 {node} /dev/zero && exit 0; blockdev --flushbufs {node}; sleep 0.02; done; exit 1"
    ));
}

fn told(report: &Value) -> Vec<Value> {
    let untouched = report["untouched"].as_array().expect("a list");
    untouched.iter().map(|one| json!([one["key"], one["unchanged"], one["written_bytes"]])).collect()
}

/// The volumes of a disk that a plan says others use, and how.
fn in_use(guest: &mut Guest, request: &[&str]) -> Vec<(String, String)> {
    let plan = guest.imager(0, &[request, &["--plan"]].concat());
    let used = plan["disks"][0]["in_use"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let uses =
        |one: &Value| one["uses"].as_array().expect("uses").iter().map(text).collect::<Vec<_>>().join("; ");
    used.map(|one| (text(&one["key"]), uses(one))).collect()
}

/// A restore onto a disk, refused in these words.
fn refused(guest: &mut Guest, disk: &str, more: &[&str], words: &[&str]) {
    let said = message(guest, 4, &[&["restore", "m", "--to", disk], more, &["--plan"]].concat());
    assert!(words.iter().all(|word| said.contains(word)), "not all of {words:?} are in {said:?}");
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
    guest.imager(0, &["capture", &format!("serial:{SERIAL}"), "--machine", "m", "--data", "used"]);
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

/// Writes files to the data volume without a pause, each made durable before its digest is noted, until told to stop.
const WRITER: &str = "
    n=0
    while [ ! -e /tmp/stop ]; do
        n=$((n + 1)); k=$((n % 7))
        dd if=/dev/urandom of=/tmp/blob bs=64k count=4 2>/dev/null
        dd if=/tmp/blob of=/tmp/srv/written/$k bs=64k conv=fsync 2>/dev/null
        sha256sum < /tmp/blob | sed s:-:written/$k: > /tmp/sum.$k
        echo $n > /tmp/rounds.new; mv /tmp/rounds.new /tmp/rounds
    done";

#[test]
fn an_operating_system_goes_back_beside_a_data_volume_that_is_written_meanwhile() {
    let Some(machine) = Machine::new(512) else { return };
    let Some(mut guest) = machine.boot(Disk::Scsi(0x5000_c500_1234_5678)) else { return };
    guest.expect_node("/dev/sda4");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", "/dev/sda", "--machine", "m", "--data", "used"]);
    let (name, root) = (format!("serial:{SERIAL}"), "/dev/sda2");
    let request = ["restore", "m", "--to", &name];
    let hash = guest.imager(0, &[&request[..], &["--plan"]].concat())["plan"].clone();
    guest.sh("mkdir -p /tmp/srv; mount -t ext4 /dev/sda3 /tmp/srv; mkdir /tmp/srv/written");
    guest.sh("cd /tmp/srv; find files -type f | xargs sha256sum > /tmp/old");
    let plan = guest.imager(0, &[&request[..], &["--plan"]].concat());
    assert_eq!(plan["plan"], hash, "who uses what is no part of the hash");
    assert_eq!(in_use(&mut guest, &request), [("3".to_owned(), "sda3 is mounted at /tmp/srv".to_owned())]);
    assert!(
        guest.ok(&[&["imager"], &request[..], &["--plan"]].concat()).contains("in use, and stays so: sda3")
    );
    wreck(&mut guest, root);
    // Beside a mounted partition, what was written through the disk's own node waits in a cache of its own.
    guest.sh("dd if=/dev/urandom of=/dev/sda bs=1M seek=12 count=4 conv=notrunc 2>/dev/null");
    let writer = guest.start(&["sh", "-ec", WRITER]);
    let restore = [&["imager", "--limit", "2M"], &request[..], &["--yes", "--json"]].concat();
    let restore = guest.start(&restore);
    let pid = guest.process(&restore);
    until_the_head_is_gone(&mut guest, root);
    // In the middle of it: the free partition is shielded, the one in use is not, and its writer gets on.
    guest.sh(&format!("kill -STOP {pid}"));
    let shielded: Vec<_> =
        (1..=4).map(|n| guest.sh(&format!("blockdev --getro /dev/sda{n}")).trim().to_owned()).collect();
    assert_eq!(shielded, ["0", "0", "0", "1"]);
    guest.sh("was=$(cat /tmp/rounds); until [ $(cat /tmp/rounds) -gt $((was + 3)) ]; do sleep 0.1; done");
    guest.sh(&format!("kill -CONT {pid}"));
    let ran = guest.wait(&restore);
    ran.expect_code(0);
    let report = ran.json();
    guest.sh("touch /tmp/stop");
    guest.wait(&writer).expect_code(0);
    println!("{} rounds of the writer; {report}", guest.sh("cat /tmp/rounds").trim());
    let written = report["untouched"][0]["written_bytes"].as_u64().unwrap_or(0);
    assert!(written > 3 * 256 * 1024, "{report}");
    assert_eq!(told(&report), [json!(["3", null, written]), json!(["4", true, 0])], "{report}");
    let how: Vec<_> =
        (0..2).map(|n| json!([report["untouched"][n]["in_use"], report["untouched"][n]["proof"]])).collect();
    assert_eq!(how, [json!([true, "counters"]), json!([false, "samples"])], "{report}");
    assert_eq!((&report["verified"], &report["warnings"]), (&json!(true), &json!([])), "{report}");
    assert_eq!(report["problems"], json!([]));
    // What the data volume's cache holds, what its disk holds, and what is there after the next start, are the same.
    let check = "cat /tmp/old /tmp/sum.* > /tmp/all; cd /tmp/srv; sha256sum -c /tmp/all > /dev/null";
    guest.sh(check);
    guest.sh(&format!("sync; echo 3 > /proc/sys/vm/drop_caches; {check}"));
    guest.sh(&format!(
        "umount /tmp/srv; mount -t ext4 -o ro /dev/sda3 /tmp/srv; {check}; cd /; umount /tmp/srv /mnt"
    ));
    assert!(!guest.console().contains("error"), "{}", guest.console());
    guest.end();
    machine.assert_system_restored();
    let (start, mib) = recipe::MACHINE[2];
    let data = machine.scratch.name("data");
    judge::extract(&machine.disk, start * MIB, mib * MIB, &data);
    let (status, said) = judge::fsck(&data, "ext4");
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn what_is_held_by_anything_is_not_written_and_does_not_keep_the_rest_from_it() {
    let Some(machine) = Machine::new(512) else { return };
    let Some(mut guest) = machine.boot(Disk::Nvme(512)) else { return };
    let disk = "/dev/nvme0n1";
    guest.expect_node("/dev/nvme0n1p4");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", disk, "--machine", "m", "--data", "used"]);
    let request = ["restore", "m", "--to", disk];
    // Partitions that are written.
    guest.sh("mkdir -p /tmp/at; mount -t vfat /dev/nvme0n1p1 /tmp/at");
    refused(&mut guest, disk, &[], &["nvme0n1p1 is mounted at /tmp/at"]);
    guest.imager(0, &[&request[..], &["--volume", "2", "--plan"]].concat());
    guest.sh("umount /tmp/at");
    let hold =
        |node: &str| format!("echo \"0 $(blockdev --getsz {node}) linear {node} 0\" | dmsetup create held");
    guest.sh(&hold("/dev/nvme0n1p2"));
    refused(&mut guest, disk, &[], &["nvme0n1p2 is part of dm-0 (held)"]);
    guest.sh("dmsetup remove held");
    guest.sh("mdadm --build /dev/md0 --level=1 --raid-devices=2 --force /dev/nvme0n1p2 missing 2>&1");
    refused(&mut guest, disk, &[], &["nvme0n1p2 is part of md0"]);
    guest.sh("mdadm --stop /dev/md0 2>&1");
    // The disk as a whole.
    guest.sh(&hold(disk));
    refused(&mut guest, disk, &[], &["nvme0n1 is part of dm-0 (held)"]);
    refused(&mut guest, disk, &["--volume", "2"], &["nvme0n1 is part of dm-0 (held)"]);
    guest.sh("dmsetup remove held");
    // Partitions that stay as they are: but then nothing beside the planned ones can be made anew.
    let mounted = "mount -t ext4 /dev/nvme0n1p3 /tmp/at";
    let held = hold("/dev/nvme0n1p3");
    let uses: [(&str, &str, &str, &str); 4] = [
        (mounted, "umount /tmp/at", "3", "nvme0n1p3 is mounted at /tmp/at"),
        ("swapon /dev/nvme0n1p4", "swapoff /dev/nvme0n1p4", "4", "nvme0n1p4 is swap space in use"),
        (&held, "dmsetup remove held", "3", "nvme0n1p3 is part of dm-0 (held)"),
        (
            "mdadm --build /dev/md0 --level=1 --raid-devices=2 --force /dev/nvme0n1p3 missing 2>&1",
            "mdadm --stop /dev/md0 2>&1",
            "3",
            "nvme0n1p3 is part of md0",
        ),
    ];
    for (begin, end, key, said) in uses {
        guest.sh(begin);
        assert_eq!(in_use(&mut guest, &request), [(key.to_owned(), said.to_owned())]);
        refused(&mut guest, disk, &["--bare-metal", "--erase", SERIAL], &["is in use", said]);
        refused(&mut guest, disk, &["--tables"], &["is in use", said]);
        guest.sh(end);
    }
    // The disk that holds the repository.
    let said = message(&mut guest, 4, &["restore", "m", "--to", "/dev/vda", "--plan"]);
    assert!(said.contains("repository"), "{said}");
    guest.imager(0, &[&request[..], &["--plan"]].concat());
    guest.sh("umount /mnt");
    guest.end();
}

#[test]
fn beside_a_mounted_volume_the_disk_itself_is_not_written_nor_what_the_restore_needs() {
    let Some(machine) = Machine::new(512) else { return };
    let Some(mut guest) = machine.boot(Disk::Nvme(512)) else { return };
    let disk = "/dev/nvme0n1";
    guest.expect_node("/dev/nvme0n1p4");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", disk, "--machine", "m", "--data", "used"]);
    let request = ["restore", "m", "--to", disk];
    // Boot code lies outside partitions.
    guest.sh("mkdir -p /tmp/at; mount -t ext4 /dev/nvme0n1p3 /tmp/at");
    guest.sh(&format!("dd if={disk} of=/tmp/code bs=440 count=1 2>/dev/null"));
    guest.sh(&format!("dd if=/dev/zero of={disk} bs=440 count=1 conv=notrunc 2>/dev/null"));
    refused(
        &mut guest,
        disk,
        &[],
        &["boot code", "nvme0n1p3 is mounted at /tmp/at", "--volume 1 --volume 2"],
    );
    let name = format!("serial:{SERIAL}");
    wreck(&mut guest, "/dev/nvme0n1p2");
    guest.imager(0, &["restore", "m", "--to", &name, "--volume", "1", "--volume", "2", "--yes"]);
    guest.sh(&format!("! dd if={disk} bs=440 count=1 2>/dev/null | cmp -s - /tmp/code"));
    // The repository on the volume in use; the system that runs on it.
    guest.sh("cp -r /mnt/repository /tmp/at/repository");
    refused(&mut guest, disk, &["-r", "/tmp/at/repository", "--volume", "2"], &["repository", "lies on"]);
    guest.sh(
        "cd /tmp/at; for d in proc sys dev usr lib lib64 mnt tmp; do mkdir -p $d; mount --bind /$d $d; done",
    );
    let inside = guest.run(
        &[&["chroot", "/tmp/at", "/usr/bin/imager"], &request[..], &["--volume", "2", "--plan"]].concat(),
    );
    inside.expect_code(4);
    assert!(inside.text().contains("the system that runs here lies on /dev/nvme0n1"), "{inside:?}");
    guest.sh("cd /tmp/at; for d in proc sys dev usr lib lib64 mnt tmp; do umount $d; done; cd /; rm -r /tmp/at/*; umount /tmp/at");
    guest.imager(0, &["restore", "m", "--to", &name, "--yes"]);
    guest.sh(&format!("dd if={disk} bs=440 count=1 2>/dev/null | cmp - /tmp/code"));
    guest.sh("umount /mnt");
    guest.end();
    machine.assert_system_restored();
}

#[test]
fn a_volume_group_on_the_disk_is_worked_around_and_never_written() {
    let Some(machine) = Machine::new(512) else { return };
    let Some(mut guest) = machine.boot(Disk::Nvme(512)) else { return };
    guest.expect_node("/dev/nvme0n1p4");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", "/dev/nvme0n1", "--machine", "m", "--data", "used"]);
    let name = format!("serial:{SERIAL}");
    let request = ["restore", "m", "--to", &name];
    let lvm = |command: &str| {
        let config = "devices{scan_lvs=0 obtain_device_list_from_udev=0} activation{udev_sync=0 udev_rules=0 monitoring=0}";
        format!("lvm {command} --config '{config}' 2>&1")
    };
    let group = |partition: &str| {
        let make = lvm(&format!("vgcreate -y shop {partition}"));
        let volume = lvm("lvcreate -y -Wn -l 100%FREE -n orders shop");
        format!("dd if=/dev/zero of={partition} bs=1M count=1 2>&1; {make}; {volume}")
    };
    guest.sh(&group("/dev/nvme0n1p3"));
    guest.sh("/usr/bin/mke2fs -q -t ext4 /dev/shop/orders; mkdir -p /tmp/orders; mount -t ext4 /dev/shop/orders /tmp/orders");
    guest.sh(
        "dd if=/dev/urandom of=/tmp/orders/a bs=64k count=40 2>/dev/null; sha256sum /tmp/orders/a > /tmp/sum",
    );
    wreck(&mut guest, "/dev/nvme0n1p2");
    let used = "dm-0 is mounted at /tmp/orders; nvme0n1p3 is part of dm-0 (shop-orders)";
    assert_eq!(in_use(&mut guest, &request), [("3".to_owned(), used.to_owned())]);
    let report = guest.imager(0, &[&request[..], &["--yes"]].concat());
    // This kernel keeps no count of an NVMe disk that may have several paths, so that none is claimed.
    let told: Vec<_> = (0..2).map(|n| &report["untouched"][n]).collect();
    assert_eq!(
        (&told[0]["unchanged"], &told[0]["in_use"], &told[0]["proof"]),
        (&Value::Null, &json!(true), &json!("none"))
    );
    assert_eq!((&told[1]["unchanged"], &told[1]["in_use"]), (&json!(true), &json!(false)));
    guest.sh("sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /tmp/sum; umount /tmp/orders");
    guest.sh("mount -t ext4 -o ro /dev/shop/orders /tmp/orders; sha256sum -c /tmp/sum; umount /tmp/orders");
    guest.sh(&lvm("vgremove -y shop"));
    // A volume group where the system is to go: while it is active it is somebody's, and no longer when it is not.
    guest.sh(&group("/dev/nvme0n1p2"));
    let said = message(&mut guest, 4, &[&request[..], &["--yes"]].concat());
    assert!(said.contains("nvme0n1p2 is part of dm-0 (shop-orders)"), "{said}");
    assert!(guest.sh(&lvm("lvs shop")).contains("orders"), "it is as it was");
    guest.sh(&lvm("vgchange -an shop"));
    guest.imager(0, &[&request[..], &["--yes"]].concat());
    guest.sh("umount /mnt");
    guest.end();
    machine.assert_system_restored();
}

#[test]
fn a_restore_that_loses_power_leaves_nothing_that_looks_whole_and_is_run_again() {
    let Some(machine) = Machine::new(512) else { return };
    let Some(mut guest) = machine.boot(Disk::Nvme(512)) else { return };
    guest.expect_node("/dev/nvme0n1p4");
    guest.imager(0, &["init"]);
    guest.imager(0, &["capture", "/dev/nvme0n1", "--machine", "m", "--data", "used"]);
    wreck(&mut guest, "/dev/nvme0n1p2");
    guest.sh("sync; umount /mnt; mount -t ext4 -o ro /dev/vda /mnt");
    let (name, root) = (format!("serial:{SERIAL}"), "/dev/nvme0n1p2");
    let job = guest.start(&["imager", "--limit", "2M", "restore", "m", "--to", &name, "--yes"]);
    guest.process(&job);
    until_the_head_is_gone(&mut guest, root);
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
