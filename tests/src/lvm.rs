//! LVM's own tools on loop devices. No kernel has to know device-mapper: nothing is activated, and where logical volumes
//! lie is what `lvs` and `pvs` say.

use crate::device::LoopDisk;
use crate::scratch::Scratch;
use crate::tool::tool;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

/// A piece of a logical volume: the physical volume's node, where on it, how much.
pub type Place = (String, u64, u64);

/// Runs one of LVM's commands on these nodes alone; what it printed.
pub fn lvm(nodes: &[&str], command: &str, arguments: &[&str]) -> String {
    let accepted: Vec<_> = nodes.iter().map(|node| format!("\"a|^{node}$|\"")).collect();
    let config = format!(
        "activation {{ monitoring=0 }} devices {{ use_devicesfile=0 filter=[ {}, \"r|.*|\" ] }} \
         backup {{ backup=0 archive=0 }}",
        accepted.join(", ")
    );
    let words = [&[command, "--config", &config, "--driverloaded", "n"], arguments].concat();
    tool("lvm", &words)
}

/// Makes a logical volume without activating it.
pub fn create(nodes: &[&str], group: &str, name: &str, mib: u64, more: &[&str]) {
    let size = format!("{mib}M");
    let words = [&["-an", "-Zn", "-Wn", "-y", "-n", name, "-L", &size, group], more].concat();
    lvm(nodes, "lvcreate", &words);
}

/// Where every logical volume lies, by LVM's own account.
pub fn places(nodes: &[&str]) -> BTreeMap<String, Vec<Place>> {
    let rows = |command: &str, fields: &str| -> Vec<Vec<String>> {
        let words = ["--noheadings", "--separator", ",", "--units", "b", "--nosuffix", "-o", fields];
        let said = lvm(nodes, command, &words);
        said.lines().map(|line| line.trim().split(',').map(str::to_owned).collect()).collect()
    };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let starts: BTreeMap<_, _> =
        rows("pvs", "pv_name,pe_start").into_iter().map(|row| (row[0].clone(), number(&row[1]))).collect();
    let mut places: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    let mut segments = rows("lvs", "lv_name,seg_start,stripesize,vg_extent_size,seg_pe_ranges");
    segments.sort_by_key(|row| (row[0].clone(), number(&row[1])));
    for row in segments {
        let extent = number(&row[3]);
        let areas: Vec<Place> = row[4]
            .split(' ')
            .map(|range| {
                let (node, range) = range.rsplit_once(':').expect("a node and a range");
                let (first, last) = range.split_once('-').expect("a range");
                let (first, last) = (number(first), number(last));
                (node.to_owned(), starts[node] + first * extent, (last + 1 - first) * extent)
            })
            .collect();
        let of = places.entry(row[0].clone()).or_default();
        let stripe = if areas.len() == 1 { areas[0].2 } else { number(&row[2]) };
        for at in (0..areas[0].2).step_by(usize::try_from(stripe).expect("small")) {
            of.extend(areas.iter().map(|(node, start, _)| (node.clone(), start + at, stripe)));
        }
    }
    places
}

/// Writes `content` to the places of a logical volume.
pub fn write(places: &[Place], content: &[u8]) {
    let mut rest = content;
    for (node, start, len) in places {
        let (now, later) = rest.split_at(usize::try_from(*len).expect("small"));
        let device = OpenOptions::new().write(true).open(node).expect("a node");
        device.write_all_at(now, *start).expect("writing");
        device.sync_all().expect("on the disk");
        rest = later;
    }
    assert!(rest.is_empty(), "the content is as long as the volume");
}

/// Reads the places of a logical volume.
pub fn read(places: &[Place]) -> Vec<u8> {
    let mut content = Vec::new();
    for (node, start, len) in places {
        let mut piece = vec![0; usize::try_from(*len).expect("small")];
        std::fs::File::open(node).expect("a node").read_exact_at(&mut piece, *start).expect("reading");
        content.extend(piece);
    }
    content
}

