//! Captures of a machine that runs, on what servers have: logical volumes on an NVMe disk with an EFI partition and swap
//! in use on it, and a mirror of two SCSI disks. What comes back is judged by what was durable when.
//!
//! In a full run on all kernels, in so many rounds as `HALFHOUR_ROUNDS` says, and where `HALFHOUR_ONLY` is set, what
//! begins so: `going down, Of("trixie")`.

use halfhour_tests::guest::{Disk, Guest, Kernel};
use halfhour_tests::junk::Junk;
use halfhour_tests::{MIB, Scratch, binary, need, table, tool};
use serde_json::{Value, json};

const LVM: &str = "devices { use_devicesfile=0 obtain_device_list_from_udev=0 } \
    activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0 } backup { backup=0 archive=0 }";
const DISKS: [&str; 3] = ["/dev/nvme0n1", "/dev/sda", "/dev/sdb"];
/// How often a capture is begun while more is written than an emulated machine can copy.
const TRIES: usize = 5;
/// Where what is written to is mounted, and the devices.
const PLACES: [(&str, &str); 3] =
    [("/mnt", "/dev/vg/root"), ("/mnt/srv", "/dev/vg/srv"), ("/mnt/mirror", "/dev/md0")];
/// Where the writers of the places say how far they are.
const HEADS: [&str; 3] = ["/tmp/heads/0", "/tmp/heads/1", "/tmp/heads/2"];

fn lvm(guest: &mut Guest, command: &str) {
    guest.sh(&format!("lvm {command} --config '{LVM}' 2>&1"));
}

/// A guest with its disks as they were made, and a folder for the repository.
fn machine(scratch: &Scratch, kernel: Kernel) -> Option<Guest> {
    if !need::programs(&["fio", "mke2fs", "mkfs.fat", "mkswap", "sfdisk"]) || !kernel.is_there() {
        return None;
    }
    let mut builder = Guest::builder()?.kernel(kernel).program(binary::imager());
    for program in ["lvm", "dmsetup", "mdadm", "fio", "mke2fs", "e2fsck", "mkfs.fat", "mkswap", "losetup"] {
        builder = builder.program(program);
    }
    for module in ["ext4", "vfat", "nls_ascii", "dm_mod", "raid1", "loop", "zram"] {
        builder = builder.module(module);
    }
    let writer = binary::repository().join("tests/guest/writer");
    let nvme = scratch.file("nvme.img", 224 * MIB);
    table::write(
        &nvme,
        "label: gpt\nstart=1MiB, size=16MiB, type=U\nstart=17MiB, size=64MiB, type=S\nstart=81MiB, size=142MiB, type=V\n",
    );
    let share = scratch.file("share.img", 400 * MIB);
    tool("mke2fs", &["-q", "-F", "-t", "ext4", &share]);
    let mirror = ["a", "b"].map(|name| scratch.file(name, 72 * MIB));
    builder = builder.file(&writer, "usr/bin/writer").disk(&nvme, Disk::Nvme(512), "HALFHOUR0");
    for (number, half) in (1..).zip(&mirror) {
        builder =
            builder.disk(half, Disk::Scsi(0x5000_c500_1234_5670 + number), &format!("HALFHOUR{number}"));
    }
    let mut guest = builder.disk(&share, Disk::Virtio, "SHARE").boot();
    ["/dev/nvme0n1p3", "/dev/sdb", "/dev/vda"].iter().for_each(|node| guest.expect_node(node));
    guest.set("DM_DISABLE_UDEV", "1");
    guest.set("IMAGER_REPO", "/repository/r");
    guest.sh("mkdir -p /repository && mount -t ext4 /dev/vda /repository");
    guest.imager(0, &["init"]);
    Some(guest)
}

/// Makes what lies on its disks. The root lies in two pieces.
fn make(guest: &mut Guest) {
    guest.sh("mkfs.fat -n ESP /dev/nvme0n1p1 && /usr/bin/mkswap /dev/nvme0n1p2");
    lvm(guest, "vgcreate -y vg /dev/nvme0n1p3");
    lvm(guest, "lvcreate -y -Wn -n root -L 32M vg");
    lvm(guest, "lvcreate -y -Wn -n srv -L 48M vg");
    lvm(guest, "lvextend -y -L +24M vg/root");
    guest.sh("mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean /dev/sda /dev/sdb 2>&1");
    for (_, node) in PLACES {
        guest.sh(&format!("/usr/bin/mke2fs -q -F -t ext4 {node}"));
    }
}

