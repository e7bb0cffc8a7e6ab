//! What a server with its root on Btrfs says its volumes are for, whatever subvolume that root is in: its fstab is read as
//! the kernel would read it.

use halfhour_tests::device::{loop_over, mount};
use halfhour_tests::{Imager, Scratch, need, table, tool};
use serde_json::Value;

const FSTAB: &str = "UUID=ROOT / btrfs OPTIONS 0 0\nUUID=ROOT /var btrfs subvol=@var 0 0\n# What follows is data.\n\
                     UUID=DATA /srv ext4 defaults 0 2\n";
const BTRFS_MIB: u64 = 128;
const DATA_MIB: u64 = 8;

/// How distributions lay out their root.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    /// What of the filesystem becomes subvolumes, in order; the last is the root.
    subvolumes: &'static [&'static str],
    /// Whether that is mounted when none is named.
    is_default: bool,
    /// How the root is mounted when it is filled.
    mounted: &'static str,
    /// What its fstab says.
    options: &'static str,
}

const LAYOUTS: [Layout; 5] = [
    Layout { name: "top", subvolumes: &[], is_default: false, mounted: "noatime", options: "defaults" },
    Layout {
        name: "debian",
        subvolumes: &["@rootfs"],
        is_default: false,
        mounted: "compress-force=zstd",
        options: "defaults,subvol=@rootfs",
    },
    Layout {
        name: "ubuntu",
        subvolumes: &["@"],
        is_default: false,
        mounted: "max_inline=0",
        options: "subvol=/@,compress=zstd",
    },
    Layout {
        name: "suse",
        subvolumes: &["@", "@/.snapshots", "@/.snapshots/1", "@/.snapshots/1/snapshot"],
        is_default: true,
        mounted: "noatime",
        options: "defaults",
    },
    Layout {
        name: "zlib",
        subvolumes: &["@"],
        is_default: false,
        mounted: "compress-force=zlib",
        options: "subvol=@",
    },
];

/// The UUIDs of root and data: each test of each run has its own, for mkfs refuses what it thinks is attached.
fn ids(name: &str) -> [String; 2] {
    let (run, own) = (std::process::id() & 0xFFFF, name.bytes().map(u32::from).sum::<u32>());
    [1, 2].map(|number| format!("33333333-0000-4000-{run:04x}-{own:08}{number:04}"))
}

fn fstab(name: &str, options: &str) -> String {
    let [root, data] = ids(name);
    FSTAB.replace("ROOT", &root).replace("DATA", &data).replace("OPTIONS", options)
}

/// A disk with a root of Btrfs, a data volume that its fstab names, and an ext4 that it does not.
fn server(scratch: &Scratch, layout: Layout) -> String {
    let name = |what: &str| scratch.name(&format!("{}-{what}", layout.name));
    let root = scratch.file(&format!("{}-root", layout.name), BTRFS_MIB << 20);
    let [root_id, data_id] = ids(layout.name);
    tool("mkfs.btrfs", &["-q", "-U", &root_id, &root]);
    fill(scratch, &root, layout);
    let (data, other) = (name("data"), name("other"));
    for (file, options) in [(&data, &["-U", data_id.as_str()][..]), (&other, &[])] {
        let create = std::fs::File::create(file).and_then(|file| file.set_len(DATA_MIB << 20));
        create.expect("a file");
        tool("mke2fs", &[&["-q", "-F", "-t", "ext4"], options, &[file]].concat());
    }
    let disk = scratch.file(&format!("{}-disk", layout.name), (BTRFS_MIB + 3 * DATA_MIB) << 20);
    let size = |mib: u64| mib << 11;
    let mut script = "label: gpt\n".to_owned();
    let mut start = 2048;
    for (part, mib) in [(&root, BTRFS_MIB), (&data, DATA_MIB), (&other, DATA_MIB)] {
        script.push_str(&format!("start={start}, size={}, type=linux\n", size(mib)));
        place(part, &disk, start);
        start += size(mib);
    }
    table::write(&disk, &script);
    disk
}

