//! What the engine's tests share: volumes with any used map, repositories in memory, and a judge of what is in them.

#![allow(dead_code, reason = "each test takes what it needs, and none takes all")]

pub(crate) mod fat;
pub(crate) mod random;

use imager::capture::{self, Options};
use imager::captures::{self, Listed};
use imager::map::{MapReader, Piece};
use imager::monitor::Silent;
use imager::repository::{Found, Repository};
use imager::restore::plan::VolumePlan;
use imager::restore::volume::{self, Job, Outcome, ReadBack};
use imager::survey::{self, Assigned, Survey};
use imager_disk::identity::DiskIdentity;
use imager_disk::{ReadAt, WriteAt};
use imager_image::Compression;
use imager_image::frame::FrameKind;
use imager_image::manifest::{Consistency, Kind, Manifest, Map, Volume};
use imager_image::node::{Child, Content, Entry};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet, Result};
use netshare_store::{MemoryStore, Store};
use std::sync::Arc;

/// `len` bytes from `start`.
pub(crate) fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
}

/// The extent as a range of a vector.
pub(crate) fn range(extent: Extent) -> std::ops::Range<usize> {
    usize::try_from(extent.start().get()).unwrap()..usize::try_from(extent.end().get()).unwrap()
}

/// A new plain repository in memory.
pub(crate) fn plain() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    Repository::create(Arc::clone(&store) as Arc<dyn Store>, None).unwrap();
    store
}

/// The plain repository on a share.
pub(crate) fn open(store: impl Store + 'static) -> Result<Repository> {
    match Repository::find(Arc::new(store))? {
        Found::Open(repository) => Ok(repository),
        Found::Locked(_) => panic!("a plain repository was expected"),
    }
}

/// What there is to see on a disk.
pub(crate) fn look(disk: impl ReadAt + 'static) -> Result<Survey> {
    let identity = DiskIdentity {
        path: "/dev/memory".into(),
        model: "memory".to_owned(),
        serial: Some("M-1".to_owned()),
        wwn: None,
        size: disk.geometry().size,
        kernel_name: None,
    };
    let source = survey::Source { device: Arc::new(disk), identity };
    survey::survey(vec![(1, source)], &Assigned::new())
}

/// How tests capture.
pub(crate) fn options(machine: &str, kind: Option<Kind>) -> Options {
    Options {
        machine: machine.to_owned(),
        kind,
        data: capture::DataMode::Used,
        keep: Vec::new(),
        compression: Compression::Fast,
        consistency: Consistency::Offline,
        hardware_uuid: None,
        rebind: false,
        schedule: None,
    }
}

/// Captures a disk as machine `m`.
pub(crate) fn capture(
    repository: &Repository,
    disk: impl ReadAt + 'static,
    kind: Option<Kind>,
) -> Result<Manifest> {
    capture::run(repository, &look(disk)?, &options("m", kind), &Silent::default())
}

/// Puts the first volume of a capture onto `target`.
pub(crate) fn restore(repository: &Repository, manifest: &Manifest, target: &dyn WriteAt) -> Result<Outcome> {
    restore_volume(repository, &manifest.volumes[0], target)
}

/// Puts a volume onto `target`.
pub(crate) fn restore_volume(
    repository: &Repository,
    volume: &Volume,
    target: &dyn WriteAt,
) -> Result<Outcome> {
    let map = volume.map.as_ref().unwrap();
    let job = Job {
        label: volume.key.clone(),
        map,
        target,
        head: head(volume),
        only: None,
        read_back: ReadBack::Yes,
    };
    volume::run(repository, &job, &Silent::default())
}

/// Where a volume is recognisable, as the plan of a restore has it.
pub(crate) fn head(volume: &Volume) -> ExtentSet {
    let map = volume.map.clone().unwrap();
    let extent = Extent::first(ByteLen::new(map.size_bytes));
    VolumePlan { volume: volume.clone(), map, extent, content: ByteLen::ZERO }.head()
}

/// Everything in a repository: every manifest, map node and block opens and is the one it is called.
/// Returns the captures by machine and sequence.
pub(crate) fn verify(repository: &Repository) -> Vec<Manifest> {
    for listed in listed(repository) {
        listed.manifest.unwrap_or_else(|e| panic!("{}: {e:?}", listed.object));
    }
    verify_listed(repository)
}