/// Mounts all of it, and swaps.
fn mount(guest: &mut Guest) {
    for (at, node) in PLACES {
        guest.sh(&format!("mkdir -p {at} && mount -t ext4 {node} {at}"));
    }
    guest.sh("mkdir -p /mnt/boot/efi && mount -t vfat /dev/nvme0n1p1 /mnt/boot/efi && swapon /dev/nvme0n1p2");
}

fn unmount(guest: &mut Guest) {
    guest.sh("swapoff /dev/nvme0n1p2; umount /mnt/boot/efi /mnt/mirror /mnt/srv /mnt && mdadm --stop /dev/md0 2>&1");
    lvm(guest, "vgchange -an vg");
}

/// Starts the writers, fio, and something that needs more memory than it may have; a line that ends them all.
fn load(guest: &mut Guest) -> String {
    guest.sh(
        "mount -t cgroup2 none /sys/fs/cgroup; echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir /sys/fs/cgroup/small
         echo 12M >/sys/fs/cgroup/small/memory.max",
    );
    let mut lines = vec![
        "echo $$ >/sys/fs/cgroup/small/cgroup.procs; while :; do dd if=/dev/zero of=/dev/null bs=24M count=2 2>/dev/null; sleep 1; done".to_owned(),
    ];
    for ((at, _), heads) in PLACES.iter().zip(HEADS) {
        lines.push(format!("exec writer run {at} {heads}"));
    }
    let fio = |at: &str, how: &str| {
        format!(
            "exec fio --name=x --randrepeat=0 --directory={at} --size=6m --rw=randwrite --bs=4k --time_based --runtime=9999 {how} >/dev/null"
        )
    };
    lines.push(fio("/mnt", "--direct=1 --ioengine=libaio --iodepth=16 --rate=300k"));
    lines.push(fio("/mnt/mirror", "--ioengine=mmap --rate=100k"));
    let jobs: Vec<_> = lines.iter().map(|line| guest.start(&["sh", "-c", line])).collect();
    let processes: Vec<_> = jobs.iter().map(|job| guest.process(job)).collect();
    guest.sh("for h in 0 1 2; do until [ \"$(cat /tmp/heads/$h/done 2>/dev/null || echo 0)\" -gt 12 ]; do sleep 0.2; done; done");
    // A shell that was killed stays until its child is gone, which may be busy in the memory that it has not.
    let all = processes.join(" ");
    format!(
        "kill {all} || true; for p in {all}; do while [ -e /proc/$p ]; do killall -q -9 fio dd || true; sleep 0.1; done; done; while pidof fio dd >/dev/null; do sleep 0.1; done"
    )
}