/// Puts a system where the layout has it, and a read-only snapshot of it beside.
fn fill(scratch: &Scratch, root: &str, layout: Layout) {
    let at = scratch.path(&format!("{}-mounted", layout.name));
    let (node, _loop) = loop_over(root);
    let node = node.display().to_string();
    let mounted = mount(&node, &at, layout.mounted);
    let path = |below: &str| at.join(below).display().to_string();
    for subvolume in layout.subvolumes {
        tool("btrfs", &["-q", "subvolume", "create", &path(subvolume)]);
    }
    let top = layout.subvolumes.last().copied().unwrap_or_default();
    let etc = at.join(top).join("etc");
    std::fs::create_dir_all(&etc).expect("a folder");
    let comment = "# A line that says nothing.\n".repeat(40);
    std::fs::write(etc.join("fstab"), fstab(layout.name, layout.options) + &comment).expect("a file");
    std::fs::write(etc.join("hostname"), format!("{}\n", layout.name)).expect("a file");
    if !top.is_empty() {
        let snapshot = path("before the upgrade");
        tool("btrfs", &["-q", "subvolume", "snapshot", "-r", &path(top), &snapshot]);
    }
    if layout.is_default {
        tool("btrfs", &["-q", "subvolume", "set-default", &path(top)]);
    }
    drop(mounted);
    tool("btrfs", &["device", "scan", "--forget", &node]);
}

fn seen(scratch: &Scratch, disks: &[&str]) -> (Vec<(String, String)>, Vec<String>) {
    let imager = Imager::new(scratch.path("state"), scratch.path("none"));
    let report = imager.json(&[&["inspect"], disks].concat());
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let volumes = report["volumes"].as_array().expect("volumes").iter();
    let roles = volumes.map(|volume| (text(&volume["name"]), text(&volume["role"]))).collect();
    (roles, report["warnings"].as_array().expect("warnings").iter().map(text).collect())
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, role)| (name.to_owned(), role.to_owned())).to_vec()
}

#[test]
fn the_fstab_of_a_btrfs_root_tells_what_volumes_are_for() {
    if !need::root() || !need::programs(&["mkfs.btrfs", "btrfs", "mke2fs", "sfdisk", "losetup"]) {
        return;
    }
    let scratch = Scratch::new();
    for layout in LAYOUTS.into_iter().filter(|layout| layout.name != "zlib") {
        let disk = server(&scratch, layout);
        let (roles, warnings) = seen(&scratch, &[&disk]);
        assert_eq!(roles, pairs([("/", "os"), ("/srv", "data"), ("3", "os")]), "{}", layout.name);
        let said = "no /etc/fstab that could be read names volume 3: it counts as the operating system, and a default \
                    restore overwrites it; if it holds data, capture with --role 3=data";
        assert_eq!(warnings, [said], "{}", layout.name);
    }
}

#[test]
fn an_fstab_that_cannot_be_read_is_told_with_the_reason() {
    if !need::root() || !need::programs(&["mkfs.btrfs", "btrfs", "mke2fs", "sfdisk", "losetup"]) {
        return;
    }
    let scratch = Scratch::new();
    let disk = server(&scratch, LAYOUTS[4]);
    let (roles, warnings) = seen(&scratch, &[&disk]);
    assert!(roles.iter().all(|(_, role)| role == "os"), "{roles:?}");
    let [said] = warnings.as_slice() else { panic!("one warning: {warnings:?}") };
    assert!(said.starts_with("no /etc/fstab could be read: volumes 1, 2 and 3 all count"), "{said}");
    let why = "; volume 1 cannot be looked into: /etc/fstab: it is compressed by zlib";
    assert!(said.ends_with(why), "{said}");
}

