//! Skeletons of data volumes: the tree that comes back is the volume's, without its files, in a filesystem with the same
//! parameters that its own checker finds in order; and nothing changed on the volume.

use halfhour_tests::device::{loop_over, mount};
use halfhour_tests::tool::{command, judge};
use halfhour_tests::{Imager, LoopDisk, MIB, Scratch, junk, need, tool};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

const PROGRAMS: [&str; 8] =
    ["mke2fs", "e2fsck", "dumpe2fs", "debugfs", "setfattr", "getfattr", "setfacl", "chattr"];

/// How many directories a tree has beside the odd ones.
fn many() -> u64 {
    if need::full() { 20_000 } else { 300 }
}

/// Fills a mounted volume: odd names, owners, modes, times, access lists, attributes, flags, depth; and files.
fn fill(at: &Path, count: u64) {
    let path = |name: &[u8]| at.join(OsStr::from_bytes(name));
    let make = |name: &[u8]| std::fs::create_dir_all(path(name)).expect("a folder");
    for name in [
        &b"line\nbreak"[..],
        b"not \xFF\xFE utf-8",
        b"trailing  ",
        b" leading",
        b"-rf",
        b"*?[",
        b"\\",
        b"\x01",
    ] {
        make(name);
    }
    make(&[b'n'; 255]);
    make(b"sticky/setgid/mountpoint");
    let text = |name: &str| at.join(name).display().to_string();
    tool("chmod", &["1777", &text("sticky")]);
    tool("chmod", &["2750", &text("sticky/setgid")]);
    tool("chown", &["1234:70000", &text("sticky/setgid")]);
    tool("setfacl", &["-m", "u:4321:rwx,g:99:r-x,d:u:4321:rwx,d:o::-", &text("sticky/setgid")]);
    make(b"sticky/setgid/made under a default list");
    for (name, value) in
        [("user.text", "a value"), ("trusted.t", "t"), ("security.selinux", "system_u:object_r:x:s0")]
    {
        tool("setfattr", &["-n", name, "-v", value, &text("sticky")]);
    }
    tool("setfattr", &["-n", "user.long", "-v", &"v".repeat(700), &text("trailing  ")]);
    for (number, target) in ["../nowhere", "/absolute", &"t".repeat(200), "\u{e9}\n"].iter().enumerate() {
        symlink(target, at.join(format!("link{number}"))).expect("a symlink");
    }
    tool("chown", &["-h", "7:8", &text("link0")]);
    tool("touch", &["-h", "-d", "2001-02-03 04:05:06.789012345 UTC", &text("link0")]);
    let mut deep = path(b"deep");
    for _ in 0..200 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).expect("folders");
    for number in 0..count {
        let folder = at.join(format!("many/{}/{number}", number % 50));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("file"), "content").expect("a file");
    }
    for number in 0..100_u64 {
        let mut bytes = vec![0; 200_000];
        junk::Junk::new(number).fill(&mut bytes);
        std::fs::write(at.join(format!("sticky/file{number}")), bytes).expect("a file");
    }
    tool("mkfifo", &[text("pipe")]);
    std::fs::create_dir_all(at.join("pg/global")).expect("folders");
    std::fs::write(at.join("pg/global/pg_control"), "control").expect("a file");
    std::fs::hard_link(at.join("pg/global/pg_control"), at.join("pg/global/pg_control.2")).expect("a link");
    std::fs::write(at.join("pg/server.conf"), "port = 5432\n").expect("a file");
    tool("chown", &["26:26", &text("pg/server.conf")]);
    for (name, date) in
        [("sticky", "1999-12-31 23:59:59.123456789 UTC"), ("deep/d", "2031-01-01 00:00:00.5 UTC")]
    {
        tool("touch", &["-d", date, &text(name)]);
    }
}

/// What there is of directories and symlinks below a folder, told by find, getfattr and lsattr.
fn tree(at: &Path) -> Vec<String> {
    let script = "cd \"$0\" && find . \\( -type d -o -type l \\) -printf '%P|%y %m %U:%G %T@ %A@ %l\\0' | LC_ALL=C sort -z | tr '\\0\\n' '\\n\\1'
        find . \\( -type d -o -type l \\) -print0 | LC_ALL=C sort -z | xargs -0 getfattr -h -d -m - -e hex -- 2>/dev/null
        find . -type d -print0 | LC_ALL=C sort -z | xargs -0 lsattr -p -d -- 2>/dev/null | sed y,INe,---,";
    let done = command("sh").args(["-c", script]).arg(at).output().expect("sh runs");
    String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
}