/// How far the writers are.
fn heads(guest: &mut Guest) -> Vec<Vec<String>> {
    let said = guest.sh(&HEADS.map(|heads| format!("writer heads {heads}")).join("; "));
    said.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Restores the newest capture in place.
fn restore(guest: &mut Guest, more: &[&str]) {
    let words = [&["restore", "m"], more, &DISKS.map(|disk| ["--to", disk]).concat()].concat();
    let plan = guest.imager(0, &[&words[..], &["--plan"]].concat());
    guest.imager(0, &[&words[..], &["--confirm", plan["plan"].as_str().expect("a hash")]].concat());
}

/// So many, or in a full run so many more; `HALFHOUR_ROUNDS` says otherwise.
fn rounds(few: u64, many: u64) -> u64 {
    let told = std::env::var("HALFHOUR_ROUNDS").ok().and_then(|count| count.parse().ok());
    if need::full() { told.unwrap_or(many) } else { few }
}

/// A capture, and for each place what was done before it and what was begun until after it. Where too much is written
/// for this machine that is said, and no image.
fn captured(guest: &mut Guest) -> (Vec<[String; 2]>, Value) {
    let words = [&["imager", "capture"], &DISKS[..], &["--machine", "m", "--json"]].concat();
    for _ in 0..TRIES {
        let before = heads(guest);
        let ran = guest.run(&words);
        let report = ran.json();
        if ran.code == 0 {
            let both = before.into_iter().zip(heads(guest));
            return (both.map(|(done, begun)| [done[0].clone(), begun[1].clone()]).collect(), report);
        }
        let message = report["error"]["message"].as_str().unwrap_or_default();
        assert!(ran.code == 4 && message.contains("writes faster"), "{report}");
        println!("not captured: {message}");
    }
    panic!("not captured in {TRIES} tries");
}

fn swapped(guest: &mut Guest) -> u64 {
    guest.sh("awk '/^pswpout/ {print $2}' /proc/vmstat").trim().parse().expect("pages")
}

fn describe(report: &Value) {
    println!("{} {}", report["consistency"], report["running"]);
    for volume in report["volumes"].as_array().expect("volumes") {
        println!(
            "  {} {} {} {} {} read {} KiB",
            volume["disk"],
            volume["key"],
            volume["name"],
            volume["truth"],
            volume["consistency"],
            volume["read_bytes"].as_u64().unwrap_or(0) >> 10
        );
    }
    println!("  {}", report["warnings"]);
}

#[test]
fn what_servers_have_is_captured_while_it_runs() {
    let mut kinds = need::sample("guests", &["going down", "in doubt"], 1);
    if need::full() {
        // Swapping takes minutes where the machine's disk is busy.
        kinds.push("stacked");
    }
    let kernels = if need::full() { &Kernel::ALL[..] } else { &[Kernel::Own] };
    for (kind, kernel) in kinds.into_iter().flat_map(|kind| kernels.iter().map(move |kernel| (kind, *kernel)))
    {
        if std::env::var("HALFHOUR_ONLY").is_ok_and(|only| !format!("{kind}, {kernel:?}").starts_with(&only))
        {
            continue;
        }
        println!("{kind}, {kernel:?}");
        match kind {
            "stacked" => stacked(kernel),
            "going down" => going_down(kernel),
            _ => in_doubt(kernel),
        }
    }
}

/// A machine on logical volumes and a mirror, that swaps, is captured under load, lost, and put back.
fn stacked(kernel: Kernel) {
    let scratch = Scratch::new();
    let Some(mut guest) = machine(&scratch, kernel) else { return };
    make(&mut guest);
    for cycle in 0..rounds(1, 4) {
        mount(&mut guest);
        guest.sh("dd if=/dev/urandom of=/mnt/boot/efi/LOADER bs=64k count=5 2>/dev/null; md5sum /mnt/boot/efi/LOADER >/tmp/loader; sync");
        guest.imager(0, &[&["journal", "start"], &DISKS[..]].concat());
        let end = load(&mut guest);
        let (swap, mut judged) = (swapped(&mut guest), Vec::new());
        let captures = if need::full() { 5 } else { 2 };
        for number in 0..captures {
            let report;
            (judged, report) = captured(&mut guest);
            describe(&report);
            assert_eq!((&report["consistency"], &report["problems"]), (&json!("frozen"), &json!([])));
            let truths = report["volumes"].as_array().expect("volumes").iter().map(|one| &one["truth"]);
            let by_journal = truths.filter(|truth| **truth == json!("journal")).count();
            assert!((by_journal > 0) == (number > 0) || cycle > 0, "{report}");
        }
        let swapped = swapped(&mut guest) - swap;
        println!("{} MiB swapped out meanwhile", swapped >> 8);
        assert!(swapped > 0, "swap is in use");
        guest.sh(&end);
        guest.imager(0, &["journal", "stop"]);
        unmount(&mut guest);
        lose_and_restore(&mut guest, &judged);
        mount(&mut guest);
        guest.sh(
            "md5sum -c /tmp/loader; rm -rf /tmp/heads; rmdir /sys/fs/cgroup/small; umount /sys/fs/cgroup",
        );
        guest.sh("swapoff /dev/nvme0n1p2; umount /mnt/boot/efi /mnt/mirror /mnt/srv /mnt");
    }
    guest.sh("umount /repository");
    guest.end();
}

/// Loses the disks, puts back the newest capture, and judges it: the volumes, and each half of the mirror alone.
fn lose_and_restore(guest: &mut Guest, judged: &[[String; 2]]) {
    for disk in DISKS {
        guest.sh(&format!("dd if=/dev/urandom of={disk} bs=1M count=70 seek=2 conv=fsync 2>/dev/null"));
    }
    restore(guest, &[]);
    // Swap is nobody's system.
    restore(guest, &["--volume", "2"]);
    lvm(guest, "vgchange -ay vg");
    guest.sh("mdadm --assemble --run /dev/md0 /dev/sda /dev/sdb 2>&1");
    for ((at, node), [done, begun]) in PLACES.iter().zip(judged) {
        guest.sh(&format!("e2fsck -fn {node} && mkdir -p {at} && mount -t ext4 -o ro {node} {at}"));
        let said = guest.run(&["writer", "judge", at, done, begun]);
        println!("{at}: {}", said.stdout);
        said.expect_code(0);
    }
    guest.sh("umount /mnt/mirror /mnt/srv /mnt; mdadm --stop /dev/md0 2>&1");
    let [done, begun] = &judged[2];
    for half in ["/dev/sda", "/dev/sdb"] {
        guest.sh(&format!(
            "mdadm --assemble --readonly --run /dev/md0 {half} 2>&1; e2fsck -fn /dev/md0; mount -t ext4 -o ro,noload /dev/md0 /mnt
             writer judge /mnt {done} {begun}; umount /mnt; mdadm --stop /dev/md0 2>&1"
        ));
    }
    guest.sh("mdadm --assemble --run /dev/md0 /dev/sda /dev/sdb 2>&1");
}

/// What a machine does that goes down: everything is asked to end, then ended, then unmounted. How long that took, in
/// milliseconds.
const GO_DOWN: &str = r#"
    now() { awk '{print int($1 * 1000)}' /proc/uptime; }
    start=$(now)
    kill -TERM -1
    for n in $(seq 300); do pidof imager >/dev/null || break; sleep 0.1; done
    ended=$(now)
    ! pidof imager || { ps; exit 1; }
    kill -KILL -1
    swapoff /dev/nvme0n1p2
    for at in /mnt/boot/efi /mnt/mirror /mnt/srv /mnt; do
        for n in $(seq 50); do umount $at && break; sleep 0.1; done
    done
    echo "ended after $((ended - start)), unmounted after $(($(now) - start))"
    ! grep -q ' /mnt' /proc/mounts
"#;

/// A machine that goes down while it is captured does not hang, and is left in order.
fn going_down(kernel: Kernel) {
    let scratch = Scratch::new();
    let Some(mut guest) = machine(&scratch, kernel) else { return };
    make(&mut guest);
    guest.imager(0, &[&["journal", "start"], &DISKS[..]].concat());
    let mut random = Junk::new(u64::from(std::process::id()));
    for round in 0..rounds(2, 12) {
        mount(&mut guest);
        for ((at, _), heads) in PLACES.iter().zip(HEADS) {
            guest.start(&["writer", "run", at, heads]);
        }
        guest.start(&[&["imager", "capture"], &DISKS[..], &["--machine", "m", "--json"]].concat());
        // As soon as something is about to be frozen, or at any time.
        let moment = match round % 2 {
            0 => "for n in $(seq 3000); do [ -n \"$(ls /run/halfhour/frozen 2>/dev/null)\" ] && break; sleep 0.02; done".to_owned(),
            _ => format!("sleep 0.{}; sleep {}", random.number() % 1000, random.number() % 6),
        };
        let said =
            guest.sh(&format!("{moment}\ncat /proc/loadavg; ls /run/halfhour/frozen || true\n{GO_DOWN}"));
        println!("{round}: {said}");
        for (_, node) in PLACES {
            let said = guest.run(&["e2fsck", "-fn", node]);
            assert!(said.code == 0 && !said.text().contains("recover"), "{said:?}");
        }
    }
    mount(&mut guest);
    let report = guest.imager(0, &[&["capture"], &DISKS[..], &["--machine", "m"]].concat());
    describe(&report);
    guest.imager(0, &["verify", "--all", "--read-data"]);
    guest.imager(0, &["journal", "stop"]);
    unmount(&mut guest);
    guest.sh("umount /repository");
    guest.end();
}

/// What cannot be recorded is refused, with the reason: disks by their kind, and all of them by the kernel.
fn refused(guest: &mut Guest) {
    let over = |path: &str, text: &str| format!("echo '{text}' >/tmp/over; mount --bind /tmp/over {path}");
    let lockdown = "/sys/kernel/security/lockdown";
    let cases = [
        ("/dev/zram0", ":".to_owned(), ":".to_owned(), "takes no requests"),
        ("/dev/mapper/x", ":".to_owned(), ":".to_owned(), "made of other disks"),
        (
            "/dev/loop0",
            "echo 0 >/sys/block/loop0/queue/iostats".to_owned(),
            "echo 1 >/sys/block/loop0/queue/iostats".to_owned(),
            "echo 1 > /sys/",
        ),
        (
            "/dev/loop0",
            over("/proc/sys/kernel/osrelease", "5.10.0-30-amd64"),
            "umount /proc/sys/kernel/osrelease".to_owned(),
            "needs 6.1 or newer",
        ),
        (
            "/dev/loop0",
            "mount -t tmpfs none /sys/kernel/btf".to_owned(),
            "umount /sys/kernel/btf".to_owned(),
            "does not describe its own types",
        ),
        (
            "/dev/loop0",
            format!(
                "mount -t tmpfs none /sys/kernel/security; echo 'none integrity [confidentiality]' >{lockdown}"
            ),
            "umount /sys/kernel/security".to_owned(),
            "locked down",
        ),
    ];
    for (disk, before, after, why) in cases {
        guest.sh(&before);
        let error = guest.imager(1, &["journal", "start", disk])["error"].clone();
        println!("{error}");
        assert!(error["message"].as_str().is_some_and(|said| said.contains(why)), "{error}");
        guest.sh(&after);
    }
}

/// After whatever leaves the journal in doubt everything is compared.
fn in_doubt(kernel: Kernel) {
    let scratch = Scratch::new();
    let Some(mut guest) = machine(&scratch, kernel) else { return };
    // The last eighth of the disk can be made to fail; the filesystem ends before.
    let linear = |first: u64, len: u64| format!("{first} {len} linear /dev/sda {first}\n");
    let (size, head) = ((64 * MIB) / 512, (56 * MIB) / 512);
    let whole = linear(0, size);
    let broken = format!("{}{head} {} error\n", linear(0, head), size - head);
    let table = |table: &str| {
        format!("printf '{}' | dmsetup reload x && dmsetup resume x;", table.replace('\n', "\\n"))
    };
    guest.sh(&format!(
        "printf '{}' | dmsetup create x; /usr/bin/losetup --direct-io=on /dev/loop0 /dev/mapper/x",
        whole.replace('\n', "\\n")
    ));
    refused(&mut guest);
    guest.sh("/usr/bin/mke2fs -q -F -t ext4 /dev/loop0 48M; mount -t ext4 /dev/loop0 /mnt");
    guest.imager(0, &["journal", "start", "/dev/loop0"]);
    let acts = [
        ("nothing", String::new(), "journal"),
        (
            "a write that fails",
            format!(
                "{} ! dd if=/dev/urandom of=/dev/loop0 bs=64k count=1 seek=1000 oflag=direct conv=notrunc 2>&1; {}",
                table(&broken),
                table(&whole)
            ),
            "compare",
        ),
        ("nothing", String::new(), "journal"),
        (
            "records of another start of the machine",
            "cat /proc/sys/kernel/random/uuid >/tmp/id; mount --bind /tmp/id /proc/sys/kernel/random/boot_id"
                .to_owned(),
            "compare",
        ),
        ("nothing", String::new(), "journal"),
        ("a sleep", "echo core >/sys/power/pm_test; echo mem >/sys/power/state".to_owned(), "compare"),
        ("nothing", String::new(), "journal"),
    ];
    guest.imager(0, &["capture", "/dev/loop0", "--machine", "m"]);
    for (number, (what, act, truth)) in acts.iter().enumerate() {
        guest.sh(&format!("dd if=/dev/urandom of=/mnt/{number} bs=100k count=9 conv=fsync 2>/dev/null"));
        println!("{}", guest.sh(act));
        guest.sh(&format!(
            "dd if=/dev/urandom of=/mnt/more bs=70k count={} conv=fsync 2>/dev/null",
            number + 3
        ));
        let report = guest.imager(0, &["capture", "/dev/loop0", "--machine", "m"]);
        println!("{what}:");
        describe(&report);
        assert_eq!(report["volumes"][0]["truth"], *truth, "after {what}");
        guest.sh("rm -f /tmp/x.img; truncate -s 64M /tmp/x.img");
        guest.imager(0, &["restore", "m", "--to", "/tmp/x.img", "--bare-metal", "--yes"]);
        guest.sh("e2fsck -fn /tmp/x.img; mkdir -p /tmp/at; mount -t ext4 -o ro,loop /tmp/x.img /tmp/at; cd /mnt; for f in *; do [ -d $f ] || cmp $f /tmp/at/$f; done; umount /tmp/at");
    }
    guest.imager(0, &["journal", "stop"]);
    guest.sh("umount /mnt /repository; losetup -d /dev/loop0; dmsetup remove x");
    guest.end();
}