/// The server of these tests: a disk with `/boot` and a physical volume, and a second disk that is one. What lies in
/// the group's volumes is kept beside.
pub struct Server {
    /// Where everything is.
    pub scratch: Scratch,
    /// The disks' files.
    pub disks: [String; 2],
    /// What was put into each logical volume.
    pub contents: BTreeMap<String, Vec<u8>>,
}

const MIB: u64 = 1 << 20;
const TABLE: &str =
    "label: gpt\nstart=2048, size=32768, type=linux, name=boot\nstart=34816, size=180224, type=lvm\n";

impl Server {
    /// The server; `None`, with the reason printed, where this machine cannot make it.
    pub fn new() -> Option<Self> {
        if !crate::need::root() || !crate::need::programs(&["lvm", "mke2fs", "mkswap"]) {
            return None;
        }
        let scratch = Scratch::new();
        let disks = [scratch.junk("one.img", 112 * MIB), scratch.junk("two.img", 80 * MIB)];
        for disk in &disks {
            crate::junk::poke(std::path::Path::new(disk), 0, &vec![0; 1 << 20]);
        }
        crate::table::write(&disks[0], TABLE);
        let mut server = Self { scratch, disks, contents: BTreeMap::new() };
        server.with_nodes(Server::fill)?;
        Some(server)
    }

    /// With the disks attached: the physical volumes' nodes.
    pub fn with_nodes<T>(&mut self, work: impl FnOnce(&mut Self, &[&str]) -> T) -> Option<T> {
        let one = LoopDisk::attach(&self.disks[0], 512)?;
        let two = LoopDisk::attach(&self.disks[1], 512)?;
        let first = one.partition(2);
        Some(work(self, &[&first, &two.path]))
    }

    fn fill(&mut self, nodes: &[&str]) {
        lvm(nodes, "pvcreate", &["-ff", "-y", nodes[0], nodes[1]]);
        lvm(nodes, "vgcreate", &["vg-0", nodes[0], nodes[1]]);
        create(nodes, "vg-0", "root", 20, &[nodes[0]]);
        create(nodes, "vg-0", "data", 24, &["-i2", "-I64k"]);
        create(nodes, "vg-0", "swap", 8, &[nodes[0]]);
        create(nodes, "vg-0", "home", 24, &[nodes[1]]);
        // So that it lies in pieces, on both.
        lvm(nodes, "lvextend", &["-L", "32M", "vg-0/root", nodes[0]]);
        lvm(nodes, "lvextend", &["-L", "44M", "vg-0/root", nodes[1]]);
        let boot = nodes[0].trim_end_matches('2').to_owned() + "1";
        tool("mke2fs", &["-q", "-F", "-t", "ext4", "-U", "aaaaaaaa-bbbb-cccc-dddd-000000000001", &boot]);
        for (name, places) in places(nodes) {
            let len = places.iter().map(|place| place.2).sum();
            let content = self.content(&name, len);
            write(&places, &content);
            self.contents.insert(name, content);
        }
    }

    fn content(&self, name: &str, len: u64) -> Vec<u8> {
        let (file, tree) = (self.scratch.file("content", len), self.scratch.folder(&format!("tree-{name}")));
        std::fs::create_dir(tree.join("etc")).expect("a folder");
        if name == "root" {
            let fstab = "UUID=aaaaaaaa-bbbb-cccc-dddd-000000000001 /boot ext4 defaults 0 2\n\
                         /dev/mapper/vg--0-root / ext4 defaults 0 1\n/dev/vg-0/data /srv ext4 defaults 0 2\n\
                         /dev/mapper/vg--0-home /home ext4 defaults 0 2\n/dev/vg-0/swap none swap sw 0 0\n";
            std::fs::write(tree.join("etc/fstab"), fstab).expect("a file");
        }
        for n in 0..40_usize {
            let text = format!("file {n} of {name}\n").repeat(1 + 150 * n);
            std::fs::write(tree.join(format!("file{n}")), text).expect("a file");
        }
        match name {
            "swap" => tool("mkswap", &["-q", &file]),
            _ => tool("mke2fs", &["-q", "-F", "-t", "ext4", "-d", &tree.display().to_string(), &file]),
        };
        std::fs::read(&file).expect("the content")
    }
}
