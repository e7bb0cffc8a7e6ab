//! What btrfs-progs and the kernel say of Btrfs, on one device and on several.

use super::{MOST_BYTES, compare_files, extent};
use crate::image::Image;
use crate::tools::{digest, output, run, text};
use imager_disk::ReadAt;
use imager_units::{ErrorKind, ExtentSet};
use imager_volume::btrfs::Files;
use std::path::{Path, PathBuf};

const SECTOR: u64 = 4096;
const STRIP: u64 = 65_536;

struct Chunk {
    logical: u64,
    len: u64,
    profile: String,
    /// Device and place.
    stripes: Vec<(u64, u64)>,
}

/// What the extent tree lists, sector by sector through the chunks onto each device, and what no tree lists.
pub(crate) fn used(devices: &[PathBuf]) -> Vec<ExtentSet> {
    let paths: Vec<_> = devices.iter().map(|path| text(path)).collect();
    if is_beyond_progs(&devices[0]) {
        let image = crate::Image::open(&devices[0]);
        return vec![imager_volume::used(&image).unwrap().extents];
    }
    let dump = |tree| run("btrfs", &[&["inspect-internal", "dump-tree", "-t", tree], &paths[..]].concat());
    let chunks = chunks(&dump("chunk"));
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        line.unwrap()
    };
    let mut devids = Vec::new();
    let mut sets = Vec::new();
    for device in devices {
        let sb = run("btrfs", &["inspect-internal", "dump-super", text(device)]);
        devids.push(number(&sb, "dev_item.devid"));
        let size = std::fs::metadata(device).unwrap().len();
        let mut set = ExtentSet::from(extent(0, 1 << 20));
        set.insert(extent(64 << 20, ((64 << 20) + 4096).min(size).max(64 << 20)));
        set.insert(extent(number(&sb, "dev_item.total_bytes"), size));
        sets.push(set);
    }
    let sb = run("btrfs", &["inspect-internal", "dump-super", paths[0]]);
    for (logical, len) in extents(&dump("extent"), number(&sb, "nodesize")) {
        let chunk = chunks.iter().find(|c| c.logical <= logical && logical < c.logical + c.len).unwrap();
        for at in (logical..logical + len).step_by(4096) {
            for (devid, place) in places(chunk, at - chunk.logical) {
                let device = devids.iter().position(|&id| id == devid).unwrap();
                sets[device].insert(extent(place, place + SECTOR));
            }
        }
    }
    sets
}

fn chunks(dump: &str) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut logical = 0;
    for line in dump.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |index: usize| words[index].trim_end_matches(')').parse::<u64>().unwrap();
        match words[..] {
            ["item", _, "key", "(FIRST_CHUNK_TREE", "CHUNK_ITEM", ..] => logical = number(5),
            ["length", _, "owner", _, "stripe_len", _, "type", kind] => {
                let profile = kind.rsplit('|').next().unwrap().to_lowercase();
                chunks.push(Chunk { logical, len: number(1), profile, stripes: Vec::new() });
            }
            ["stripe", _, "devid", _, "offset", _] => {
                chunks.last_mut().unwrap().stripes.push((number(3), number(5)));
            }
            _ => {}
        }
    }
    assert!(!chunks.is_empty());
    chunks
}

fn extents(dump: &str, nodesize: u64) -> Vec<(u64, u64)> {
    let items = dump.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["item", _, "key", at, kind, len, ..] = words[..] else { return None };
        let at: u64 = at.trim_start_matches('(').parse().ok()?;
        match kind {
            "EXTENT_ITEM" => Some((at, len.trim_end_matches(')').parse().unwrap())),
            "METADATA_ITEM" => Some((at, nodesize)),
            _ => None,
        }
    });
    let items: Vec<_> = items.collect();
    assert!(!items.is_empty());
    items
}

/// Every place of the sector at `at` of a chunk, parity and what it is over included.
fn places(chunk: &Chunk, at: u64) -> Vec<(u64, u64)> {
    let (strip, within) = (at / STRIP, at % STRIP);
    let number = chunk.stripes.len() as u64;
    let row = |data: u64| strip / data * STRIP + within;
    let at = |stripe: u64, at: u64| {
        let (devid, offset) = chunk.stripes[usize::try_from(stripe).unwrap()];
        (devid, offset + at)
    };
    let all = |place: u64| (0..number).map(|stripe| at(stripe, place)).collect();
    match chunk.profile.as_str() {
        "raid0" => vec![at(strip % number, row(number))],
        "raid10" => {
            let first = strip % (number / 2) * 2;
            vec![at(first, row(number / 2)), at(first + 1, row(number / 2))]
        }
        "raid5" => all(row(number - 1)),
        "raid6" => all(row(number - 2)),
        _ => all(strip * STRIP + within),
    }
}

/// Of one device: see [`copies`].
pub(crate) fn copy(source: &Path, target: &Path, dir: &Path) {
    copies(&[source.to_owned()], &[target.to_owned()], dir);
}

