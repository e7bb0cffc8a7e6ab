//! Exported images, judged by QEMU, e2fsck, sfdisk and the original disk.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a small disk, and what fails has failed"
)]

mod captured;

use captured::{Fixture, MAKERS, MIB, PARTITIONS, command, have, run, text};
use imager::export::{self, Format, Subject};
use imager::monitor::Silent;
use imager::repository::{Found, Repository};
use imager::view::{CaptureView, Status};
use imager_disk::{ReadAt, Window};
use imager_image::manifest::Manifest;
use imager_image::names;
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, ExtentSet};
use netshare_store::{DirStore, FaultyStore, StoreFault};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn export(fixture: &Fixture, manifest: &Manifest, subject: &Subject, name: &str, format: Format) -> PathBuf {
    let file = fixture.path(name);
    let report =
        export::run(&fixture.repository, manifest, subject, &file, format, &Silent::default()).unwrap();
    assert!(report.data_bytes <= report.size_bytes && report.problems.is_empty());
    file
}

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
}

/// What counts on the disk, by the original alone: everything outside partitions, and in them what their
/// file systems use.
fn counting(fixture: &Fixture) -> ExtentSet {
    let disk: Arc<dyn ReadAt> = imager::survey::open(&fixture.image, None).unwrap().device;
    let mut found = ExtentSet::from(disk.geometry().extent());
    for (start, len) in PARTITIONS {
        let part = extent(start * MIB, len * MIB);
        let window = Window::part(Arc::clone(&disk), part).unwrap();
        let used = imager_volume::used(&window).unwrap().extents;
        let used: ExtentSet =
            used.iter().map(|e| extent(e.start().get() + start * MIB, e.len().get())).collect();
        found = found.difference(&ExtentSet::from(part)).union(&used);
    }
    found
}

/// The part of an image that is partition `number`, from 0, as a file of its own.
fn cut(fixture: &Fixture, image: &Path, number: usize) -> PathBuf {
    let (start, len) = PARTITIONS[number];
    let bytes = fs::read(image).unwrap();
    let file = fixture.path(&format!("cut{number}"));
    fs::write(&file, &bytes[(start * MIB) as usize..((start + len) * MIB) as usize]).unwrap();
    file
}

/// The files of an ext4 volume.
fn files(fixture: &Fixture, volume: &Path, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fixture.path(name);
    fs::create_dir(&folder).unwrap();
    run("debugfs", &["-R", &format!("rdump / {}", text(&folder)), text(volume)]);
    let mut found: Vec<_> = walk(&folder)
        .into_iter()
        .map(|path| (path.strip_prefix(&folder).unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_raw_image_is_the_disk_as_far_as_it_counts_and_zero_elsewhere() {
    if !have(&MAKERS) || !have(&["e2fsck", "fsck.fat"]) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let raw = export(&fixture, &manifest, &Subject::Disk(1), "raw", Format::Raw);
    let (ours, theirs) = (fs::read(&raw).unwrap(), fs::read(&fixture.image).unwrap());
    assert_eq!(ours.len(), theirs.len());
    let counting = counting(&fixture);
    let slice = |bytes: &'_ [u8], e: Extent| bytes[e.start().get() as usize..e.end().get() as usize].to_vec();
    for e in counting.iter() {
        assert!(slice(&ours, e) == slice(&theirs, e), "{e} differs");
    }
    let mut junk = 0;
    for e in counting.complement(extent(0, theirs.len() as u64)).iter() {
        assert!(slice(&ours, e).iter().all(|byte| *byte == 0), "{e} is not zero");
        junk += slice(&theirs, e).iter().filter(|byte| **byte != 0).count();
    }
    assert!(junk > 100_000, "the original has something where nothing counts");
    // It is sparse, and only its owner may read it.
    let metadata = fs::metadata(&raw).unwrap();
    assert!(metadata.blocks() * 512 < metadata.len() / 2, "{} blocks", metadata.blocks());
    assert_eq!(metadata.mode() & 0o777, 0o600);

    let dump = |image: &Path| run("sfdisk", &["--dump", text(image)]).replace(text(image), "disk");
    assert_eq!(dump(&raw), dump(&fixture.image));
    for number in [1, 3] {
        let (ours, theirs) = (cut(&fixture, &raw, number), fixture.path("theirs"));
        run("e2fsck", &["-fn", text(&ours)]);
        fs::rename(cut(&fixture, &fixture.image, number), &theirs).unwrap();
        let ours = cut(&fixture, &raw, number);
        let (ours, theirs) =
            (files(&fixture, &ours, &format!("a{number}")), files(&fixture, &theirs, &format!("b{number}")));
        assert!(
            ours == theirs && ours.len() > 70,
            "files of volume {number}: {} {}",
            ours.len(),
            theirs.len()
        );
    }
    run("fsck.fat", &["-n", text(&cut(&fixture, &raw, 0))]);
    run("mcopy", &["-n", "-i", text(&cut(&fixture, &raw, 0)), "::/grubx64.efi", text(&fixture.path("grub"))]);
    assert!(fs::read(fixture.path("grub")).unwrap() == captured::noise(1, 3_000_000));
    // A volume is its part of the disk.
    for (number, key) in ["1", "2", "3", "4"].iter().enumerate() {
        let subject = Subject::Volume((*key).to_owned());
        let volume = export(&fixture, &manifest, &subject, &format!("volume{key}"), Format::Raw);
        assert!(fs::read(volume).unwrap() == fs::read(cut(&fixture, &raw, number)).unwrap(), "volume {key}");
    }
}

#[test]
fn a_qcow2_image_is_sound_and_holds_the_same() {
    if !have(&MAKERS) || !have(&["qemu-img"]) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    for (n, subject) in [Subject::Disk(1), Subject::Volume("2".to_owned()), Subject::Volume("3".to_owned())]
        .iter()
        .enumerate()
    {
        let raw = export(&fixture, &manifest, subject, &format!("raw{n}"), Format::Raw);
        let qcow2 = export(&fixture, &manifest, subject, &format!("qcow2{n}"), Format::Qcow2);
        let check = run("qemu-img", &["check", "-f", "qcow2", text(&qcow2)]);
        assert!(check.contains("No errors were found"), "{check}");
        let compared = run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&raw), text(&qcow2)]);
        assert!(compared.contains("identical"), "{compared}");
        let info: serde_json::Value =
            serde_json::from_str(&run("qemu-img", &["info", "--output=json", text(&qcow2)])).unwrap();
        assert_eq!(info["virtual-size"], fs::metadata(&raw).unwrap().len());
        assert_eq!(info["format-specific"]["data"]["compat"], "1.1");
        // It can be written to: every table is where a writer expects it.
        run("qemu-img", &["resize", "-q", text(&qcow2), "+1G"]);
        run("qemu-img", &["check", "-q", "-f", "qcow2", text(&qcow2)]);
        assert!(fs::metadata(&qcow2).unwrap().len() < fs::metadata(&raw).unwrap().len());
    }
}

