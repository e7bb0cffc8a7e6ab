//! A repository in memory with captures of a small disk.

use imager::capture::{self, DataMode, Options};
use imager::monitor::Silent;
use imager::repository::{Found, Repository};
use imager::survey::{Assigned, Source, survey};
use imager_disk::identity::DiskIdentity;
use imager_disk::{MemoryDisk, ReadAt};
use imager_image::Compression;
use imager_image::manifest::{Consistency, Kind, Manifest};
use imager_units::SectorSize;
use netshare_store::{MemoryStore, Store};
use std::sync::Arc;

/// A plain repository without captures.
pub fn create() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    Repository::create(Arc::clone(&store) as Arc<dyn Store>, None).expect("memory takes everything");
    store
}

/// The repository on a share.
pub fn open(store: &Arc<MemoryStore>) -> Repository {
    match Repository::find(Arc::clone(store) as Arc<dyn Store>).expect("it was made") {
        Found::Open(repository) => repository,
        Found::Locked(_) => unreachable!("it was made without a secret"),
    }
}

/// Captures a disk without a table.
pub fn take(repository: &Repository, bytes: &[u8], kind: Kind) -> Manifest {
    let device: Arc<dyn ReadAt> = Arc::new(MemoryDisk::from_bytes(bytes, SectorSize::B512));
    let (size, model) = (device.geometry().size, "memory".to_owned());
    let identity =
        DiskIdentity { path: "/disk".into(), model, serial: None, wwn: None, size, kernel_name: None };
    let seen = survey(vec![(1, Source { device, identity })], &Assigned::new()).expect("memory is read");
    let options = Options {
        machine: "web".to_owned(),
        kind: Some(kind),
        data: DataMode::Used,
            keep: Vec::new(),
        compression: Compression::Fast,
        consistency: Consistency::Offline,
        hardware_uuid: None,
        rebind: false,
        schedule: None,
    };
    capture::run(repository, &seen, &options, &Silent::default()).expect("memory takes everything")
}

/// Bytes that do not compress.
pub fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}