/// The checker finds nothing, data included; the kernel finds every copy of everything right; the files are the same, also
/// when they have to be put together without one of the devices.
pub(crate) fn copies(source: &[PathBuf], target: &[PathBuf], dir: &Path) {
    let name = source[0].display().to_string();
    // A log is replayed by every mount.
    let source: Vec<_> = if name.contains("in-use") {
        let image = Image::open(&source[0]);
        let files = Files::open(&[&image]).unwrap().expect("recognised");
        // What is in it lies in the top folder.
        let found = files.subvolumes();
        assert_eq!(found.err().map(|error| error.kind()), Some(ErrorKind::Corrupt), "{name}: beside its log");
        let to: Vec<_> = (0..source.len()).map(|number| dir.join(format!("replayed{number}"))).collect();
        source.iter().zip(&to).for_each(|(from, to)| assert!(std::fs::copy(from, to).is_ok()));
        to
    } else {
        source.to_owned()
    };
    let Some(of_source) = files(&source, &[], dir) else {
        assert_eq!(source.len(), 1, "{name}: only the kernel reads several devices");
        check(&target[0]);
        assert_eq!(restored(&source[0], &dir.join("from")), restored(&target[0], &dir.join("to")), "{name}");
        return;
    };
    assert_eq!(Some(&of_source), files(target, &["scrub"], dir).as_ref(), "{name}: the files differ");
    if ["raid1", "raid5", "raid6", "changed"].iter().any(|word| name.contains(word)) {
        for missing in 0..target.len() {
            let mut rest = target.to_vec();
            rest.remove(missing);
            let of_rest = files(&rest, &["degraded"], dir);
            assert_eq!(Some(&of_source), of_rest.as_ref(), "{name}: without device {missing}");
        }
    }
}

/// Every file is read by its path as the kernel has it, in the subvolume at the top and in the default one.
fn read_files(devices: &[PathBuf], mount: &Path) {
    let images: Vec<_> = devices.iter().map(|path| Image::open(path)).collect();
    let volumes: Vec<_> = images.iter().map(|image| image as &dyn ReadAt).collect();
    let files = Files::open(&volumes).unwrap().expect("recognised");
    let subvolumes = files.subvolumes().unwrap();
    let top = subvolumes.iter().rfind(|subvolume| subvolume.name.is_none()).unwrap();
    let count = compare_files(&|path| files.read(top, path, MOST_BYTES), mount, mount);
    for named in &subvolumes {
        let at = named.name.as_ref().map_or(mount.to_owned(), |name| mount.join(name));
        if named.name.is_some() {
            compare_files(&|path| files.read(named, path, MOST_BYTES), &at, &at);
        }
    }
    if mount.join("writable").exists() {
        let read = |subvolume| files.read(subvolume, "tree/sizes/262144", MOST_BYTES).unwrap();
        assert!(read(&subvolumes[0]) == std::fs::read(mount.join("writable/tree/sizes/262144")).unwrap());
    }
    println!("{}: {count} files read by their paths", devices[0].display());
    assert!(count > 0 || std::fs::read_dir(mount).unwrap().next().is_none());
}

/// btrfs-progs before 6.7 do not read simple quotas; of those only the kernel is a judge.
fn is_beyond_progs(device: &Path) -> bool {
    let tree = output("btrfs", &["inspect-internal", "dump-tree", "-t", "chunk", text(device)]);
    String::from_utf8_lossy(&tree.stderr).contains("unsupported option features (10000)")
}

fn check(device: &Path) {
    run("btrfs", &["check", "--check-data-csum", text(device)]);
}

/// The files as btrfs-progs read them, for what this kernel does not mount; with sectors of 64 KiB version 6.2 crashes.
fn restored(image: &Path, to: &Path) -> Option<String> {
    std::fs::create_dir(to).unwrap();
    let read = output("btrfs", &["restore", "-m", "-S", "-x", "-i", text(image), text(to)]);
    run("find", &[text(to), "-type", "d", "-exec", "touch", "-d", "@0", "{}", "+"]);
    read.status.success().then(|| digest(to))
}

/// The files as the kernel sees them; `None` where it cannot mount them.
fn files(devices: &[PathBuf], how: &[&str], dir: &Path) -> Option<String> {
    let loops: Vec<_> = devices.iter().map(|device| Loop::new(device)).collect::<Option<_>>()?;
    let first = loops[0].0.as_str();
    for device in &loops {
        output("btrfs", &["device", "scan", &device.0]);
    }
    let mount = dir.join("mount");
    std::fs::create_dir_all(&mount).unwrap();
    let options = if how.contains(&"degraded") { "ro,degraded,subvolid=5" } else { "ro,subvolid=5" };
    if !output("mount", &["-t", "btrfs", "-o", options, first, text(&mount)]).status.success() {
        return None;
    }
    let files = std::panic::catch_unwind(|| {
        if !how.contains(&"degraded") {
            read_files(devices, &mount);
        }
        digest(&mount)
    });
    let scrub =
        how.contains(&"scrub").then(|| output("btrfs", &["scrub", "start", "-B", "-r", "-R", text(&mount)]));
    run("umount", &[text(&mount)]);
    if let Some(scrub) = scrub {
        let said = String::from_utf8_lossy(&scrub.stdout).into_owned();
        assert!(scrub.status.success(), "{}: {said}", devices[0].display());
        let errors = said.lines().filter(|line| line.contains("errors") && !line.trim().ends_with(": 0"));
        assert_eq!(errors.count(), 0, "{}: {said}", devices[0].display());
        assert!(said.contains("tree_bytes_scrubbed"), "{said}");
        if !is_beyond_progs(&devices[0]) {
            check(Path::new(first));
        }
    }
    Some(files.unwrap())
}

/// A loop device, let go when dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        let output = output("losetup", &["--find", "--show", text(file)]);
        output.status.success().then(|| Self(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        output("btrfs", &["device", "scan", "--forget", &self.0]);
        output("losetup", &["--detach", &self.0]);
    }
}
