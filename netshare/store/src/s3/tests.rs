//! The contract on an engine of our own, which can misbehave, and on a real one where there is one.

mod engine;
mod parts;

use super::{S3Settings, S3Store};
use crate::conformance::{Clients, conformance};
use crate::{Clock, Entry, Nobody, ObjectName, Put, Retry, Store, TestClock, Watch};
use engine::{Engine, Fault};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SILENCE: Duration = Duration::from_secs(30);

fn settings(engine: &Engine) -> S3Settings {
    let endpoint = format!("http://{}", engine.address);
    let variable = move |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("AKTEST".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some("SECRETTEST".to_owned()),
        "AWS_ENDPOINT_URL" => Some(endpoint.clone()),
        _ => None,
    };
    S3Settings::find(&variable, &|_| None).unwrap()
}

fn open(engine: &Engine, url: &str) -> S3Store {
    S3Store::new(url.parse().unwrap(), &settings(engine), SILENCE).unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn listed(store: &dyn Store, folder: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut each = |entry| {
        found.push(entry);
        Ok(())
    };
    store.list(folder, &mut each).unwrap();
    found
}

#[test]
fn a_bucket_conforms() {
    for url in ["s3://bucket", "s3://bucket/a/b"] {
        conformance(|| {
            let engine = Engine::new();
            Box::new(move || Box::new(open(&engine, url)))
        });
    }
}

/// Run where `HALFHOUR_S3` names a bucket (`s3://BUCKET/PREFIX`) that the environment's credentials may write to.
#[test]
fn a_bucket_of_a_real_service_conforms() {
    let Ok(url) = std::env::var("HALFHOUR_S3") else {
        println!("skipped: HALFHOUR_S3 names no bucket of a real service");
        return;
    };
    let settings = S3Settings::from_environment().unwrap();
    let share = || -> Clients {
        let prefix = format!("{url}/{:016x}", RandomState::new().build_hasher().finish());
        let settings = settings.clone();
        Box::new(move || Box::new(S3Store::new(prefix.parse().unwrap(), &settings, SILENCE).unwrap()))
    };
    conformance(share);
    parts::packs_conform(&share());
}

#[test]
fn a_service_that_does_not_honour_conditions_is_never_written_to() {
    for fault in [Fault::NoConditions, Fault::RefusesConditions] {
        let engine = Engine::new();
        engine.misbehave(fault);
        let store = open(&engine, "s3://bucket/x");
        for _ in 0..2 {
            let error = store.put(&name("captures/db/1"), b"x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{fault:?}: {error:?}");
        }
        assert!(engine.keys().is_empty(), "{:?}", engine.keys());
    }
}

#[test]
fn a_conflict_is_no_loss() {
    let engine = Engine::new();
    let store = open(&engine, "s3://bucket");
    store.put(&name("a"), b"x").unwrap();
    engine.misbehave(Fault::Conflicts);
    assert_eq!(store.put(&name("b"), b"x").unwrap(), Put::Created);
    assert_eq!(store.put(&name("b"), b"x").unwrap(), Put::Present);
    assert_eq!(store.put(&name("b"), b"y").unwrap_err().kind(), ErrorKind::Exists);
}

#[test]
fn every_status_has_its_kind() {
    for (status, kind) in [
        (301, ErrorKind::Denied),
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (408, ErrorKind::Io),
        (429, ErrorKind::Io),
        (500, ErrorKind::Io),
        (503, ErrorKind::Io),
        (507, ErrorKind::OutOfSpace),
    ] {
        let engine = Engine::new();
        let store = open(&engine, "s3://bucket");
        engine.misbehave(Fault::Status(status));
        assert_eq!(store.put(&name("a"), b"x").unwrap_err().kind(), kind, "put {status}");
        assert_eq!(store.get(&name("a")).unwrap_err().kind(), kind, "get {status}");
        assert_eq!(store.len(&name("a")).unwrap_err().kind(), kind, "len {status}");
        assert_eq!(store.list("", &mut |_| Ok(())).unwrap_err().kind(), kind, "list {status}");
        assert_eq!(store.delete(&name("a")).unwrap_err().kind(), kind, "delete {status}");
    }
}

#[test]
fn a_reason_is_understood_however_long_it_says_it_is() {
    let engine = Engine::new();
    engine.insert("a", b"x");
    engine.misbehave(Fault::TimesOut);
    assert_eq!(open(&engine, "s3://bucket").get(&name("a")).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_service_that_is_busy_or_breaks_off_is_asked_again() {
    let engine = Engine::new();
    engine.insert("bucket-wide", b"x");
    let clock = Arc::new(TestClock::new(1));
    let store = open(&engine, "s3://bucket");
    let store = Retry::with_clock(store, Duration::from_secs(600), Arc::new(Nobody), clock as Arc<dyn Clock>);
    engine.misbehave(Fault::Busy);
    let bytes = vec![5; 1 << 20];
    assert!(store.put(&name("packs/00/a"), &bytes).is_ok());
    assert_eq!(store.put(&name("packs/00/a"), &bytes).unwrap(), Put::Present);
    assert!(store.get(&name("packs/00/a")).unwrap() == bytes);
    assert_eq!(listed(&store, "packs").len(), 1);
    engine.misbehave(Fault::HalfBodies);
    assert_eq!(store.inner().get(&name("packs/00/a")).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.inner().list("", &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Io);
    engine.misbehave(Fault::None);
    store.delete(&name("packs/00/a")).unwrap();
    assert_eq!(engine.keys(), ["bucket-wide"]);
}

#[test]
fn a_service_that_says_nothing_is_given_up_and_one_that_is_gone_is_io() {
    let engine = Engine::new();
    let silence = Duration::from_millis(300);
    let store = S3Store::new("s3://bucket".parse().unwrap(), &settings(&engine), silence).unwrap();
    engine.misbehave(Fault::Silent);
    let start = Instant::now();
    assert_eq!(store.get(&name("a")).unwrap_err().kind(), ErrorKind::Io);
    assert!(start.elapsed() < Duration::from_secs(4));
    let settings = settings(&engine);
    drop(engine);
    let store = S3Store::new("s3://bucket".parse().unwrap(), &settings, silence).unwrap();
    assert_eq!(store.get(&name("a")).unwrap_err().kind(), ErrorKind::Io);
}

/// Wants to stop.
#[derive(Debug)]
struct Impatient;

impl Watch for Impatient {
    fn cancelled(&self) -> bool {
        true
    }

    fn waiting(&self, _error: &Error, _left: Duration) {}

    fn answered(&self) {}
}

#[test]
fn a_service_that_says_nothing_can_be_left() {
    let engine = Engine::new();
    engine.misbehave(Fault::Silent);
    let store = open(&engine, "s3://bucket").with_watch(Arc::new(Impatient));
    let start = Instant::now();
    assert_eq!(store.put(&name("a"), b"x").unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(store.get(&name("a")).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(store.list("", &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_neighbours_keys_and_odd_ones_are_passed_over_and_times_are_the_services() {
    let engine = Engine::new();
    for key in ["a/halfhour.json", "ab/x", "a", "b/x", "a/.probe-1", "a/packs/x y", "a/a/b/c/d/e"] {
        engine.insert(key, b"1");
    }
    let found = listed(&open(&engine, "s3://bucket/a"), "");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].name, name("halfhour.json"));
    engine.insert("a/packs/", b"");
    assert!(
        listed(&open(&engine, "s3://bucket/a"), "packs").is_empty(),
        "a folder's placeholder is no object in it"
    );
    engine.insert("a//x", b"1");
    let error = open(&engine, "s3://bucket/a").list("", &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    let received = found[0].received.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(received.as_secs(), 1_795_230_900);
}

#[test]
fn an_object_that_is_none_of_ours_is_not_fetched() {
    let engine = Engine::new();
    engine.insert("packs/00/huge", &vec![0; (64 << 20) + 1]);
    let store = open(&engine, "s3://bucket");
    assert_eq!(store.get(&name("packs/00/huge")).unwrap_err().kind(), ErrorKind::Corrupt);
    let part = Extent::new(ByteOffset::new(64 << 20), ByteLen::new(1)).unwrap();
    assert_eq!(store.get_range(&name("packs/00/huge"), part).unwrap(), [0]);
}

#[test]
fn credentials_are_never_shown() {
    let engine = Engine::new();
    engine.misbehave(Fault::Status(403));
    let store = open(&engine, "s3://bucket/x");
    let error = store.put(&name("a"), b"x").unwrap_err();
    let shown = format!("{store:?} {error:?} {error} {}", store.location());
    assert!(!shown.contains("SECRETTEST"), "{shown}");
}
