//! What needs no real disk: limits, shares that fail, wires that err.

use super::{Depth, LIMITS, Limits, Mark, Options, Scope, Status, VerifyReport, run, within};
use crate::capture;
use crate::monitor::Silent;
use crate::repository::{Found, Repository};
use crate::survey::{Assigned, Source, survey};
use imager_disk::identity::DiskIdentity;
use imager_disk::{Geometry, MemoryDisk, ReadAt};
use imager_image::manifest::Consistency;
use imager_image::{Compression, names};
use imager_units::{ByteLen, ErrorKind, SectorSize};
use netshare_store::{FaultyStore, MemoryStore, ObjectName, Store, StoreFault};
use std::sync::Arc;

const DEPTHS: [Depth; 2] = [Depth::Structure, Depth::ReadData];

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A share with two captures of a disk without a table: 40 MiB that do not compress, of which the second changes two.
fn share() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let repository = Repository::create(Arc::clone(&store) as Arc<dyn Store>, None).unwrap();
    let mut bytes = noise(1, 40 << 20);
    for _ in 0..2 {
        let device: Arc<dyn ReadAt> = Arc::new(MemoryDisk::from_bytes(&bytes, SectorSize::B512));
        let Geometry { size, .. } = device.geometry();
        let (path, model) = ("/disk".into(), "memory".to_owned());
        let identity = DiskIdentity { path, model, serial: None, wwn: None, size, kernel_name: None };
        let survey = survey(vec![(1, Source { device, identity })], &Assigned::new()).unwrap();
        let options = capture::Options {
            machine: "web".to_owned(),
            kind: None,
            data: capture::DataMode::Used,
            keep: Vec::new(),
            compression: Compression::Fast,
            consistency: Consistency::Offline,
            hardware_uuid: None,
            rebind: false,
            schedule: None,
        };
        capture::run(&repository, &survey, &options, &Silent::default()).unwrap();
        bytes[20 << 20..22 << 20].copy_from_slice(&noise(2, 2 << 20));
    }
    store
}

fn open(store: impl Store + 'static) -> Repository {
    match Repository::find(Arc::new(store)).unwrap() {
        Found::Open(repository) => repository,
        Found::Locked(_) => unreachable!("it was made without a secret"),
    }
}

fn check(limits: Limits, store: &Arc<MemoryStore>, depth: Depth) -> VerifyReport {
    let options = Options { depth, mark: Mark::Leave };
    within(limits, &open(Arc::clone(store)), Scope::All, options, &Silent::default()).unwrap()
}

fn packs(store: &MemoryStore) -> Vec<(ObjectName, ByteLen)> {
    let mut found = Vec::new();
    store
        .list(names::PACKS, &mut |entry| {
            found.push((entry.name, entry.len));
            Ok(())
        })
        .unwrap();
    found
}

/// Everything but the time.
fn findings(report: VerifyReport) -> String {
    let mut json = serde_json::to_value(report).unwrap();
    json.as_object_mut().unwrap().remove("elapsed_seconds");
    json.to_string()
}

#[test]
fn however_little_fits_into_memory_the_findings_are_the_same() {
    let store = share();
    let all = packs(&store);
    assert!(all.len() > 4);
    for damaged in [None, Some(0), Some(1), Some(all.len() - 1)] {
        let store = Arc::new((*store).clone());
        if let Some((name, len)) = damaged.and_then(|at| all.get(at)) {
            let middle = usize::try_from(len.get() / 2).unwrap();
            store.damage(name, |bytes| bytes[middle] ^= 1).unwrap();
        }
        for depth in DEPTHS {
            let expected = check(LIMITS, &store, depth);
            match damaged {
                None => assert_eq!((expected.has_damage(), expected.packs), (false, all.len() as u64)),
                // Of a pack of nodes it shows at once, of a pack of blocks when it is read.
                Some(_) => assert!(expected.has_damage() || depth == Depth::Structure),
            }
            let expected = findings(expected);
            for limits in [(1, 1), (2, 100), (3, 1_000_000), (100, 1)] {
                let limits = Limits { packs: limits.0, blocks: limits.1 };
                assert_eq!(
                    findings(check(limits, &store, depth)),
                    expected,
                    "{limits:?} {depth:?} {damaged:?}"
                );
            }
        }
    }
}

#[test]
fn a_share_that_fails_is_an_error_and_no_damage() {
    let store = share();
    for depth in DEPTHS {
        let options = Options { depth, mark: Mark::Leave };
        let counted = Arc::new(FaultyStore::new(Arc::clone(&store), []));
        let sound = run(&open(Arc::clone(&counted)), Scope::All, options, &Silent::default()).unwrap();
        assert_eq!(sound.status, Status::Ok);
        // The first call opens the repository.
        for nth in 2..=counted.calls() {
            let fault = StoreFault::Fails { nth, kind: ErrorKind::Io };
            let faulty = open(FaultyStore::new(Arc::clone(&store), [fault]));
            let error = run(&faulty, Scope::All, options, &Silent::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "call {nth}");
        }
    }
}

#[test]
fn what_is_read_wrong_only_once_is_no_damage() {
    let store = share();
    let mut warned = 0;
    for depth in DEPTHS {
        let options = Options { depth, mark: Mark::Damaged };
        let counted = Arc::new(FaultyStore::new(Arc::clone(&store), []));
        run(&open(Arc::clone(&counted)), Scope::All, options, &Silent::default()).unwrap();
        for nth in 2..=counted.calls() {
            let fault = StoreFault::Truncates { nth, len: ByteLen::new(20) };
            let faulty = open(FaultyStore::new(Arc::clone(&store), [fault]));
            let report = run(&faulty, Scope::All, options, &Silent::default()).unwrap();
            assert!(!report.has_damage(), "call {nth}: {:?}", report.damaged);
            assert_eq!(report.status, Status::Ok, "call {nth}");
            assert!(report.marked.is_empty());
            warned += report.warnings.len();
        }
    }
    assert!(warned > 5, "{warned}");
}
