//! Every partition layout that people bring, with filesystems in its partitions: restored in place, its table alone, and
//! onto an empty disk of the same size and a larger one; judged by sfdisk, sgdisk, and byte for byte.

use halfhour_tests::{Imager, LoopDisk, MIB, Scratch, judge, junk, need, recipe, table, tool};
use serde_json::Value;
use std::path::Path;

const ALWAYS: [&str; 13] = [
    "gpt-usual-512",
    "gpt-usual-4k",
    "gpt-many-512",
    "gpt-disorder-512",
    "gpt-hybrid-512",
    "gpt-primary-damaged-512",
    "gpt-backup-gone-4k",
    "gpt-grown-512",
    "gpt-oddsize-512",
    "mbr-usual-4k",
    "mbr-logicals-512",
    "mbr-disorder-512",
    "none-ext4-loader-512",
];

/// Tables that a restore mends, so that they are not the same byte for byte afterwards.
const MENDED: [&str; 2] = ["damaged", "gone"];
/// Tables of which sgdisk finds something wrong whoever writes them.
const ODD: [&str; 5] = ["hybrid", "same-guids", "odd-protective", "differ", "grown"];

#[test]
fn every_gpt_comes_back_as_it_was() {
    come_back("gpt", 4);
}

#[test]
fn every_mbr_and_every_disk_without_a_table_come_back_as_they_were() {
    come_back("mbr none", 4);
}

fn come_back(kinds: &str, more: usize) {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let names = recipe::layout_names();
    assert!(names.len() >= 39, "the layouts are found: {names:?}");
    let of_kind = |name: &&str| kinds.split(' ').any(|kind| name.starts_with(kind));
    let all: Vec<_> = names.iter().map(String::as_str).filter(of_kind).collect();
    let (always, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| ALWAYS.contains(name));
    let chosen = [always, need::sample(kinds, &rest, more)].concat();
    let made = recipe::layouts(&scratch, &chosen);
    for (name, image) in &made {
        let scratch = Scratch::new();
        let layout = Layout::fill(name, image, &scratch);
        layout.everything();
        println!("{name}: {} volumes", layout.volumes.len());
    }
    println!("{} layouts came back as they were", made.len());
}

struct Volume {
    key: String,
    start: u64,
    len: u64,
    filesystem: Option<&'static str>,
    used: Vec<(u64, u64)>,
}

struct Layout<'a> {
    name: &'a str,
    image: &'a str,
    sector: u32,
    size: u64,
    kind: String,
    volumes: Vec<Volume>,
    scratch: &'a Scratch,
    imager: Imager,
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

impl<'a> Layout<'a> {
    /// Puts filesystems, junk and boot code onto an empty disk, and captures it.
    fn fill(name: &'a str, image: &'a str, scratch: &'a Scratch) -> Self {
        let imager = scratch.imager();
        let seen = imager.json(&["inspect", image]);
        let kind = seen["disks"][0]["table"]["kind"].as_str().expect("a kind").to_owned();
        let sector = if name.ends_with("-4k") { 4096 } else { 512 };
        assert_eq!(seen["disks"][0]["logical_sector_bytes"], sector, "{name}");
        let mut layout = Self {
            name,
            image,
            sector,
            size: Path::new(image).metadata().expect("the disk").len(),
            kind,
            volumes: Vec::new(),
            scratch,
            imager,
        };
        for (index, volume) in seen["volumes"].as_array().expect("volumes").iter().enumerate() {
            let (start, len) = (number(&volume["start_byte"]), number(&volume["size_bytes"]));
            let key = volume["key"].as_str().expect("a key").to_owned();
            let filesystem = if layout.kind == "none" { None } else { layout.plant(index, start, len) };
            layout.volumes.push(Volume { key, start, len, filesystem, used: Vec::new() });
        }
        layout.plant_boot_code();
        layout.learn_used();
        layout
    }

