//! The journal on disks as servers have them and on their kernels: virtio, NVMe and SCSI, beneath device mapper and md.
//!
//! In a full run each is written to in so many rounds as `HALFHOUR_ROUNDS` says; those whose names begin with
//! `HALFHOUR_ONLY`, where that is set.

use halfhour_tests::guest::{Disk, Guest, Kernel};
use halfhour_tests::{MIB, Scratch, binary, need};
use serde_json::json;

/// What happens to a filesystem at /mnt in a round.
const CHURN: &str = r#"
    cd /mnt; R=$ROUND; mkdir -p churn
    fio --name=a --randrepeat=0 --directory=. --size=8m --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=32 --io_size=2m --output=/dev/null
    fio --name=b --randrepeat=0 --directory=. --size=6m --rw=randwrite --bs=4k --ioengine=mmap --io_size=1m --output=/dev/null
    fio --name=c --randrepeat=0 --directory=. --size=4m --rw=randwrite --bs=700-5000 --bs_unaligned=1 --ioengine=psync --io_size=500k --fsync=16 --output=/dev/null
    for n in $(seq 12); do
        dd if=/dev/urandom of=churn/new bs=7777 count=$n conv=fsync 2>/dev/null; mv churn/new churn/$((n % 5)).$R
    done
    cp b.0.0 copy.$R; truncate -s 1000000 b.0.0; rm -f copy.$((R - 1)); fstrim /mnt || true
    cd /"#;

/// A round of writing to a disk itself, past any filesystem.
fn raw(node: &str) -> String {
    format!(
        "fio --name=a --randrepeat=0 --filename={node} --size=32m --rw=randwrite --bsrange=$(blockdev --getss {node})-16k --direct=1 --ioengine=libaio --iodepth=64 --io_size=4m --output=/dev/null
         fio --name=b --randrepeat=0 --filename={node} --size=32m --rw=write --bs=1m --ioengine=psync --io_size=4m --output=/dev/null
         blkdiscard -o 1M -l 9M {node} || true; blkdiscard -z -o 20M -l 3M {node} || dd if=/dev/zero of={node} bs=1M seek=20 count=3 conv=notrunc 2>/dev/null"
    )
}

/// How many rounds there are for each, by default in a full run.
const ROUNDS: u32 = 50;
/// How many of them in one process.
const TOGETHER: u32 = 2;

/// Rounds of writing; in a full run many, in several processes.
fn rounds(guest: &mut Guest, what: &str, disks: &str, line: &str) {
    let wanted = |name: &str| std::env::var(name).ok().filter(|_| need::full());
    if wanted("HALFHOUR_ONLY").is_some_and(|only| !what.starts_with(&only)) {
        return;
    }
    let full = wanted("HALFHOUR_ROUNDS").and_then(|count| count.parse().ok()).unwrap_or(ROUNDS);
    let total = if need::full() { full } else { 1 };
    let mut told = Vec::new();
    while u32::try_from(told.len()).is_ok_and(|done| done < total) {
        let count = TOGETHER.min(total).to_string();
        let said = guest.ok(&["halfhour-journal", "rounds", &count, disks, line]);
        println!("{what}:\n{said}");
        assert!(said.lines().all(|line| line.ends_with("missed 0")), "{said}");
        let first = disks.split(',').next().unwrap_or_default();
        let lines = said.lines().filter(|line| line.starts_with(&format!("{first}: ")));
        told.extend(lines.map(|line| !line.contains("changed 0,")));
    }
    println!("{what}: {} rounds, 0 missed", told.len());
    assert!(told.iter().all(|is_changed| *is_changed), "a round that changed nothing");
}

#[test]
fn no_write_is_missed_on_disks_as_servers_have_them() {
    on(Kernel::Own);
}

#[test]
fn no_write_is_missed_on_newer_kernels() {
    if !need::full() {
        println!("skipped: with HALFHOUR_FULL=1, the same on the other kernels that are supported");
        return;
    }
    Kernel::ALL.into_iter().skip(1).filter(|kernel| kernel.is_there()).for_each(on);
}