fn assert_same(source: &[String], target: &[String]) {
    for (mine, theirs) in source.iter().zip(target) {
        assert_eq!(mine, theirs);
    }
    assert_eq!(source.len(), target.len());
}

fn files(at: &Path) -> Vec<String> {
    let done = tool("sh", &["-c", &format!("cd '{}' && find . -type f | sort", at.display())]);
    done.lines().map(str::to_owned).collect()
}

/// What `xfs_db` says of a superblock but for what changes with use.
fn parameters_of_xfs(image: &str) -> Vec<String> {
    let changing = "icount ifree fdblocks frextents crc lsn rootino rbmino rsumino versionnum uquotino gquotino pquotino";
    let said = tool("xfs_db", &["-r", "-c", "sb 0", "-c", "print", image]);
    let name = |line: &str| line.split(' ').next().map(str::to_owned);
    let changes = |line: &str| name(line).is_some_and(|name| changing.split(' ').any(|one| one == name));
    said.lines().filter(|line| !changes(line)).map(str::to_owned).collect()
}

/// What `btrfs` says of a superblock but for what changes with use.
fn parameters_of_btrfs(image: &str) -> Vec<String> {
    let stays = "csum_type fsid metadata_uuid label total_bytes sectorsize nodesize num_devices compat_flags \
                 compat_ro_flags incompat_flags";
    let said = tool("btrfs", &["inspect-internal", "dump-super", image]);
    let is_one = |line: &&str| stays.split(' ').any(|name| line.starts_with(name));
    said.lines().filter(is_one).map(str::to_owned).collect()
}

/// What a superblock says but for what changes with use.
fn parameters(image: &str) -> Vec<String> {
    let changing = [
        "Free",
        "Last mount time",
        "Last write time",
        "Mount count",
        "Last checked",
        "Next check",
        "Lifetime writes",
        "Checksum:",
        "Journal s",
        "Journal checksum:",
        "Inode count before",
        "Overhead",
        "First orphan",
        "Journal start",
        "Journal sequence",
        "Filesystem state",
        "Max transaction length",
        "Fast commit length",
        "Group 0",
        "Orphan file",
        "Journal features",
    ];
    let said = tool("dumpe2fs", &["-h", image]);
    let stays = said.lines().filter(|line| !changing.iter().any(|start| line.starts_with(start)));
    stays.map(str::to_owned).collect()
}

/// The stored bytes that a skeleton may take: 1 % of what is used, or 4 MB and 1 KiB for each directory.
fn assert_small(volume: &Value, used: u64) {
    let stored = volume["stored_bytes"].as_u64().expect("a number");
    let folders = volume["skeleton"]["directories"].as_u64().expect("a number");
    let most = (used / 100).max(4_000_000 + 1024 * folders);
    println!("{stored} bytes stored of {folders} directories, at most {most}");
    assert!(stored <= most, "{stored} > {most}");
}

/// Makes a filesystem by a program with its arguments.
fn make(maker: &str, image: &str) {
    let words: Vec<_> = maker.split_whitespace().chain([image]).collect();
    tool(words[0], &words[1..]);
}

/// Makes a filesystem in a file, and fills it.
fn volume(scratch: &Scratch, name: &str, mib: u64, maker: &str, mounted: &str, count: u64) -> String {
    let image = scratch.file(name, mib * MIB);
    make(maker, &image);
    let (node, _loop) = loop_over(&image);
    let at = scratch.path(&format!("{name}-filled"));
    let _mounted = mount(&node.display().to_string(), &at, mounted);
    fill(&at, count);
    image
}

/// Restores onto junk and compares.
fn comes_back(imager: &Imager, scratch: &Scratch, image: &str, mounted: &str, kept: &[&str]) -> String {
    let size = std::fs::metadata(image).expect("the image").len();
    let back = scratch.junk("back.img", size);
    let report = imager.json(&["restore", "m", "--to", &back, "--volume", "0", "--yes"]);
    assert_eq!(report["verified"], true);
    let look = |image: &str, name: &str| {
        let at = scratch.path(name);
        let (node, _loop) = loop_over(image);
        let found = {
            let _mounted = mount(&node.display().to_string(), &at, mounted);
            (tree(&at), files(&at))
        };
        // The next one has the same UUID.
        let _none = judge("btrfs", &["device", "scan", "--forget", &node.display().to_string()]);
        found
    };
    let ((source, _), (target, files)) = (look(image, "look-source"), look(&back, "look-target"));
    assert_same(&source, &target);
    assert_eq!(files, kept);
    back
}

