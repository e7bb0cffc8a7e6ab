//! Disks with sectors that cannot be read: everything else is captured, and what is missing is named to the unit.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::fat::{FatVolume, Layout};
use common::random::Random;
use common::{capture, difference, extent, look, masks, open, options, plain, restore};
use imager::monitor::Silent;
use imager_disk::{Fault, FaultyDisk, Geometry, MemoryDisk, ReadAt};
use imager_image::manifest::{Manifest, Mode, Problem};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use netshare_store::{DirStore, MemoryStore};
use std::sync::{Arc, Mutex};

/// Clusters of 4 KiB: used ones and, between them, free ones full of what was deleted.
fn volume() -> FatVolume {
    let volume = FatVolume::new(Layout { reserved: 3200, backup: 3100, ..Layout::SMALL });
    let mut random = Random::new(1);
    for cluster in 2..400 {
        let bytes = random.bytes(4096);
        if is_used(cluster) {
            volume.put(cluster, &bytes);
        } else {
            volume.write(volume.cluster(cluster).start().get(), &bytes);
        }
    }
    volume
}

fn is_used(cluster: u64) -> bool {
    cluster == 2 || !cluster.is_multiple_of(7)
}

fn with_bad(volume: &FatVolume, bad: &[Extent]) -> FaultyDisk<MemoryDisk> {
    FaultyDisk::new(volume.snapshot(), bad.iter().copied().map(Fault::Bad))
}

/// The extents named as missing.
fn missing(problems: &[Problem]) -> ExtentSet {
    problems.iter().flat_map(|problem| problem.extents.iter().map(|run| run.extent())).collect()
}

/// Restores onto junk: what is missing is told, all else is right.
fn assert_restores_but_for(
    store: &Arc<MemoryStore>,
    manifest: &Manifest,
    volume: &FatVolume,
    lost: &ExtentSet,
) {
    let repository = open(Arc::clone(store)).unwrap();
    let size = volume.disk.geometry().size.to_usize().unwrap();
    let target = MemoryDisk::from_bytes(&Random::new(2).bytes(size), SectorSize::B512);
    // The second time nothing is written, and the same is told.
    for _ in 0..2 {
        let outcome = restore(&repository, manifest, &target).unwrap();
        assert_eq!(outcome.unreadable, *lost);
        assert!(outcome.is_complete && outcome.damaged.is_empty(), "{outcome:?}");
        let rest = volume.mask().difference(lost);
        assert_eq!(difference(&rest, &volume.disk.to_vec(), &target.to_vec()), None);
    }
}

#[test]
fn bad_sectors_in_files_are_named_and_the_rest_is_captured() {
    let volume = volume();
    // A sector, some that straddle two clusters, a run over blocks.
    let bad = [
        extent(volume.cluster(10).start().get() + 512, 512),
        extent(volume.cluster(40).start().get() + 3584, 1024),
        extent(volume.cluster(100).start().get(), 200_000),
    ];
    let lost: ExtentSet = (2..400)
        .filter(|&cluster| is_used(cluster))
        .map(|cluster| volume.cluster(cluster))
        .filter(|cluster| bad.iter().any(|bad| bad.overlaps(*cluster)))
        .collect();
    let store = plain();
    let repository = open(Arc::clone(&store)).unwrap();
    let manifest = capture(&repository, with_bad(&volume, &bad), None).unwrap();
    assert_eq!(missing(&manifest.problems), lost);
    assert_eq!((manifest.problems.len(), manifest.problems[0].volume.as_str()), (1, "0"));
    let (counts, unreadable) = masks(&repository, manifest.volumes[0].map.as_ref().unwrap());
    assert_eq!((counts, unreadable), (volume.mask().difference(&lost), lost.clone()));
    assert_restores_but_for(&store, &manifest, &volume, &lost);

    // They read again: the next capture has them.
    let healed = capture(&repository, volume.snapshot(), None).unwrap();
    assert_eq!(healed.problems, []);
    assert_restores_but_for(&store, &healed, &volume, &ExtentSet::new());
    // And are lost again: the older capture still has them.
    let worse = capture(&repository, with_bad(&volume, &bad), None).unwrap();
    assert_eq!(missing(&worse.problems), lost);
    assert_restores_but_for(&store, &worse, &volume, &lost);
    assert_restores_but_for(&store, &healed, &volume, &ExtentSet::new());
}

