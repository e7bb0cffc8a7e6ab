//! The disk of a real Debian server: its operating system lost and put back with the data volume left alone, and the
//! whole disk lost and put back onto an empty one.

use halfhour_tests::tree::Tree;
use halfhour_tests::{Imager, MIB, Scratch, judge, junk, need, recipe, table, tool};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn a_server_with_gpt_comes_back() {
    comes_back(&["--small"], "gpt");
}

#[test]
fn a_server_with_mbr_comes_back() {
    comes_back(&["--small", "--mbr"], "mbr");
}

fn comes_back(options: &[&str], kind: &str) {
    if !need::root() || !need::programs(&["sfdisk", "sgdisk", "e2fsck", "fsck.fat", "mcopy", "mkfs.xfs"]) {
        return;
    }
    let scratch = Scratch::new();
    let Some(disk) = recipe::server_disk(&scratch, options) else { return };
    let server = Server::look(&scratch, disk, kind);
    server.has_the_right_roles();
    server.capture();
    server.is_examined();
    server.in_place();
    server.bare_metal();
}

struct Volume {
    key: String,
    role: String,
    at: String,
    kind: String,
    start: u64,
    len: u64,
    used: Vec<(u64, u64)>,
}

struct Server<'a> {
    scratch: &'a Scratch,
    imager: Imager,
    disk: String,
    size: u64,
    kind: &'a str,
    volumes: Vec<Volume>,
}

fn volume(seen: &Value) -> Volume {
    let text = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().expect("a number");
    let used = seen["used_extents"].as_array().expect("extents");
    Volume {
        key: text("key"),
        role: text("role"),
        at: text("name"),
        kind: text("filesystem"),
        start: number(&seen["start_byte"]),
        len: number(&seen["size_bytes"]),
        used: used.iter().map(|e| (number(&e[0]), number(&e[1]))).collect(),
    }
}

impl<'a> Server<'a> {
    fn look(scratch: &'a Scratch, disk: String, kind: &'a str) -> Self {
        let imager = scratch.imager();
        let seen = imager.json(&["inspect", "--extents", &disk]);
        assert_eq!(seen["disks"][0]["table"]["kind"], kind);
        let volumes = seen["volumes"].as_array().expect("volumes").iter().map(volume).collect();
        let size = Path::new(&disk).metadata().expect("the disk").len();
        Self { scratch, imager, disk, size, kind, volumes }
    }

    /// The volume that its system mounts there.
    fn at(&self, at: &str) -> &Volume {
        let found = self.volumes.iter().find(|volume| volume.at == at);
        found.unwrap_or_else(|| panic!("no volume is called {at:?}"))
    }

    fn has_the_right_roles(&self) {
        let roles: Vec<_> = self.volumes.iter().map(|v| (v.role.as_str(), v.kind.as_str())).collect();
        let expected: &[_] = match self.kind {
            "gpt" => &[
                ("boot", ""),
                ("boot", "fat32"),
                ("boot", "ext4"),
                ("os", "ext4"),
                ("data", "ext4"),
                ("swap", "swap"),
            ],
            _ => &[("boot", "ext4"), ("os", "ext4"), ("swap", "swap"), ("data", "ext4")],
        };
        assert_eq!(roles, expected);
        assert_eq!((self.at("/boot").role.as_str(), self.at("/srv").role.as_str()), ("boot", "data"));
    }

    fn capture(&self) {
        let before = judge::whole(&self.disk);
        let captured = self.imager.json(&["capture", &self.disk, "--machine", "server", "--data", "used"]);
        assert_eq!(judge::whole(&self.disk), before, "the source was only read");
        assert_eq!((&captured["consistency"], &captured["problems"]), (&json!("offline"), &json!([])));
        let again = self.imager.json(&["capture", &self.disk, "--machine", "server", "--data", "used"]);
        let new = |capture: &Value| -> u64 {
            let volumes = capture["volumes"].as_array().expect("volumes");
            volumes.iter().map(|volume| volume["new_bytes"].as_u64().expect("a number")).sum()
        };
        assert!(new(&captured) > 300 * MIB, "the system is stored: {}", new(&captured));
        assert_eq!((new(&again), &again["kind"]), (0, &json!("incremental")), "nothing is stored twice");
    }

    /// What the method asks of it, told from its capture alone.
    fn is_examined(&self) {
        let said = self.imager.json(&["doctor", "server"]);
        let findings = said["findings"].as_array().expect("findings");
        let level = |check: &str| {
            let of_check = findings.iter().filter(|finding| finding["check"] == check);
            of_check.map(|finding| finding["level"].as_str().unwrap_or_default()).collect::<Vec<_>>()
        };
        for check in ["data-apart", "names", "loader", "room", "skeletons", "recovery-time"] {
            assert_eq!(level(check), ["good"], "{check}: {said:#}");
        }
        assert_eq!((level("disks-apart"), level("age")), (vec!["advice"], vec!["advice"]), "{said:#}");
        assert_eq!(findings.iter().filter(|finding| finding["level"] == "problem").count(), 0, "{said:#}");
    }