#[test]
fn a_disk_of_many_tebibytes_is_exported_in_no_time() {
    if !have(&["qemu-img", "sfdisk"]) {
        return;
    }
    let fixture = Fixture::with_disk(|_, image| {
        fs::File::create(image).unwrap().set_len(9 << 40).unwrap();
        captured::partition(image, "label: gpt\nstart=1MiB, size=8TiB, type=L\nsize=10GiB, type=L\n");
    });
    // Something in the middle of either, and at both ends of an L2 table's share.
    for at in
        [1 << 20, (1 << 40) + 12_345, (512 << 20) * 77 - 3, (8 << 40) + (300 << 20), (9 << 40) - 100_000]
    {
        fixture.poke(at, b"something else than zeros");
    }
    let manifest = fixture.capture();
    let raw = export(&fixture, &manifest, &Subject::Disk(1), "raw", Format::Raw);
    let qcow2 = export(&fixture, &manifest, &Subject::Disk(1), "qcow2", Format::Qcow2);
    run("qemu-img", &["check", "-f", "qcow2", text(&qcow2)]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&raw), text(&qcow2)]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&raw), text(&fixture.image)]);
    assert!(
        fs::metadata(&raw).unwrap().blocks() < 100_000 && fs::metadata(&qcow2).unwrap().len() < 100 * MIB
    );
}

#[test]
fn nothing_is_replaced_and_nothing_is_left_of_a_failure() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let target = fixture.path("target");
    let attempt = |format, monitor: &Silent| {
        let subject = Subject::Disk(1);
        export::run(&fixture.repository, &manifest, &subject, &target, format, monitor).unwrap_err().kind()
    };
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(fixture.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    fs::write(&target, "precious").unwrap();
    let before = names();
    assert_eq!(attempt(Format::Raw, &Silent::default()), ErrorKind::Exists);
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(names(), before);
    fs::remove_file(&target).unwrap();

    let before = names();
    let stopped = Silent::default();
    stopped.stop();
    assert_eq!(attempt(Format::Raw, &stopped), ErrorKind::Cancelled);
    for (subject, what) in [(Subject::Disk(7), "disk"), (Subject::Volume("9".to_owned()), "volume")] {
        let result =
            export::run(&fixture.repository, &manifest, &subject, &target, Format::Raw, &Silent::default());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound, "{what}");
    }
    // Damage: the image would not be the disk, so there is none.
    let pack = walk(&fixture.object(names::PACKS))
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    for format in [Format::Raw, Format::Qcow2] {
        assert_eq!(attempt(format, &Silent::default()), ErrorKind::Corrupt);
    }
    assert_eq!(names(), before);
}