fn on(kernel: Kernel) {
    if !need::programs(&["fio", "mke2fs", "sg_dd"]) {
        return;
    }
    let Some(mut builder) = Guest::builder() else { return };
    let scratch = Scratch::new();
    for name in ["halfhour-journal", "mke2fs", "dmsetup", "mdadm", "fio", "sg_dd"] {
        builder = match name {
            "halfhour-journal" => builder.program(binary::built(name)).program(binary::imager()),
            _ => builder.program(name),
        };
    }
    for module in ["ext4", "dm_mod", "raid1", "loop"] {
        builder = builder.module(module);
    }
    let disks = [
        Disk::Virtio,
        Disk::Nvme(512),
        Disk::Nvme(4096),
        Disk::Scsi(0x5000_c500_1234_5678),
        Disk::Scsi(0x5000_c500_1234_5679),
    ];
    for (number, disk) in disks.into_iter().enumerate() {
        builder = builder.disk(
            &scratch.file(&format!("disk{number}.img"), 48 * MIB),
            disk,
            &format!("HALFHOUR{number}"),
        );
    }
    let mut guest = builder.kernel(kernel).boot();
    let nodes = ["/dev/vda", "/dev/nvme0n1", "/dev/nvme1n1", "/dev/sda", "/dev/sdb"];
    nodes.iter().for_each(|node| guest.expect_node(node));
    guest.set("DM_DISABLE_UDEV", "1");
    println!("{}", guest.sh("uname -r; ls -d /sys/block/[nsv]*"));
    for node in &nodes[..4] {
        rounds(&mut guest, node, node, &raw(node));
        guest.sh(&format!("/usr/bin/mke2fs -q -F -t ext4 {node}; mount -t ext4 {node} /mnt"));
        rounds(&mut guest, &format!("ext4 on {node}"), node, CHURN);
        guest.sh("umount /mnt");
    }
    guest.sh("echo \"0 $(blockdev --getsz /dev/sda) linear /dev/sda 0\" | dmsetup create mapped");
    guest.sh("/usr/bin/mke2fs -q -F -t ext4 /dev/mapper/mapped; mount -t ext4 /dev/mapper/mapped /mnt");
    rounds(&mut guest, "ext4 on device mapper", "/dev/sda", CHURN);
    // Asked for nothing in particular, it records what lies beneath all that is mounted.
    let started = guest.imager(0, &["journal", "start"]);
    assert_eq!(started["disks"], json!([{ "disk": "sda", "started": true }]), "{started}");
    guest.sh("dd if=/dev/urandom of=/mnt/more bs=64k count=9 conv=fsync 2>/dev/null");
    let told = guest.imager(0, &["journal", "status"])["disks"][0].clone();
    assert!(told["doubt"].is_null() && told["written_bytes"].as_u64() >= Some(9 << 16), "{told}");
    assert_eq!(guest.imager(0, &["journal", "stop"])["stopped"], json!(["sda"]));
    guest.sh("umount /mnt; dmsetup remove mapped");
    guest.sh("mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 /dev/sda /dev/vda 2>&1; /usr/bin/mke2fs -q -F -t ext4 /dev/md0; mount -t ext4 /dev/md0 /mnt");
    rounds(&mut guest, "ext4 on a mirror", "/dev/sda,/dev/vda", CHURN);
    guest.sh("umount /mnt; mdadm --stop /dev/md0 2>&1");
    // A command that goes past the block layer cannot be marked.
    guest.imager(0, &["journal", "start", "/dev/sdb"]);
    guest.sh("sg_dd if=/dev/zero of=/dev/sdb bs=512 count=8 seek=100 blk_sgio=1 oflag=sgio 2>&1");
    let told = guest.imager(2, &["journal", "status"])["disks"][0].clone();
    println!("{told}");
    assert!(told["counted"]["passed_through"].as_u64() > Some(0), "{told}");
    assert!(told["doubt"].as_str().is_some_and(|doubt| doubt.contains("past the block layer")), "{told}");
    guest.imager(0, &["journal", "stop", "/dev/sdb"]);
    guest.end();
}
