//! Captures of filesystems under load against a copy of the disk that was made in the very freeze which they are of: every
//! allocated byte is the same.

use halfhour_tests::load::{self, Load};
use halfhour_tests::{Filesystem, Imager, MIB, Scratch, need, tool};
use imager::capture::hot::{self, Held, Limits, Live, Running};
use imager::capture::{DataMode, Options};
use imager::monitor::Silent;
use imager::repository::{Found, Repository};
use imager::survey::{self, Assigned, Volume};
use imager_disk::{Access, Device, System};
use imager_image::Compression;
use imager_image::manifest::{Consistency, Manifest};
use imager_journal::{Arena, Disk, Freeze, FreezeOptions, Freezer, FrozenFor, Journal, live_map};
use imager_units::{ByteLen, ExtentSet, Result};
use netshare_store::DirStore;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The size of a filesystem, in MiB: XFS is not made smaller.
const SIZE: u64 = 320;
const ARENA: ByteLen = ByteLen::new(96 << 20);
const PAGE: usize = 4096;
/// How often a capture is begun while more is written than this machine can copy.
const TRIES: usize = 5;
/// What is written where the machine has other things to do besides.
const FEW: [&str; 6] = ["files", "mapped", "delete", "wal", "packages", "checkouts"];

/// The machine of the product, but for this: before it lets go, it copies the file behind the disk.
struct Copying {
    freezer: Freezer,
    from: String,
    to: String,
    freezes: usize,
}

impl Copying {
    fn new(filesystem: &Filesystem, to: &str, scratch: &Scratch) -> Self {
        let device = Device::open(Path::new(&filesystem.disk.path), Access::Read, None).expect("it opens");
        let guard = halfhour_tests::binary::built("halfhour-freezer");
        let options = FreezeOptions {
            // A whole copy takes longer than what a capture has left to do.
            budget: Duration::from_secs(60),
            limit: Duration::from_secs(60),
            guard: vec![guard.into(), OsString::from("freeze-guard")],
            records: scratch.path("records"),
        };
        let freezer = Freezer::open(System::new(), &[device.number().expect("a device")], options);
        let freezer = freezer.expect("it opens");
        Self { freezer, from: filesystem.disk.file.clone(), to: to.to_owned(), freezes: 0 }
    }
}

impl Freeze for Copying {
    fn sync(&mut self) -> Result<()> {
        self.freezer.sync()
    }

    fn frozen(&mut self, work: &mut dyn FnMut(Instant)) -> Result<FrozenFor> {
        let Self { freezer, from, to, freezes } = self;
        *freezes += 1;
        freezer.frozen(&mut |until| {
            work(until);
            // The first is not yet the instant; of the others the last is.
            if *freezes > 1 {
                tool("cp", &["--sparse=always", from, to]);
            }
        })
    }
}

impl Running for Copying {
    fn held(&self, _volume: &Volume) -> Result<Held> {
        Ok(Held::Frozen)
    }

    fn used(&self, volume: &Volume) -> Option<ExtentSet> {
        live_map(self.freezer.filesystems().first()?, volume.size()).ok()?
    }

    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn resume(&mut self, _succeeded: bool) -> Vec<String> {
        Vec::new()
    }
}

/// A capture of the disk as machine `hot`, and a copy of the instant that it is of.
fn captured(filesystem: &Filesystem, repository: &Repository, copy: &str, scratch: &Scratch) -> Manifest {
    for _ in 1..TRIES {
        match try_capture(filesystem, repository, copy, scratch) {
            Err(error) if error.to_string().contains("writes faster") => println!("not captured: {error}"),
            done => return done.expect("a capture"),
        }
    }
    try_capture(filesystem, repository, copy, scratch).expect("a capture")
}

fn try_capture(
    filesystem: &Filesystem,
    repository: &Repository,
    copy: &str,
    scratch: &Scratch,
) -> Result<Manifest> {
    let node = Path::new(&filesystem.disk.path);
    let source = survey::open_running(node, None).expect("a disk");
    let survey = survey::survey(vec![(1, source)], &Assigned::new()).expect("a survey");
    let options = Options {
        machine: "hot".to_owned(),
        kind: None,
        data: DataMode::Used,
        keep: Vec::new(),
        compression: Compression::Fast,
        consistency: Consistency::Frozen,
        hardware_uuid: None,
        rebind: false,
        schedule: None,
    };
    let mut journal = Journal::open(&[Disk::at_node(node).expect("a disk")]).expect("its journal");
    let (mut machine, mut arena) =
        (Copying::new(filesystem, copy, scratch), Arena::new(ARENA).expect("memory"));
    let live = Live {
        log: &mut journal,
        disks: vec![1],
        machine: &mut machine,
        arena: &mut arena,
        // The copies count as frozen.
        limits: Limits { frozen: Duration::from_secs(600), ..Limits::default() },
        assigned: &Assigned::new(),
    };
    hot::run(repository, &survey, &options, live, &Silent::default())
}

/// What a filesystem has allocated, by its own tools.
fn allocated(image: &str, kind: &str) -> Vec<(u64, u64)> {
    let ask = match kind {
        "xfs" => "used_by_xfs",
        "btrfs" => "used_by_btrfs",
        _ => "used_extents",
    };
    let bench = halfhour_tests::binary::repository().join("tests/bench");
    let program = format!(
        "import sys, json; sys.path.insert(0, '{}'); import used; print(json.dumps(used.{ask}('{image}')))",
        bench.display()
    );
    let said: Vec<[u64; 2]> = serde_json::from_str(&tool("python3", &["-c", &program])).expect("extents");
    said.into_iter().map(|[start, len]| (start, len)).collect()
}