#[test]
fn a_share_that_fails_at_any_call_leaves_no_file() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let target = fixture.path("target");
    let attempt = |faults: &[StoreFault]| {
        let store =
            Arc::new(FaultyStore::new(DirStore::open(&fixture.path("repo")).unwrap(), faults.to_vec()));
        let Found::Open(repository) = Repository::find(store.clone()).unwrap() else { unreachable!() };
        let subject = Subject::Volume("2".to_owned());
        let done = export::run(&repository, &manifest, &subject, &target, Format::Qcow2, &Silent::default());
        (done.map(drop), store.calls())
    };
    let (done, calls) = attempt(&[]);
    done.unwrap();
    fs::remove_file(&target).unwrap();
    assert!(calls > 20);
    // The first call opens the repository. How many there are depends on how threads meet, hence not the last ones.
    for nth in (2..calls - 5).step_by(4) {
        let (done, _) = attempt(&[StoreFault::Fails { nth, kind: ErrorKind::Io }]);
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Io, "call {nth}");
        let left: Vec<_> =
            fs::read_dir(fixture.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains("target")), "{left:?}");
    }
}

/// A small file system, gone with the value.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let options = format!("size={size}");
        let mounted = command("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs", text(&at)]).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = command("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_as_such_and_left_as_it_was() {
    if !have(&MAKERS) || !have(&["mount", "umount"]) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let Some(small) = Small::mount(fixture.path("small"), "16m") else {
        println!("skipped: mounting needs root");
        return;
    };
    for format in [Format::Raw, Format::Qcow2] {
        let target = small.0.join("image");
        let result = export::run(
            &fixture.repository,
            &manifest,
            &Subject::Disk(1),
            &target,
            format,
            &Silent::default(),
        );
        assert_eq!(result.unwrap_err().kind(), ErrorKind::OutOfSpace);
        assert_eq!(fs::read_dir(&small.0).unwrap().count(), 0);
    }
}

#[test]
fn the_view_reads_the_same_at_any_place_and_tells_what_it_is() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let raw = fs::read(export(&fixture, &manifest, &Subject::Disk(1), "raw", Format::Raw)).unwrap();
    let view = CaptureView::new(&fixture.repository, manifest);
    let disk = view.disk(1).unwrap();
    let all = disk.geometry().extent();
    let runs = disk.extents(all).unwrap();
    // In order, without gaps, neighbours different; together the disk.
    assert_eq!(runs.iter().map(|(e, _)| e.len()).sum::<ByteLen>(), all.len());
    assert!(runs.windows(2).all(|pair| pair[0].0.end() == pair[1].0.start() && pair[0].1 != pair[1].1));
    let counting = counting(&fixture);
    for (extent, status) in &runs {
        let zero =
            || raw[extent.start().get() as usize..extent.end().get() as usize].iter().all(|byte| *byte == 0);
        assert_eq!(counting.overlaps(*extent), *status != Status::Unused, "{extent} {status:?}");
        assert!(*status == Status::Data || zero(), "{extent} {status:?}");
    }
    let data: ExtentSet =
        runs.iter().filter(|(_, status)| *status == Status::Data).map(|(e, _)| *e).collect();
    assert_eq!(disk.data(all).unwrap(), data);
    // A limit cuts the list, not a run of it.
    assert_eq!(disk.status(all, 3).unwrap(), runs[..3]);
    // Readers at random places, several at once, of any length.
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (disk, raw) = (&disk, &raw);
            scope.spawn(move || {
                let places = captured::noise(1000 + thread, 16 * 300);
                for place in places.chunks_exact(16) {
                    let number = |at: usize| u64::from_le_bytes(place[at..at + 8].try_into().unwrap());
                    let at = number(0) % raw.len() as u64;
                    let len = (number(8) % 300_000).min(raw.len() as u64 - at);
                    let mut bytes = vec![0xaa; len as usize];
                    disk.read_exact_at(ByteOffset::new(at), &mut bytes).unwrap();
                    assert!(bytes == raw[at as usize..(at + len) as usize], "{len} at {at}");
                    let part = disk.extents(extent(at, len)).unwrap();
                    assert_eq!(part.iter().map(|(e, _)| e.len().get()).sum::<u64>(), len);
                }
            });
        }
    });
    let mut one = [0];
    assert_eq!(disk.read_exact_at(all.end(), &mut one).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(disk.extents(extent(all.end().get(), 1)).is_err());
}