    /// A filesystem with something in it, or junk.
    fn plant(&self, index: usize, start: u64, len: u64) -> Option<&'static str> {
        let (part, tree) = (self.scratch.file("part", len), self.scratch.folder("tree"));
        for n in 0..20_u64 {
            let content = format!("file {n} of volume {index} of {}\n", self.name)
                .repeat(1 + 300 * usize::try_from(n).expect("small"));
            std::fs::write(tree.join(format!("file{n}")), content).expect("a file");
        }
        let tree = tree.display().to_string();
        let kind = match index {
            0 | 5 if len >= 4 * MIB => {
                tool("mkfs.fat", &["-S", &self.sector.to_string(), "-n", "BOOT", &part]);
                tool("mcopy", &["-s", "-Q", "-i", &part, &tree, "::"]);
                "fat"
            }
            0..8 if len >= 4 * MIB => {
                tool("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", "-d", &tree, &part]);
                "ext4"
            }
            _ => {
                junk::over(Path::new(self.image), start, len);
                return None;
            }
        };
        let to = format!("of={}", self.image);
        let seek = format!("seek={start}");
        let from = format!("if={part}");
        tool("dd", &[&from, &to, &seek, "bs=256K", "oflag=seek_bytes", "conv=notrunc,sparse", "status=none"]);
        Some(kind)
    }

    /// Code in sector 0, and a page in the gap before the first volume.
    fn plant_boot_code(&self) {
        if self.kind == "none" {
            return;
        }
        junk::over(Path::new(self.image), 0, 440);
        let first = self.volumes.iter().map(|volume| volume.start).min().unwrap_or(self.size / 2);
        if first >= 256 * 1024 {
            junk::over(Path::new(self.image), first - 4096, 4096);
        }
    }

    fn learn_used(&mut self) {
        let seen = self.imager.json(&["inspect", "--extents", self.image]);
        for (volume, seen) in self.volumes.iter_mut().zip(seen["volumes"].as_array().expect("volumes")) {
            let pair = |pair: &Value| (number(&pair[0]), number(&pair[1]));
            volume.used = seen["used_extents"].as_array().expect("extents").iter().map(pair).collect();
        }
    }

    fn everything(&self) {
        let before = judge::whole(self.image);
        // One volume that a restore in place has to leave alone.
        let data = self.volumes.last().filter(|_| self.volumes.len() > 1).map(|volume| volume.key.clone());
        let role = data.as_ref().map(|key| format!("{key}=data"));
        let mut arguments = vec!["capture", self.image, "--machine", "layout", "--data", "used"];
        arguments.extend(role.iter().flat_map(|role| ["--role", role.as_str()]));
        self.imager.ok(&arguments);
        assert_eq!(judge::whole(self.image), before, "{}: the source was only read", self.name);
        self.bare_metal(self.size);
        self.bare_metal(self.size + 37 * MIB + 512);
        self.in_place(data.as_deref());
        if self.kind != "none" {
            self.tables();
        }
    }

    fn bare_metal(&self, size: u64) {
        let what = format!("{} onto {} bytes more", self.name, size - self.size);
        let target = self.scratch.file("bare", size);
        self.imager.ok(&["restore", "layout", "--to", &target, "--bare-metal", "--yes"]);
        self.assert_volumes(&target, &what);
        self.assert_tables(&target, size, &what);
        if size == self.size && !self.has(&MENDED) {
            judge::assert_same_bytes((self.image, 0), (&target, 0), &self.outside(), &what);
        }
        assert_eq!(Path::new(&target).metadata().expect("it").len(), size, "{what}: the file's length");
    }

    fn in_place(&self, data: Option<&str>) {
        let target = self.scratch.copy(self.image, "in-place");
        for volume in &self.volumes {
            junk::over(Path::new(&target), volume.start, volume.len);
        }
        if self.kind != "none" {
            junk::over(Path::new(&target), 0, 440);
        }
        let left = self.volumes.iter().find(|volume| Some(volume.key.as_str()) == data);
        let digest = |volume: &Volume| judge::digest(&target, volume.start, volume.len);
        let before = left.map(digest);
        let report = self.imager.json(&["restore", "layout", "--to", &target, "--yes"]);
        assert_eq!(left.map(digest), before, "{}: the data volume is left alone", self.name);
        let untouched = report["untouched"].as_array().expect("a list");
        let named: Vec<_> = untouched.iter().map(|u| (u["key"].as_str(), u["unchanged"].as_bool())).collect();
        let expected: Vec<_> = left.iter().map(|volume| (Some(volume.key.as_str()), Some(true))).collect();
        assert_eq!(named, expected, "{}", self.name);
        for volume in self.volumes.iter().filter(|volume| Some(volume.key.as_str()) != data) {
            self.assert_volume(volume, &target, &format!("{} in place", self.name));
        }
        let outside: Vec<_> = self.outside();
        judge::assert_same_bytes((self.image, 0), (&target, 0), &outside, &format!("{} in place", self.name));
    }

    /// Everything outside volumes is lost, and the table alone comes back.
    fn tables(&self) {
        let target = self.scratch.copy(self.image, "tables");
        for (start, len) in self.outside() {
            let (start, len) = if start == 0 { (446, len - 446) } else { (start, len) };
            for piece in (0..len).step_by(1 << 20) {
                let part = usize::try_from((len - piece).min(MIB)).expect("small");
                junk::poke(Path::new(&target), start + piece, &vec![0; part]);
            }
        }
        let digests = |disk: &str| -> Vec<_> {
            self.volumes.iter().map(|volume| judge::digest(disk, volume.start, volume.len)).collect()
        };
        self.imager.fails(4, &["restore", "layout", "--to", &target, "--yes"]);
        self.imager.ok(&["restore", "layout", "--to", &target, "--tables", "--yes"]);
        assert_eq!(digests(&target), digests(self.image), "{}: only the table was written", self.name);
        self.assert_tables(&target, self.size, &format!("{}, its table alone", self.name));
        let report = self.imager.json(&["restore", "layout", "--to", &target, "--yes"]);
        assert_eq!(report["problems"], serde_json::json!([]), "{}", self.name);
    }

    fn has(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.name.contains(word))
    }

    /// The parts of the disk outside its volumes.
    fn outside(&self) -> Vec<(u64, u64)> {
        let mut inside: Vec<_> = self.volumes.iter().map(|v| (v.start, v.start + v.len)).collect();
        inside.sort_unstable();
        let mut outside = Vec::new();
        let mut at = 0;
        for (start, end) in inside.into_iter().chain([(self.size, self.size)]) {
            if start > at {
                outside.push((at, start - at));
            }
            at = at.max(end);
        }
        outside
    }

    fn assert_volumes(&self, target: &str, what: &str) {
        for volume in &self.volumes {
            self.assert_volume(volume, target, what);
        }
    }

    fn assert_volume(&self, volume: &Volume, target: &str, what: &str) {
        let what = format!("{what}, volume {}", volume.key);
        let (from, to) = ((self.image, volume.start), (target, volume.start));
        judge::assert_same_bytes(from, to, &volume.used, &what);
        let Some(kind) = volume.filesystem else { return };
        let parts = [self.scratch.name("part-from"), self.scratch.name("part-to")];
        for (disk, part) in [self.image, target].into_iter().zip(&parts) {
            judge::extract(disk, volume.start, volume.len, part);
        }
        let verdict = judge::fsck(&parts[1], kind);
        assert_eq!(verdict.0, Some(0), "{what}: {}", verdict.1);
        judge::assert_same_filesystem(&parts[0], &parts[1], kind, self.scratch, &what);
    }

    fn assert_tables(&self, target: &str, size: u64, what: &str) {
        if self.kind == "none" {
            return;
        }
        let dumps = (table::dump(self.image, self.sector), table::dump(target, self.sector));
        assert_eq!(dumps.0, dumps.1, "{what}: sfdisk's dump");
        assert!(dumps.0.is_some(), "{what}: sfdisk finds a table");
        if self.kind != "gpt" {
            return;
        }
        // At another size the backup moved, and what was mended is sound.
        if !self.has(&ODD) || (self.has(&["grown"]) && size != self.size) {
            let attached = LoopDisk::attach(target, self.sector);
            let Some(disk) = attached else { return };
            assert!(table::is_sound_gpt(&disk.path), "{what}: sgdisk's verdict");
        }
    }
}