/// What of some extents is not as it is in the copy: how many bytes of pages of which the image has something, and of
/// which it has zeros.
fn differing(copy: &str, image: &str, extents: &[(u64, u64)]) -> (u64, u64) {
    let (copy, image) = (File::open(copy).expect("a copy"), File::open(image).expect("an image"));
    let (mut a, mut b, mut wrong, mut zero) = ([0; PAGE], [0; PAGE], 0, 0);
    for &(start, len) in extents {
        for at in (start..start + len).step_by(PAGE) {
            let end = usize::try_from(start + len - at).map_or(PAGE, |rest| rest.min(PAGE));
            copy.read_exact_at(&mut a[..end], at).expect("the copy reads");
            image.read_exact_at(&mut b[..end], at).expect("the image reads");
            if a[..end] != b[..end] {
                let counter = if b[..end].iter().all(|byte| *byte == 0) { &mut zero } else { &mut wrong };
                *counter += end as u64;
            }
        }
    }
    (wrong, zero)
}

fn total(extents: &[(u64, u64)]) -> u64 {
    extents.iter().map(|(_, len)| len).sum()
}

fn flip(image: &str, at: u64) {
    let file = File::options().read(true).write(true).open(image).expect("an image");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it reads");
    file.write_all_at(&[!byte[0]], at).expect("it writes");
}

/// Some captures of a filesystem under load.
fn compare(kind: &str, captures: usize) {
    let scratch = Scratch::new();
    let Some(mut filesystem) = Filesystem::make(&scratch, "a", kind, SIZE) else { return };
    let hot = Imager::new(scratch.path("state"), scratch.path("repo"));
    let cold = Imager::new(scratch.path("state"), scratch.path("repo-cold"));
    hot.ok(&["init"]);
    cold.ok(&["init"]);
    let disk = Disk::at_node(Path::new(&filesystem.disk.path)).expect("a disk");
    Journal::start(&disk).expect("a journal");
    let load =
        Load::start(&filesystem.at, &scratch.folder("log"), if need::full() { &load::ALL } else { &FEW });
    load.wait_for(12);
    let store = DirStore::open(&scratch.path("repo")).expect("a share");
    let Ok(Found::Open(repository)) = Repository::find(Arc::new(store)) else { panic!("a plain repository") };
    let mut taken = Vec::new();
    for number in 0..captures {
        let copy = scratch.file(&format!("copy-{number}.img"), SIZE * MIB);
        taken.push((captured(&filesystem, &repository, &copy, &scratch), copy));
    }
    load.stop();
    Journal::stop(filesystem.disk.name()).expect("it ends");
    filesystem.unmount();
    for (number, (manifest, copy)) in taken.iter().enumerate() {
        let truth = manifest.volumes[0].truth;
        let never_written = manifest.running.as_ref().map_or(0, |running| running.never_written_bytes);
        let machine = format!("cold-{number}");
        cold.ok(&["capture", copy, "--machine", &machine]);
        let images = ["hot.img", "cold.img"].map(|name| scratch.name(name));
        for (imager, capture, image) in [
            (&hot, format!("id:{}", manifest.header.id), &images[0]),
            (&cold, format!("{machine}@latest"), &images[1]),
        ] {
            let _none = std::fs::remove_file(image);
            imager.ok(&["export", &capture, image, "--format", "raw"]);
        }
        let theirs = allocated(copy, kind);
        let ours: Vec<_> = cold.json(&["inspect", "--extents", copy])["volumes"][0]["used_extents"]
            .as_array()
            .expect("extents")
            .iter()
            .map(|extent| (extent[0].as_u64().unwrap_or(0), extent[1].as_u64().unwrap_or(0)))
            .collect();
        let by_tools = differing(copy, &images[0], &theirs);
        let by_cold = differing(&images[1], &images[0], &ours);
        println!(
            "{kind}: {truth:?}; of {} bytes that its own tools call allocated {by_tools:?} differ from the copy, of {} that a \
             cold capture holds {by_cold:?}; {never_written} never written",
            total(&theirs),
            total(&ours),
        );
        for (wrong, zero) in [by_tools, by_cold] {
            assert_eq!(wrong, 0, "{kind}: {} differs from {copy}", images[0]);
            assert!(
                zero <= never_written,
                "{kind}: {zero} bytes are zeros, {never_written} were never written"
            );
        }
        // And one altered byte anywhere would be seen.
        let (start, len) = theirs[theirs.len() / 2];
        flip(&images[0], start + len / 2);
        let (wrong, _) = differing(copy, &images[0], &theirs);
        assert!(wrong > 0, "a byte that differs is not seen");
    }
    hot.ok(&["verify", "--all", "--read-data"]);
}

#[test]
fn a_capture_under_load_is_byte_by_byte_the_frozen_disk() {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        need::skip("this kernel does not describe its types");
        return;
    }
    if !need::programs(&load::PROGRAMS) || !need::programs(&["dumpe2fs", "xfs_db", "btrfs", "cp"]) {
        return;
    }
    let captures = if need::full() { 10 } else { 2 };
    for kind in need::sample("filesystems", &["ext4", "xfs", "btrfs"], 1) {
        compare(kind, captures);
    }
}
