//! Which capture an id means, where several objects have it in their names, and for whom only some may be listed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::fat::{FatVolume, Layout};
use common::{capture, open, plain};
use imager::captures::{self, Selector, name_of};
use imager::monitor::Silent;
use imager::repository::Repository;
use imager::verify::{self, Options, Scope};
use imager_image::manifest::Header;
use imager_units::{ErrorKind, Result};
use netshare_store::{FaultyStore, MemoryStore, ObjectName, Store, StoreFault};
use std::sync::Arc;

fn object(name: impl Into<String>) -> ObjectName {
    ObjectName::new(name).unwrap()
}

/// A repository with one capture.
fn captured() -> (Arc<MemoryStore>, Repository, Header) {
    let (store, volume) = (plain(), FatVolume::new(Layout::SMALL));
    let repository = open(Arc::clone(&store)).unwrap();
    let header = capture(&repository, volume.snapshot(), None).unwrap().header;
    (store, repository, header)
}

fn found(repository: &Repository, id: &str) -> Result<String> {
    let selector: Selector = format!("id:{id}").parse().unwrap();
    let found = captures::find(repository, &selector).map(|(manifest, _)| name_of(&manifest.header));
    let looked = verify::run(repository, Scope::Selected(&selector), Options::default(), &Silent::default());
    if let Ok(found) = &found {
        let looked: Vec<_> = looked.unwrap().captures.into_iter().map(|capture| capture.object).collect();
        assert_eq!(looked, [found.as_str()]);
    }
    found
}

#[test]
fn a_whole_id_means_the_capture_that_has_it_and_no_copy_of_a_file() {
    let (store, repository, header) = captured();
    let (name, id) = (name_of(&header), header.id.to_string());
    let bytes = store.get(&object(name.clone())).unwrap();
    let copy = name.replace("captures/m/", "captures/copy/");
    store.put(&object(copy.clone()), &bytes).unwrap();
    assert_eq!(found(&repository, &id).unwrap(), name);
    let error = found(&repository, &id[..31]).unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("fits 2"), "{error}");
    // Of damaged ones nobody can tell which is meant.
    store.delete(&object(name.clone())).unwrap();
    store.put(&object(name), &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(found(&repository, &id).unwrap_err().kind(), ErrorKind::Invalid);
    store.delete(&object(copy)).unwrap();
    assert_eq!(found(&repository, &id).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_revoked_name_is_none_of_several_captures() {
    let (store, repository, header) = captured();
    let name = name_of(&header);
    let gone = Header { machine: "gone".to_owned(), ..header.clone() };
    store.put(&object(name_of(&gone)), &gone.revocation().unwrap()).unwrap();
    for digits in [8, 31, 32] {
        assert_eq!(found(&repository, &header.id.to_string()[..digits]).unwrap(), name, "{digits}");
    }
}

#[test]
fn who_may_list_one_machines_captures_finds_those() {
    let (store, _, header) = captured();
    // Opening takes one call; the second lists all captures.
    let refusing = || {
        let refused = StoreFault::Fails { nth: 2, kind: ErrorKind::Denied };
        open(FaultyStore::new(Arc::clone(&store), [refused])).unwrap()
    };
    let id = header.id.to_string();
    let find = |repository: Repository, id: &str| {
        captures::find(&repository, &format!("id:{id}").parse().unwrap()).map(|(manifest, _)| manifest.header)
    };
    let own = |machine: Option<&'static str>| Box::new(move || Ok(machine.map(str::to_owned)));
    assert_eq!(find(refusing().with_own_machine(own(Some("m"))), &id[..8]).unwrap(), header);
    let error = find(refusing().with_own_machine(own(Some("other"))), &id).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("\"other\""), "{error}");
    assert_eq!(find(refusing().with_own_machine(own(None)), &id).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(find(refusing(), &id).unwrap_err().kind(), ErrorKind::Denied);
    let all =
        |repository: Repository| verify::run(&repository, Scope::All, Options::default(), &Silent::default());
    let report = all(refusing().with_own_machine(own(Some("m")))).unwrap();
    assert!(report.captures.len() == 1 && report.warnings[0].contains("\"m\""), "{:?}", report.warnings);
    assert_eq!(all(refusing()).unwrap_err().kind(), ErrorKind::Denied);
}