    /// The root is formatted by mistake, /boot is overwritten; the data went on living since the capture.
    fn in_place(&self) {
        let target = self.scratch.copy(&self.disk, "in-place");
        let (root, boot, data) = (self.at("/"), self.at("/boot"), self.at("/srv"));
        junk::over(Path::new(&target), root.start, root.len);
        self.format_as_xfs(&target, root);
        junk::over(Path::new(&target), boot.start, boot.len);
        junk::over(Path::new(&target), 0, 440);
        junk::over(Path::new(&target), data.start + data.len / 2, MIB);
        let before = judge::digest(&target, data.start, data.len);
        let report = self.imager.json(&["restore", "server", "--to", &target, "--prove", "full", "--yes"]);
        assert_eq!(judge::digest(&target, data.start, data.len), before, "the data volume is not written");
        assert_eq!((&report["verified"], &report["problems"]), (&json!(true), &json!([])));
        let untouched = report["untouched"].as_array().expect("a list");
        let left: Vec<_> = untouched.iter().map(|u| (u["key"].as_str(), u["unchanged"].as_bool())).collect();
        let expected: Vec<_> =
            self.of_role("data swap").map(|volume| (Some(volume.key.as_str()), Some(true))).collect();
        assert_eq!(left, expected);
        for volume in self.of_role("boot os") {
            self.assert_same(volume, &target);
        }
        let gap = if self.kind == "mbr" { self.volumes[0].start } else { 440 };
        judge::assert_same_bytes((&self.disk, 0), (&target, 0), &[(0, gap)], "boot code and table");
        let again = self.imager.json(&["restore", "server", "--to", &target, "--yes"]);
        assert_eq!(again["written_bytes"], 0, "what is right is not written again");
        std::fs::remove_file(target).expect("a file of ours");
    }

    fn format_as_xfs(&self, target: &str, root: &Volume) {
        let part = self.scratch.file("xfs", root.len);
        tool("mkfs.xfs", &["-q", &part]);
        let arguments = [format!("if={part}"), format!("of={target}"), format!("seek={}", root.start)];
        let fixed = ["bs=1M", "oflag=seek_bytes", "conv=notrunc,sparse", "status=none"].map(str::to_owned);
        tool("dd", &[&arguments[..], &fixed[..]].concat());
    }

    fn of_role<'s>(&'s self, roles: &'s str) -> impl Iterator<Item = &'s Volume> {
        self.volumes.iter().filter(move |volume| roles.split(' ').any(|role| role == volume.role))
    }

    /// Onto an empty disk that is larger.
    fn bare_metal(&self) {
        let target = self.scratch.file("bare", self.size + 200 * MIB);
        self.imager.ok(&["restore", "server", "--to", &target, "--bare-metal", "--yes"]);
        assert_eq!(table::dump(&self.disk, 512), table::dump(&target, 512), "sfdisk's dump");
        if self.kind == "gpt" {
            assert!(table::is_sound_gpt(&target), "sgdisk's verdict");
        }
        for volume in &self.volumes {
            self.assert_same(volume, &target);
        }
        let gap = self.volumes.iter().map(|volume| volume.start).min().expect("a volume");
        let code = [(0, 440), (34 * 512, gap - 34 * 512)];
        judge::assert_same_bytes((&self.disk, 0), (&target, 0), &code, "boot code and the gap");
    }

    fn assert_same(&self, volume: &Volume, target: &str) {
        let what = format!("{}, volume {} ({})", self.kind, volume.key, volume.at);
        judge::assert_same_bytes((&self.disk, volume.start), (target, volume.start), &volume.used, &what);
        let parts = [self.scratch.name("from.part"), self.scratch.name("to.part")];
        for (disk, part) in [self.disk.as_str(), target].into_iter().zip(&parts) {
            judge::extract(disk, volume.start, volume.len, part);
        }
        if volume.kind.is_empty() {
            return;
        }
        let (status, said) = judge::fsck(&parts[1], &volume.kind);
        assert_eq!(status, Some(0), "{what}: {said}");
        judge::assert_same_filesystem(&parts[0], &parts[1], &volume.kind, self.scratch, &what);
        if volume.at == "/" {
            let files = Tree::of_ext(&parts[1], self.scratch).expect("the kernel mounts it").len();
            assert!(files > 10_000, "a whole system: {files} files");
        }
    }
}