/// Every capture by machine and sequence, damaged ones last.
pub(crate) fn listed(repository: &Repository) -> Vec<Listed> {
    let mut all = Vec::new();
    captures::list(repository, None, &mut |listed| all.push(listed)).unwrap();
    let number =
        |listed: &Listed| listed.manifest.as_ref().map_or(u64::MAX, |manifest| manifest.header.sequence);
    all.sort_by_key(number);
    all
}

/// The same for every capture whose manifest can be read.
pub(crate) fn verify_listed(repository: &Repository) -> Vec<Manifest> {
    let manifests: Vec<_> =
        listed(repository).into_iter().filter_map(|listed| listed.manifest.ok()).collect();
    for manifest in &manifests {
        let maps = manifest.volumes.iter().filter_map(|volume| volume.map.as_ref());
        for map in maps.chain(manifest.disks.iter().map(|disk| &disk.remainder)) {
            verify_map(repository, map).unwrap();
        }
    }
    manifests
}

/// Opens every block that a map names.
pub(crate) fn verify_map(repository: &Repository, map: &Map) -> Result<()> {
    let mut frames = repository.frames()?;
    for (index, entry) in entries(repository, map)? {
        if let Content::Data(id, location) = entry.content {
            let raw = frames.open(FrameKind::Blocks, &location)?;
            let len = block_len(map, index);
            let at = location.at as usize;
            let bytes = raw.get(at..at + len).expect("a block lies in its frame");
            assert_eq!(repository.keys().block_id(bytes), id, "block {index}");
        }
    }
    Ok(())
}

/// Every block of a map that is neither unused nor in a run of zeros.
pub(crate) fn entries(repository: &Repository, map: &Map) -> Result<Vec<(u64, Entry)>> {
    let mut reader = MapReader::new(repository.frames()?, map)?;
    let mut found = Vec::new();
    for piece in reader.pieces() {
        if let (first, Piece::Leaf(entries)) = piece? {
            let blocks = (first..).zip(entries.iter().copied());
            found.extend(blocks.filter(|(_, entry)| entry.content != Content::Unused));
        }
    }
    Ok(found)
}

/// What a map says of its volume as a whole: the bytes that count and those that could not be read.
pub(crate) fn masks(repository: &Repository, map: &Map) -> (ExtentSet, ExtentSet) {
    let mut reader = MapReader::new(repository.frames().unwrap(), map).unwrap();
    let unit = map.mask_unit().unwrap();
    let (mut counts, mut lost) = (ExtentSet::new(), ExtentSet::new());
    for piece in reader.pieces() {
        match piece.unwrap() {
            (_, Piece::Run(Child::Unused | Child::Node(..), _)) => {}
            (first, Piece::Run(Child::Zero, count)) => {
                let end = ((first + count) << 16).min(map.size_bytes);
                counts.insert(extent(first << 16, end - (first << 16)));
            }
            (first, Piece::Leaf(entries)) => {
                for (index, entry) in (first..).zip(entries.iter()) {
                    let runs = |mask: imager_image::Mask| {
                        mask.runs(unit, block_len(map, index))
                            .map(move |run| extent((index << 16) + run.start as u64, run.len() as u64))
                    };
                    counts.extend(runs(entry.mask));
                    lost.extend(runs(entry.unreadable));
                }
            }
        }
    }
    (counts, lost)
}

fn block_len(map: &Map, index: u64) -> usize {
    usize::try_from((map.size_bytes - (index << 16)).min(1 << 16)).unwrap()
}

/// The first place inside `mask` at which two volumes differ.
pub(crate) fn difference(mask: &ExtentSet, a: &[u8], b: &[u8]) -> Option<u64> {
    mask.iter().find_map(|extent| {
        let (a, b) = (&a[range(extent)], &b[range(extent)]);
        let at = a.iter().zip(b).position(|(a, b)| a != b)?;
        Some(extent.start().get() + at as u64)
    })
}

/// Whether software would recognise a filesystem there.
pub(crate) fn is_recognised(target: &dyn ReadAt) -> bool {
    imager_volume::probe(target).unwrap().is_some()
}

/// The names of all objects in a folder of a share.
pub(crate) fn names(store: &dyn Store, folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    store
        .list(folder, &mut |entry| {
            names.push(entry.name.as_str().to_owned());
            Ok(())
        })
        .unwrap();
    names.sort();
    names
}