#[test]
fn bad_sectors_that_nobody_uses_are_no_problem() {
    let volume = volume();
    let free: Vec<_> = (2..400).filter(|&c| !is_used(c)).map(|c| volume.cluster(c)).collect();
    let store = plain();
    let repository = open(Arc::clone(&store)).unwrap();
    let manifest = capture(&repository, with_bad(&volume, &free), None).unwrap();
    assert_eq!(manifest.problems, []);
    assert_restores_but_for(&store, &manifest, &volume, &ExtentSet::new());
    // Nor are those that were freed since the last capture.
    let freed: Vec<_> = (100..140).map(|cluster| volume.cluster(cluster)).collect();
    (100..140).for_each(|cluster| volume.set_used(cluster, false));
    let manifest = capture(&repository, with_bad(&volume, &freed), None).unwrap();
    assert_eq!(manifest.problems, []);
    assert_restores_but_for(&store, &manifest, &volume, &ExtentSet::new());
}

#[test]
fn a_disk_with_bad_sectors_everywhere_has_a_manifest_that_can_be_read() {
    let places = 5000;
    let bytes = Random::new(3).bytes(places * 8192);
    let bad = (0..places as u64).map(|place| Fault::Bad(extent(place * 8192 + 512, 512)));
    let disk = FaultyDisk::new(MemoryDisk::from_bytes(&bytes, SectorSize::B512), bad);
    let repository = open(plain()).unwrap();
    let manifest = capture(&repository, disk, None).unwrap();
    let [problem] = &manifest.problems[..] else { panic!("{:?}", manifest.problems) };
    assert_eq!(problem.extents.len(), 4096);
    assert!(problem.message.contains("in 5000 places"), "{}", problem.message);
    let (_, unreadable) = masks(&repository, manifest.volumes[0].map.as_ref().unwrap());
    assert_eq!(unreadable.iter().count(), places);
}

/// A disk that counts how often each sector is asked for.
struct Counted {
    disk: FaultyDisk<MemoryDisk>,
    asked: Arc<Mutex<Vec<u32>>>,
}

impl ReadAt for Counted {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let mut asked = self.asked.lock().unwrap();
        let sectors = offset.get() / 512..(offset.get() + buf.len() as u64).div_ceil(512);
        sectors.for_each(|sector| asked[usize::try_from(sector).unwrap()] += 1);
        drop(asked);
        self.disk.read_exact_at(offset, buf)
    }
}

#[test]
fn a_bad_sector_is_tried_a_few_times_and_its_neighbours_are_not_worn_out() {
    let volume = volume();
    let bad = extent(volume.cluster(50).start().get(), 512);
    let asked = Arc::new(Mutex::new(vec![0; volume.disk.to_vec().len().div_ceil(512)]));
    let disk = Counted { disk: with_bad(&volume, &[bad]), asked: Arc::clone(&asked) };
    let survey = look(disk).unwrap();
    asked.lock().unwrap().fill(0);
    let repository = open(plain()).unwrap();
    imager::capture::run(&repository, &survey, &options("m", None), &Silent::default()).unwrap();
    let asked = asked.lock().unwrap();
    let at = usize::try_from(bad.start().get() / 512).unwrap();
    assert!((3..=5).contains(&asked[at]), "the bad sector was asked {} times", asked[at]);
    // The rest of its page is asked as often; what lies around it twice: once with the others, once by itself.
    for (sector, times) in asked.iter().enumerate().skip(at - 300).take(1000) {
        let most = if (at..at + 8).contains(&sector) { 5 } else { 2 };
        assert!(*times <= most, "sector {sector} was asked {times} times, the bad one is {at}");
    }
}

#[test]
fn a_sector_that_reads_at_the_third_try_is_no_problem() {
    let volume = volume();
    for reads in 1..=3 {
        let flaky = Fault::Flaky { extent: extent(volume.cluster(50).start().get(), 512), reads };
        let store = plain();
        let disk = FaultyDisk::new(volume.snapshot(), [flaky]);
        let manifest = capture(&open(Arc::clone(&store)).unwrap(), disk, None).unwrap();
        assert_eq!(manifest.problems, []);
        assert_restores_but_for(&store, &manifest, &volume, &ExtentSet::new());
    }
}

#[test]
fn a_bad_copy_of_the_superblock_does_not_withhold_the_head() {
    let volume = volume();
    let page = |extent: Extent| extent.align_out(ByteLen::new(volume.layout.cluster));
    let lost = ExtentSet::from(page(volume.backup()));
    let store = plain();
    let disk = with_bad(&volume, &[volume.backup()]);
    let manifest = capture(&open(Arc::clone(&store)).unwrap(), disk, None).unwrap();
    assert_eq!(manifest.volumes[0].mode, Mode::Used);
    assert_eq!(missing(&manifest.problems), lost);
    assert_restores_but_for(&store, &manifest, &volume, &lost);
    // All of its block, too, so that there is nothing of it to write.
    let block = volume.backup().align_out(ByteLen::new(1 << 16));
    let manifest = capture(&open(Arc::clone(&store)).unwrap(), with_bad(&volume, &[block]), None).unwrap();
    assert_restores_but_for(&store, &manifest, &volume, &ExtentSet::from(block));
}