fn digest(image: &str) -> String {
    tool("sha256sum", &[image])[..64].to_owned()
}

#[test]
fn the_skeleton_of_ext_is_its_tree_and_its_parameters() {
    if !need::root() || !need::programs(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let makers = [
        ("plain", 400, "mke2fs -q -F -t ext4 -L data-one", "ro,noload,noatime"),
        (
            "odd",
            300,
            "mke2fs -q -F -t ext4 -b 1024 -I 512 -N 60000 -m 3.7 -e panic -G 32 -J size=9 -M /srv/data \
             -O ^64bit,^metadata_csum,uninit_bg,large_dir,ea_inode,inline_data,^resize_inode -E stride=16,stripe_width=64",
            "ro,noload,noatime",
        ),
        (
            "new",
            300,
            "mke2fs -q -F -t ext4 -O metadata_csum_seed,encrypt,verity,fast_commit,orphan_file -E resize=10000000",
            "ro,noload,noatime",
        ),
        ("ext3", 200, "mke2fs -q -F -t ext3", "ro,noload,noatime"),
        ("ext2", 200, "mke2fs -q -F -t ext2 -O ^resize_inode", "ro,noatime"),
    ];
    let taken = need::sample("ext", &makers.map(|(name, ..)| name), 2);
    for (name, mib, maker, mounted) in makers.into_iter().filter(|(name, ..)| taken.contains(name)) {
        let image = volume(&scratch, name, mib, maker, "noatime", if name == "plain" { many() } else { 20 });
        let back = there_and_back(&scratch, name, &image, mounted);
        assert_eq!(parameters(&image), parameters(&back), "{name}");
        let (status, said) = judge("e2fsck", &["-f", "-n", &back]);
        assert_eq!(status, Some(0), "{name}: {said}");
    }
}

/// Captures the skeleton of a filesystem in a file, twice, and puts it back onto junk.
fn there_and_back(scratch: &Scratch, name: &str, image: &str, mounted: &str) -> String {
    let imager = Imager::new(scratch.path(&format!("state-{name}")), scratch.path(&format!("repo-{name}")));
    imager.ok(&["init"]);
    let before = digest(image);
    let used = imager.json(&["inspect", image])["volumes"][0]["used_bytes"].as_u64().expect("a number");
    let capture = ["capture", image, "--machine", "m", "--role", "0=data"];
    let report = imager.json(&capture);
    assert_eq!(digest(image), before, "{name}: the source changed");
    let volume = &report["volumes"][0];
    assert_eq!(volume["mode"], "skeleton", "{name}");
    let warnings = report["warnings"].as_array().expect("a list").iter();
    let strange: Vec<_> = warnings.filter(|warning| !warning.to_string().contains("keeps quotas")).collect();
    assert!(strange.is_empty(), "{name}: {strange:?}");
    assert_small(volume, used);
    let again = imager.json(&capture);
    println!("{name}: {} bytes stored again", again["volumes"][0]["stored_bytes"]);
    let back = comes_back(&imager, scratch, image, mounted, &[]);
    imager.ok(&["verify", "--all", "--read-data"]);
    back
}

#[test]
fn the_skeleton_of_xfs_is_its_tree_and_its_parameters() {
    if !need::root() || !need::programs(&PROGRAMS) || !need::programs(&["mkfs.xfs", "xfs_db", "xfs_repair"]) {
        return;
    }
    let scratch = Scratch::new();
    let mounted = "ro,norecovery,nouuid,noatime";
    let makers = [
        ("plain", "mkfs.xfs -q -L data-one", "noatime"),
        (
            "odd",
            "mkfs.xfs -q --unsupported -m rmapbt=1,bigtime=0,inobtcount=0 -d agcount=7,su=64k,sw=3 -n size=8192 \
             -i size=1024,maxpct=13,sparse=0 -l size=20m",
            "noatime",
        ),
        ("fine", "mkfs.xfs -q -b size=1024", "noatime"),
    ];
    let taken = need::sample("XFS", &makers.map(|(name, ..)| name), 1);
    for (name, maker, filled) in makers.into_iter().filter(|(name, ..)| taken.contains(name)) {
        let image = volume(&scratch, name, 400, maker, filled, if name == "plain" { many() } else { 20 });
        let back = there_and_back(&scratch, name, &image, mounted);
        assert_eq!(parameters_of_xfs(&image), parameters_of_xfs(&back), "{name}");
        let qflags = |image: &str| tool("xfs_db", &["-r", "-c", "sb 0", "-c", "print qflags", image]);
        assert_eq!(qflags(&image), qflags(&back), "{name}");
        let (status, said) = judge("xfs_repair", &["-n", "-f", &back]);
        assert_eq!(status, Some(0), "{name}: {said}");
    }
}

/// The subvolumes of a Btrfs in a file: all, those that are read-only, the default one.
fn subvolumes(scratch: &Scratch, image: &str) -> [Vec<String>; 3] {
    let at = scratch.path("subvolumes");
    let (node, _loop) = loop_over(image);
    let node = node.display().to_string();
    let mounted = mount(&node, &at, "ro,subvolid=5");
    let at = at.display().to_string();
    let found = [&["list"][..], &["list", "-r"], &["get-default"]].map(|flags| {
        let said = tool("btrfs", &[&["subvolume"], flags, &[at.as_str()]].concat());
        let paths = said.lines().filter_map(|line| line.split_once(" path "));
        let mut paths: Vec<_> = paths.map(|(_, path)| path.to_owned()).collect();
        paths.sort();
        paths
    });
    drop(mounted);
    tool("btrfs", &["device", "scan", "--forget", &node]);
    found
}

#[test]
fn the_skeleton_of_btrfs_is_its_tree_with_its_subvolumes() {
    if !need::root() || !need::programs(&PROGRAMS) || !need::programs(&["mkfs.btrfs", "btrfs", "btrfstune"]) {
        return;
    }
    let scratch = Scratch::new();
    let makers = [
        ("plain", "mkfs.btrfs -q -L data-one"),
        ("odd", "mkfs.btrfs -q -n 32768 --csum xxhash -m single -d dup -O ^no-holes"),
        ("mixed", "mkfs.btrfs -q --mixed -R ^free-space-tree"),
    ];
    let taken = need::sample("Btrfs", &makers.map(|(name, ..)| name), 1);
    for (name, maker) in makers.into_iter().filter(|(name, ..)| taken.contains(name)) {
        let image = scratch.file(name, 400 * MIB);
        make(maker, &image);
        let (node, detach) = loop_over(&image);
        let (node, at) = (node.display().to_string(), scratch.path(&format!("{name}-filled")));
        let mounted = mount(&node, &at, "noatime");
        fill(&at, if name == "plain" { many() } else { 20 });
        let path = |below: &str| at.join(below).display().to_string();
        for subvolume in ["home", "home/inner", "with space"] {
            tool("btrfs", &["-q", "subvolume", "create", &path(subvolume)]);
            std::fs::create_dir_all(at.join(subvolume).join("folder/below")).expect("folders");
        }
        tool("btrfs", &["-q", "subvolume", "snapshot", "-r", &path("with space"), &path("snapshot")]);
        tool("btrfs", &["-q", "subvolume", "set-default", &path("home/inner")]);
        tool("chattr", &["+C", &path("with space/folder")]);
        drop(mounted);
        tool("btrfs", &["device", "scan", "--forget", &node]);
        drop(detach);
        // Another one with its UUID is there, as a volume's own always is.
        let twin = loop_over(&scratch.copy(&image, &format!("{name}-twin")));
        let back = there_and_back(&scratch, name, &image, "ro,noatime,subvolid=5");
        drop(twin);
        assert_eq!(parameters_of_btrfs(&image), parameters_of_btrfs(&back), "{name}");
        assert_eq!(subvolumes(&scratch, &image), subvolumes(&scratch, &back), "{name}");
        let (status, said) = judge("btrfs", &["check", "--readonly", &back]);
        assert_eq!(status, Some(0), "{name}: {said}");
    }
}

#[test]
fn files_that_are_wanted_are_kept_with_their_links_and_owners() {
    if !need::root() || !need::programs(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let image = volume(&scratch, "kept", 200, "mke2fs -q -F -t ext4", "noatime", 5);
    let capture = ["capture", &image, "--machine", "m", "--role", "0=data"];
    let keep = ["--keep", "**/pg_control*", "--keep", "pg/*.conf", "--keep", "no such file"];
    let report = imager.json(&[&capture[..], &keep].concat());
    assert!(report["warnings"].to_string().contains("no such file"), "{report}");
    assert_eq!(report["volumes"][0]["skeleton"]["kept_files"], 3);
    let kept = ["./pg/global/pg_control", "./pg/global/pg_control.2", "./pg/server.conf"];
    let back = comes_back(&imager, &scratch, &image, "ro,noload,noatime", &kept);
    let at = scratch.path("kept-back");
    let (node, _loop) = loop_over(&back);
    let _mounted = mount(&node.display().to_string(), &at, "ro,noload,noatime");
    let stat = tool(
        "sh",
        &[
            "-c",
            &format!(
                "cd '{}' && stat -c '%h %U %s' pg/global/pg_control && cat pg/server.conf && stat -c %u pg/server.conf",
                at.display()
            ),
        ],
    );
    assert_eq!(stat, "2 root 7\nport = 5432\n26\n");
    // More than there is room for.
    let report = imager.run_json(&[&capture[..], &["--keep", "sticky/file*"]].concat());
    let said = report.expect_code(2).json()["problems"].to_string();
    assert!(said.contains("16.0 MiB") && said.contains("sticky/file"), "{said}");
}

#[test]
fn a_mounted_data_volume_is_only_looked_at() {
    if !need::root() || !need::programs(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let image = volume(&scratch, "live", 200, "mke2fs -q -F -t ext4", "noatime", 20);
    let (node, _loop) = loop_over(&image);
    let node = node.display().to_string();
    let at = scratch.path("live-mounted");
    let _mounted = mount(&node, &at, "strictatime");
    // What is mounted over a folder is not looked into.
    let over = at.join("sticky/setgid/mountpoint");
    let _over = halfhour_tests::device::tmpfs(&over, MIB);
    std::fs::create_dir_all(over.join("not of the volume")).expect("a folder");
    let atimes =
        || tool("sh", &["-c", &format!("find '{}' -xdev -printf '%P %A@\\0' | sort -z", at.display())]);
    // Looking changes what is looked at; a second look at the same second does not, but a capture would.
    let _first = atimes();
    let stat = |name: &str| tool("stat", &["-c", "%X %y", &at.join(name).display().to_string()]);
    let before = ["deep", "sticky", "many/1", "link0"].map(stat);
    let report = imager.json(&["capture", &node, "--machine", "m", "--role", "0=data"]);
    assert_eq!(report["consistency"], "offline");
    assert_eq!(["deep", "sticky", "many/1", "link0"].map(stat), before, "times of access changed");
    assert_eq!(report["volumes"][0]["mode"], "skeleton");
    // It is still refused where its bytes are wanted.
    imager.fails(4, &["capture", &node, "--machine", "m", "--role", "0=data", "--data", "used"]);
    imager.fails(4, &["capture", &node, "--machine", "m"]);
    drop(_over);
    let back = scratch.junk("back.img", 200 * MIB);
    imager.ok(&["restore", "m", "--to", &back, "--volume", "0", "--yes"]);
    let target = scratch.path("live-back");
    let (node, _loop) = loop_over(&back);
    let _target = mount(&node.display().to_string(), &target, "ro,noload,noatime");
    let listed = |at: &Path| {
        tool(
            "sh",
            &["-c", &format!("cd '{}' && find . -type d -printf '%P %m %U %T@\\n' | sort", at.display())],
        )
    };
    assert_eq!(listed(&at), listed(&target));
}

#[test]
fn a_skeleton_takes_no_filesystem_s_place_unasked() {
    if !need::root() || !need::programs(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let disk = halfhour_tests::recipe::machine(&scratch, "disk.img");
    let report = imager.json(&["capture", &disk, "--machine", "m"]);
    assert_eq!(report["volumes"][2]["mode"], "skeleton", "{report}");
    assert!(report["not_captured"].to_string().contains("volume 3 (/srv"), "{report}");
    let digest_of = |disk: &str| {
        tool("sh", &["-c", &format!("dd if={disk} bs=1M skip=33 count=16 status=none | sha256sum")])
    };
    let before = digest_of(&disk);
    // In place it is left alone, and named it is refused.
    imager.ok(&["restore", "m", "--to", &disk, "--yes"]);
    assert_eq!(digest_of(&disk), before);
    let error = imager.fails(4, &["restore", "m", "--to", &disk, "--volume", "3", "--yes"]);
    assert!(error["message"].to_string().contains("--erase-volume 3"), "{error}");
    imager.fails(4, &["restore", "m", "--to", &disk, "--bare-metal", "--yes"]);
    imager.fails(64, &["restore", "m", "--to", &disk, "--volume", "3", "--yes", "--erase-volume", "2"]);
    assert_eq!(digest_of(&disk), before);
    imager.ok(&["restore", "m", "--to", &disk, "--volume", "3", "--yes", "--erase-volume", "3"]);
    assert_ne!(digest_of(&disk), before);
    // Onto nothing it goes by itself.
    let blank = scratch.file("blank.img", std::fs::metadata(&disk).expect("the disk").len());
    imager.ok(&["restore", "m", "--to", &blank, "--bare-metal", "--yes"]);
    // So it does once more, as after an interruption, until somebody has used it.
    imager.ok(&["restore", "m", "--to", &blank, "--bare-metal", "--yes"]);
    let Some(used) = LoopDisk::attach(&blank, 512) else { return };
    drop(mount(&used.partition(3), &scratch.path("used"), "noatime"));
    drop(used);
    imager.fails(4, &["restore", "m", "--to", &blank, "--bare-metal", "--yes"]);
    imager.ok(&["restore", "m", "--to", &blank, "--bare-metal", "--yes", "--erase-volume", "3"]);
}

#[test]
fn a_volume_of_which_none_can_be_made_is_named_with_the_ways_out() {
    if !need::root() || !need::programs(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let image = scratch.junk("junk.img", 8 * MIB);
    let report = imager.run_json(&["capture", &image, "--machine", "m", "--role", "0=data"]);
    report.expect_code(2);
    let report = report.json();
    let said = report["problems"][0]["message"].as_str().expect("a text");
    assert!(said.contains("--data used") && said.contains("--role 0=ignore"), "{said}");
    assert_eq!(report["volumes"][0]["mode"], "none");
    imager.ok(&["capture", &image, "--machine", "m", "--role", "0=data", "--data", "used"]);
    // Whoever had the content until now is told that it is missing.
    for kind in ["incremental", "full"] {
        let less =
            imager.run_json(&["capture", &image, "--machine", "m", "--role", "0=data", "--kind", kind]);
        let less = less.json()["warnings"].to_string();
        assert_eq!(less.contains("the capture before this one"), kind == "incremental", "{kind}: {less}");
    }
    imager.ok(&["capture", &image, "--machine", "m", "--role", "0=ignore"]);
}

/// Ends the record of a disk.
struct Recorded<'a>(&'a Imager, &'a str);

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        let _ended = self.0.run(&["journal", "stop", self.1]);
    }
}

#[test]
fn a_machine_is_captured_while_it_runs_with_the_skeletons_of_its_data() {
    if !need::root() || !need::programs(&PROGRAMS) {
        return;
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return need::skip("this kernel does not describe its types");
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let image = halfhour_tests::recipe::machine(&scratch, "disk.img");
    let Some(disk) = LoopDisk::attach(&image, 512) else { return };
    let (root, data) = (scratch.path("root"), scratch.path("data"));
    let mounted = [mount(&disk.partition(2), &root, "noatime"), mount(&disk.partition(3), &data, "noatime")];
    std::fs::create_dir_all(data.join("before/below")).expect("folders");
    // What says so is read only from a log that was written to once.
    std::fs::write(root.join("early"), "before").expect("a file");
    imager.ok(&["journal", "start", &disk.path]);
    let recorded = Recorded(&imager, &disk.path);
    let first = imager.json(&["capture", &disk.path, "--machine", "m"]);
    std::fs::create_dir_all(data.join("after")).expect("a folder");
    std::fs::write(root.join("written"), "since").expect("a file");
    let second = imager.json(&["capture", &disk.path, "--machine", "m"]);
    for report in [&first, &second] {
        assert_eq!(
            (&report["consistency"], &report["problems"]),
            (&"frozen".into(), &Value::Array(Vec::new()))
        );
        assert_eq!(report["volumes"][2]["mode"], "skeleton");
        assert_eq!(report["volumes"][2].get("consistency"), None, "it is of no instant");
    }
    let truth = |volume: usize| &second["volumes"][volume]["truth"];
    assert_eq!((truth(1), truth(2)), (&"journal".into(), &"compare".into()), "{second}");
    drop((recorded, mounted));
    imager.ok(&["verify", "--all", "--read-data"]);
    let back = scratch.file("back.img", std::fs::metadata(&image).expect("the disk").len());
    imager.ok(&["restore", "m", "--to", &back, "--bare-metal", "--yes"]);
    let Some(back) = LoopDisk::attach(&back, 512) else { return };
    let at = scratch.path("back");
    let _mounted = mount(&back.partition(3), &at, "ro,noload");
    assert!(at.join("before/below").is_dir() && at.join("after").is_dir());
    assert!(files(&at).is_empty());
}