/// What is wrong, with which layout, what makes it so, and what has to be said.
type Spoilt<'a> = (&'a str, &'a str, &'a dyn Fn(&str), &'a str);

#[test]
fn a_table_that_contradicts_itself_is_refused_with_the_reason() {
    if !need::programs(&["sfdisk", "fdisk", "sgdisk", "mkfs.fat", "mkfs.ext4"]) {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let sound = "gpt-usual-512";
    let (_, good) = &recipe::layouts(&scratch, &[sound])[0];
    imager.ok(&["capture", good, "--machine", "good"]);
    let poke = |at: u64, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        move |disk: &str| junk::poke(Path::new(disk), at, &bytes)
    };
    let size = 256 * MIB;
    let ways: [Spoilt; 5] = [
        (
            "both copies damaged",
            sound,
            &|disk| {
                poke(512, b"EFI FART")(disk);
                poke(size - 512, b"EFI FART")(disk);
            },
            "GPT",
        ),
        ("entries overlap", "mbr-usual-512", &poke(446 + 16 + 8, &2048_u32.to_le_bytes()), "overlap"),
        (
            "an entry beyond the end",
            "mbr-usual-512",
            &poke(446 + 48 + 12, &9_000_000_u32.to_le_bytes()),
            "on a disk of",
        ),
        (
            "a chain that bites its tail",
            "mbr-logicals-512",
            &poke((67584 + 32768) * 512 + 446 + 16 + 8, &0_u32.to_le_bytes()),
            "",
        ),
        (
            "a disk cut short",
            sound,
            &|disk| {
                let file = std::fs::File::options().write(true).open(disk).expect("a disk");
                file.set_len(100 * MIB).expect("it is cut");
            },
            "",
        ),
    ];
    for (what, layout, spoil, word) in ways {
        let (_, disk) = &recipe::layouts(&scratch, &[layout])[0];
        spoil(disk);
        let before = judge::whole(disk);
        for command in [&["inspect", disk][..], &["capture", disk, "--machine", "spoilt"]] {
            let error = imager.fails(1, command).to_string();
            assert!(error.contains(word) && error.contains("corrupt"), "{what}: {error}");
        }
        for more in ["--plan", "--tables"] {
            let ran = imager.run_json(&["restore", "good", "--to", disk, more]);
            assert!([3, 4].contains(&ran.code), "{what}: {ran:?}");
        }
        assert_eq!(judge::whole(disk), before, "{what}");
    }
    imager.fails(11, &["show", "spoilt"]);
}