#[test]
fn a_volume_whose_own_data_cannot_be_read_is_copied_whole() {
    let volume = volume();
    let table = extent(volume.data_start() - 600, 512);
    for (what, bad) in [("boot sector", extent(0, 512)), ("table", table)] {
        let store = plain();
        let repository = open(Arc::clone(&store)).unwrap();
        let manifest = capture(&repository, with_bad(&volume, &[bad]), None);
        // On a disk without a partition table the first sector is where one would be.
        if what == "boot sector" {
            assert_eq!(manifest.unwrap_err().kind(), ErrorKind::Io);
            continue;
        }
        let manifest = manifest.unwrap();
        assert_eq!(manifest.volumes[0].mode, Mode::Raw, "{what}");
        assert!(
            manifest.warnings.iter().any(|warning| warning.contains("cannot be read")),
            "{:?}",
            manifest.warnings
        );
        let lost = ExtentSet::from(bad.align_out(ByteLen::new(4096)));
        assert_eq!(missing(&manifest.problems), lost, "{what}");
        let target = MemoryDisk::new(volume.disk.geometry().size, SectorSize::B512);
        let outcome = restore(&repository, &manifest, &target).unwrap();
        assert!(outcome.is_complete && outcome.unreadable == lost);
        let rest = lost.complement(volume.disk.geometry().extent());
        assert_eq!(difference(&rest, &volume.disk.to_vec(), &target.to_vec()), None, "{what}");
    }
}

/// A disk with one MBR partition that holds the volume.
fn partitioned(volume: &FatVolume) -> (Vec<u8>, u64) {
    let (start, content) = (1_u64 << 20, volume.disk.to_vec());
    let sectors = u32::try_from(content.len().div_ceil(512)).unwrap();
    let mut disk = vec![0; 1 << 20];
    disk[440..444].copy_from_slice(&[1, 2, 3, 4]);
    disk[446 + 4] = 0x0C;
    disk[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk.extend(content);
    disk.resize(disk.len().next_multiple_of(512), 0);
    (disk, start)
}

#[test]
fn a_partition_that_cannot_be_recognised_does_not_stop_the_machines_capture() {
    let volume = volume();
    let (bytes, start) = partitioned(&volume);
    let disk = MemoryDisk::from_bytes(&bytes, SectorSize::B512);
    let disk = FaultyDisk::new(disk, [Fault::Bad(extent(start, 512))]);
    let store = plain();
    let repository = open(Arc::clone(&store)).unwrap();
    let manifest = capture(&repository, disk, None).unwrap();
    assert_eq!(manifest.volumes[0].mode, Mode::Raw);
    assert_eq!(missing(&manifest.problems), ExtentSet::from(extent(0, 4096)));
    assert!(manifest.warnings.iter().any(|warning| warning.contains("volume 1")), "{:?}", manifest.warnings);
}

#[test]
fn a_disk_that_is_gone_is_not_a_disk_with_bad_sectors() {
    let volume = FatVolume::new(Layout { tail: 1 << 30, ..Layout::SMALL });
    // A disk that says that there is data everywhere, all of it unreadable from some point on.
    struct Dense(FaultyDisk<MemoryDisk>);
    impl ReadAt for Dense {
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
            self.0.read_exact_at(offset, buf)
        }
    }
    let store = plain();
    let repository = open(Arc::clone(&store)).unwrap();
    let before = capture(&repository, volume.snapshot(), None).unwrap();
    let gone = extent(5 << 20, (1 << 30) - (4 << 20));
    let survey = look(Dense(with_bad(&volume, &[gone]))).unwrap();
    let error =
        imager::capture::run(&repository, &survey, &options("m", None), &Silent::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(common::verify(&repository), [before]);
}

#[test]
fn a_restore_of_what_has_holes_ends_with_status_2_and_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, shared) = (volume(), dir.path().join("share"));
    let store = Arc::new(DirStore::create(&shared).unwrap());
    let repository = imager::repository::Repository::create(store, None).unwrap();
    let cluster = volume.cluster(30);
    capture(&repository, with_bad(&volume, &[extent(cluster.start().get(), 512)]), None).unwrap();
    let target = dir.path().join("target.img");
    std::fs::write(&target, b"").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_imager"))
        .args(["restore", "m", "--json", "--yes", "--to"])
        .arg(&target)
        .env("IMAGER_REPO", &shared)
        .env("IMAGER_STATE_DIR", dir.path().join("state"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let extents = &report["problems"][0]["extents"];
    assert_eq!(*extents, serde_json::json!([[cluster.start().get(), cluster.len().get()]]), "{report}");
    assert_eq!(report["volumes"][0]["complete"], true);
    let restored = std::fs::read(&target).unwrap();
    let rest = volume.mask().difference(&cluster.into());
    assert_eq!(difference(&rest, &volume.disk.to_vec(), &restored), None);
}
