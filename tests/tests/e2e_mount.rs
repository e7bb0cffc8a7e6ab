//! One file back: captures mounted as folders, judged by the kernel's own mounts of the same images and by ntfs-3g; how
//! a mount ends; damage; filesystems that are hostile.

use halfhour_tests::junk::Junk;
use halfhour_tests::tree::{Detail, Tree, attributes};
use halfhour_tests::{Imager, Scratch, device, need, recipe, try_tool};
use imager_disk::{MemoryDisk, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, SectorSize};
use imager_volume::files::{self, Files, Kind, Node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Images that are always looked at: the ways in which files lie on a volume.
const EXT: [&str; 6] = ["ext2-1k", "ext3-1k", "ext4-4k", "ext4-inline-data", "ext4-bigalloc", "ext4-meta-bg"];
const NTFS: [&str; 4] = ["ntfs-4k", "ntfs-compressed", "ntfs-streams", "ntfs-fragmented-list"];

/// A capture mounted by the program, until dropped.
struct Mounted {
    child: Child,
    at: PathBuf,
    log: PathBuf,
}

impl Mounted {
    fn new(imager: &Imager, scratch: &Scratch, capture: &str, more: &[&str]) -> Self {
        let (at, log) = (scratch.path("one-file-back"), scratch.path("mount.log"));
        let arguments = [&["mount", capture, at.to_str().expect("a path in UTF-8")], more].concat();
        let output = fs::File::create(&log).expect("a log");
        let both = output.try_clone().expect("a log");
        let child = imager.command(&arguments).stdout(output).stderr(both).stdin(Stdio::null()).spawn();
        let mut mounted = Self { child: child.expect("it starts"), at, log };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !mounted.said().contains("Mounted at") {
            let ended = mounted.child.try_wait().expect("it can be asked");
            assert!(ended.is_none() && Instant::now() < deadline, "it does not mount: {}", mounted.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        mounted
    }

    /// Everything it printed so far.
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    /// Waits for its end, and says what its exit status was.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                assert!(!self.said().contains("panicked at"), "{}", self.said());
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end: {}", self.said());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
            std::thread::sleep(Duration::from_millis(500));
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
        let _free = try_tool("umount", &["-l", &self.at.display().to_string()]);
        let _gone = fs::remove_dir(&self.at);
    }
}

#[test]
fn every_file_is_the_same_as_on_the_volume() {
    if !need::root() || !need::programs(&["ntfs-3g", "getfattr"]) {
        return;
    }
    let scratch = Scratch::new();
    let names = recipe::corpus_names();
    let more = |family: &str| -> Vec<&str> {
        let of_family = names.iter().map(String::as_str).filter(|name| name.starts_with(family));
        // What cannot be believed is not compared, and of what is never mounted there is nothing to compare with.
        of_family
            .filter(|name| !["corrupt", "error", "dirty"].iter().any(|word| name.contains(word)))
            .collect()
    };
    let all: Vec<&str> =
        if need::full() { [more("ext"), more("ntfs")].concat() } else { [&EXT[..], &NTFS].concat() };
    let imager = scratch.imager();
    let mut compared = (0, 0);
    for (name, image) in recipe::corpus(&scratch, &all) {
        imager.ok(&["capture", &image, "--machine", &name]);
        let is_ntfs = name.starts_with("ntfs");
        let theirs_at = scratch.folder("theirs");
        let there = theirs_at.display().to_string();
        let mounting = if is_ntfs {
            try_tool("ntfs-3g", &["-o", "ro,norecover,noatime,streams_interface=xattr", &image, &there])
        } else {
            try_tool("mount", &["-o", "ro,noatime,loop", &image, &there])
        };
        if let Err(why) = mounting {
            println!("{name}: the judge does not mount it: {why}");
            continue;
        }
        let unmount = Unmount(there);
        let (ours, theirs) = {
            let mounted = Mounted::new(&imager, &scratch, &name, &[]);
            let mut folder =
                fs::read_dir(&mounted.at).expect("the mount").map(|entry| entry.expect("an entry").path());
            let folder = folder.find(|path| path.is_dir());
            let folder = folder.unwrap_or_else(|| panic!("{name}: no folder of files: {}", mounted.said()));
            let detail = if is_ntfs { Detail::Files } else { Detail::Mounted };
            let ours = Tree::read(&folder, detail);
            let theirs = Tree::read(&theirs_at, detail);
            assert!(attributes(&folder) == attributes(&theirs_at), "{name}: extended attributes differ");
            (ours, theirs)
        };
        theirs.assert_same(&ours, &name);
        drop(unmount);
        compared = (compared.0 + 1, compared.1 + ours.len());
    }
    println!("{} filesystems, {} files and folders are the same", compared.0, compared.1);
    assert!(compared.0 * 10 >= all.len() * 8, "most can be compared");
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        for _ in 0..40 {
            if try_tool("umount", &[&self.0]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn the_files_of_the_volumes_are_their_bytes_and_others_filesystems_mount_from_them() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    for (name, image) in recipe::corpus(&scratch, &["xfs-4k"]) {
        imager.ok(&["capture", &image, "--machine", &name]);
        let raw = scratch.name("exported");
        imager.ok(&["export", &name, &raw, "--format", "raw"]);
        let mounted = Mounted::new(&imager, &scratch, &name, &[]);
        let (exported, disk) =
            (fs::read(&raw).expect("exported"), fs::read(mounted.file("disk1.raw")).expect("read"));
        assert!(exported == disk, "the disk's file is what export writes");
        // As the note says.
        let said = mounted.said();
        let way =
            said.lines().find_map(|line| line.split_once("mount -o ")).expect("a way to reach its files").1;
        let (options, rest) = way.split_once(' ').expect("options");
        let file = rest.split(' ').next().expect("a file");
        let there = scratch.path("xfs");
        let as_said = device::mount(file, &there, options);
        let through = Tree::read(&there, Detail::Mounted);
        drop(as_said);
        let itself = device::mount(&image, &there, "ro,norecovery,nouuid,noatime,loop");
        Tree::read(&there, Detail::Mounted).assert_same(&through, &name);
        drop(itself);
        let sparse = scratch.name("sparse");
        halfhour_tests::tool("cp", &["--sparse=auto", file, &sparse]);
        let (copied, whole) = (fs::metadata(&sparse).expect("a copy"), fs::metadata(file).expect("a volume"));
        assert_eq!(copied.len(), whole.len());
    }
}

#[test]
fn it_ends_as_it_is_asked_to_and_leaves_the_folder() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    for (name, image) in recipe::corpus(&scratch, &["ext4-4k"]) {
        imager.ok(&["capture", &image, "--machine", &name]);
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let mut mounted = Mounted::new(&imager, &scratch, &name, &[]);
            mounted.signal(signal);
            assert_eq!(mounted.end(), Some(0), "{}", mounted.said());
            assert!(!mounted.at.exists(), "the folder that it made is gone");
        }
        let mut mounted = Mounted::new(&imager, &scratch, &name, &["--allow-other"]);
        let at = mounted.at.display().to_string();
        halfhour_tests::tool("umount", &[&at]);
        assert_eq!(mounted.end(), Some(0));
        // Whoever has something open keeps it until he has done.
        let mut mounted = Mounted::new(&imager, &scratch, &name, &[]);
        let open = fs::File::open(mounted.file("disk1.raw")).expect("a disk");
        mounted.signal(Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while mounted.at.join("NOTES.txt").exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!mounted.at.join("NOTES.txt").exists() && mounted.child.try_wait().expect("asked").is_none());
        open.read_exact_at(&mut [0; 4096], 5 << 20).expect("it is still served");
        drop(open);
        assert_eq!(mounted.end(), Some(0));
        // Killed: the next one says what to do.
        let mut mounted = Mounted::new(&imager, &scratch, &name, &[]);
        mounted.signal(Signal::SIGKILL);
        mounted.child.wait().expect("it is gone");
        let refused = imager.fails(1, &["mount", &name, &at]);
        let message = refused["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(&format!("umount {at}")), "{refused}");
        halfhour_tests::tool("umount", &[&at]);
        fs::write(Path::new(&at).join("mine"), "x").expect("a file");
        imager.fails(1, &["mount", &name, &at]);
        fs::remove_file(Path::new(&at).join("mine")).expect("a file");
    }
}

#[test]
fn damage_is_an_error_where_it_is_and_nowhere_else() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let imager = scratch.imager();
    for (name, image) in recipe::corpus(&scratch, &["ext4-4k"]) {
        imager.ok(&["capture", &image, "--machine", &name]);
        let raw = scratch.name("exported");
        imager.ok(&["export", &name, &raw, "--format", "raw"]);
        let sound = fs::read(&raw).expect("exported");
        let packs = fs::read_dir(imager.repository.join("packs")).expect("packs");
        let files = packs.flat_map(|folder| fs::read_dir(folder.expect("a folder").path()).expect("packs"));
        let pack = files.map(|file| file.expect("a pack").path());
        let pack = pack.max_by_key(|path| fs::metadata(path).map_or(0, |found| found.len())).expect("a pack");
        let mut bytes = fs::read(&pack).expect("a pack");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::remove_file(&pack).and_then(|()| fs::write(&pack, bytes)).expect("damage");
        let mounted = Mounted::new(&imager, &scratch, &name, &[]);
        let file = fs::File::open(mounted.file("disk1.raw")).expect("a disk");
        let (mut failed, mut piece) = (0, vec![0; 4096]);
        for (at, expected) in (0_u64..).step_by(4096).zip(sound.chunks(4096)) {
            match file.read_exact_at(&mut piece, at) {
                Ok(()) => assert!(piece == expected, "other bytes at {at}"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "at {at}");
                    failed += 1;
                }
            }
        }
        // One frame of at most 256 KiB.
        assert!((1..=64).contains(&failed), "{failed} pages cannot be read");
        assert!(mounted.said().contains("WARN"), "the reason is told: {}", mounted.said());
    }
}

/// Looks at everything, as a person would who copies it all; says how many nodes there were.
fn walk(files: &dyn Files) -> usize {
    let (mut folders, mut seen) = (vec![files.root()], 0);
    let mut buf = vec![0; 300_000];
    while let Some(folder) = folders.pop() {
        let mut nodes: Vec<Node> = Vec::new();
        let _damaged = files.entries(folder, 0, &mut |entry| {
            nodes.push(entry.node);
            nodes.len() < 3000
        });
        for node in nodes {
            seen += 1;
            if seen > 4000 {
                return seen;
            }
            let Ok(found) = files.attributes(node) else { continue };
            if found.kind == Kind::Folder {
                folders.push(node);
            }
            let _damaged = files.read(node, ByteOffset::ZERO, &mut buf);
            let end = ByteOffset::new(found.size.get().saturating_sub(1000));
            let _damaged = files.read(node, end, &mut buf);
            let _damaged = files.target(node);
            for name in files.extended(node).unwrap_or_default() {
                let _damaged = files.extended_value(node, &name);
            }
        }
    }
    seen
}

/// Where a volume's own records are, as far as their magic or their place tells.
fn records(name: &str, bytes: &[u8]) -> Vec<usize> {
    let all = (0..bytes.len()).step_by(512);
    if name.starts_with("ntfs") {
        return all
            .filter(|&at| bytes[at..].starts_with(b"FILE") || bytes[at..].starts_with(b"INDX"))
            .collect();
    }
    all.filter(|&at| at < 3 << 20 && bytes[at..at + 512].iter().any(|&byte| byte != 0)).collect()
}

#[test]
fn hostile_filesystems_neither_crash_nor_hang_their_reader() {
    let scratch = Scratch::new();
    let rounds = if need::full() { 4000 } else { 250 };
    let mut junk = Junk::new(20_261_122);
    for (name, image) in recipe::corpus(&scratch, &["ext2-1k", "ext4-no-csum", "ntfs-4k", "ntfs-compressed"])
    {
        let bytes = fs::read(&image).expect("an image");
        let places = records(&name, &bytes);
        let disk = MemoryDisk::new(ByteLen::of(&bytes), SectorSize::B512);
        disk.write_all_at(ByteOffset::ZERO, &bytes).expect("memory");
        let sound = files::files(Box::new(&disk)).expect("readable").expect("files");
        assert!(walk(&*sound) > 30, "{name}");
        drop(sound);
        let mut opened = 0;
        for round in 0..rounds {
            let mut changed = Vec::new();
            for _ in 0..=junk.number() % 6 {
                let record = places[usize::try_from(junk.number()).unwrap_or(0) % places.len()];
                let within = usize::try_from(junk.number() % 510).unwrap_or(0);
                let odd = [0, 1, 0x7F, 0x80, 0xFF, junk.number().to_le_bytes()[0]];
                let value = odd[usize::try_from(junk.number() % 6).unwrap_or(0)];
                changed.push(record + within);
                let at = ByteOffset::new(u64::try_from(record + within).expect("small"));
                disk.write_all_at(at, &[value]).expect("memory");
            }
            let started = Instant::now();
            if let Ok(Some(hostile)) = files::files(Box::new(&disk)) {
                walk(&*hostile);
                opened += 1;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{name}, round {round}: it takes too long");
            for at in changed {
                let place = ByteOffset::new(u64::try_from(at).expect("small"));
                disk.write_all_at(place, &bytes[at..=at]).expect("memory");
            }
        }
        let mut again = vec![0; bytes.len()];
        disk.read_exact_at(ByteOffset::ZERO, &mut again).expect("memory");
        assert!(again == bytes && opened > rounds / 4, "{name}: {opened} of {rounds} could be opened");
    }
}