/// A root and data, each on two devices: a line names all devices of a filesystem.
#[test]
fn filesystems_on_several_devices_are_named_as_one() {
    if !need::root() || !need::programs(&["mkfs.btrfs", "btrfs", "losetup"]) {
        return;
    }
    let scratch = Scratch::new();
    let disks = ["first", "second"].map(|name| {
        let disk = scratch.file(name, (2 * BTRFS_MIB + DATA_MIB) << 20);
        let size = BTRFS_MIB << 11;
        let script = format!("label: gpt\nsize={size}, type=linux\nsize={size}, type=linux\n");
        table::write(&disk, &script);
        disk
    });
    let part = |disk: usize, number: usize| scratch.file(&format!("part{disk}{number}"), BTRFS_MIB << 20);
    let parts = [[part(0, 0), part(0, 1)], [part(1, 0), part(1, 1)]];
    for (number, id) in ids("several").iter().enumerate() {
        tool(
            "mkfs.btrfs",
            &["-q", "-d", "raid0", "-m", "raid1", "-U", id, &parts[0][number], &parts[1][number]],
        );
    }
    let devices = [0, 1].map(|disk| loop_over(&parts[disk][0]));
    for (node, _) in &devices {
        tool("btrfs", &["device", "scan", &node.display().to_string()]);
    }
    let at = scratch.path("mounted");
    let mounted = mount(&devices[0].0.display().to_string(), &at, "noatime");
    std::fs::create_dir_all(at.join("etc")).expect("a folder");
    std::fs::write(at.join("etc/fstab"), fstab("several", "noatime").replace("ext4", "btrfs"))
        .expect("a file");
    drop(mounted);
    for (node, _) in &devices {
        tool("btrfs", &["device", "scan", "--forget", &node.display().to_string()]);
    }
    drop(devices);
    for (disk, parts) in disks.iter().zip(&parts) {
        for (number, part) in parts.iter().enumerate() {
            place(part, disk, 2048 + number as u64 * (BTRFS_MIB << 11));
        }
    }
    let (roles, warnings) = seen(&scratch, &[&disks[0], &disks[1]]);
    assert_eq!(roles, pairs([("/", "os"), ("/srv", "data"), ("/", "os"), ("/srv", "data")]));
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// Puts the content of a partition onto a disk.
fn place(part: &str, disk: &str, sector: u64) {
    let (from, to, seek) = (format!("if={part}"), format!("of={disk}"), format!("seek={}", sector * 512));
    tool("dd", &[&from, &to, &seek, "bs=64K", "oflag=seek_bytes", "conv=notrunc,sparse", "status=none"]);
}

/// What a journal that was not replayed would put in place counts.
#[test]
fn the_fstab_of_a_root_that_crashed_is_read_through_its_journal() {
    if !need::root() || !need::programs(&["mke2fs", "dumpe2fs", "sfdisk", "losetup"]) {
        return;
    }
    let scratch = Scratch::new();
    let [_, data_id] = ids("crashed");
    let parts = ["root", "data"].map(|name| scratch.file(name, DATA_MIB << 21));
    for (part, options) in parts.iter().zip([&[][..], &["-U", data_id.as_str()]]) {
        tool("mke2fs", &[&["-q", "-F", "-t", "ext4"], options, &[part]].concat());
    }
    let crashed = scratch.name("crashed");
    let (node, _loop) = loop_over(&parts[0]);
    let node = node.display().to_string();
    let at = scratch.path("mounted");
    let _mounted = mount(&node, &at, "commit=300");
    std::fs::create_dir(at.join("etc")).expect("a folder");
    std::fs::write(at.join("etc/fstab"), "").expect("a file");
    tool("sync", &["-f", &at.display().to_string()]);
    // How long it is stands in the journal alone.
    std::fs::write(at.join("etc/fstab"), fstab("crashed", "noatime")).expect("a file");
    tool("sync", &[at.join("etc/fstab").display().to_string()]);
    // As it is now, past the cache.
    let (from, to) = (format!("if={node}"), format!("of={crashed}"));
    tool("dd", &[&from, &to, "bs=1M", "iflag=direct", "status=none"]);
    assert!(tool("dumpe2fs", &["-h", &crashed]).contains("needs_recovery"));
    let disk = scratch.file("disk", (5 * DATA_MIB) << 20);
    let sectors = DATA_MIB << 12;
    let second = 2048 + sectors;
    let script = format!(
        "label: gpt\nstart=2048, size={sectors}, type=linux\nstart={second}, size={sectors}, type=linux\n"
    );
    table::write(&disk, &script);
    place(&crashed, &disk, 2048);
    place(&parts[1], &disk, second);
    let (roles, _) = seen(&scratch, &[&disk]);
    assert_eq!(roles, pairs([("1", "os"), ("/srv", "data")]));
}
