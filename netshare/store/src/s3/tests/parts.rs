//! Packs in parts: what is asked of the service, and what is left of it whatever goes wrong.

use super::engine::{Engine, Fault, Wrong};
use super::{SILENCE, name, open, settings};
use crate::s3::S3Store;
use crate::{Clock, Nobody, ObjectName, Put, Retry, Store, TestClock, Watch};
use imager_units::{ByteLen, Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Two whole parts and a short one.
const LEN: usize = (17 << 20) + 5;
const PARTS: usize = 3;

/// A pack, and the name that it gives itself.
pub(super) fn pack(seed: u8, len: usize) -> (ObjectName, Vec<u8>) {
    let pages = (0..len)
        .step_by(4096)
        .flat_map(|at| *blake3::hash(&[&[seed], &at.to_le_bytes()[..]].concat()).as_bytes());
    let bytes: Vec<u8> = pages.flat_map(|byte| [byte; 128]).take(len).collect();
    let digest = blake3::hash(&bytes).to_hex();
    (name(&format!("packs/{}/{digest}", &digest[..2])), bytes)
}

/// A store that has made its first put already, and a clean slate.
fn ready(engine: &Engine) -> S3Store {
    let store = open(engine, "s3://bucket");
    store.put(&name("halfhour.json"), b"{}").unwrap();
    engine.misbehave(Fault::None);
    store
}

fn patient(store: S3Store) -> Retry<S3Store> {
    let clock = Arc::new(TestClock::new(1)) as Arc<dyn Clock>;
    Retry::with_clock(store, Duration::from_secs(600), Arc::new(Nobody), clock)
}

fn count(log: &[String], what: &str) -> usize {
    log.iter().filter(|word| *word == what).count()
}

/// What is true of packs on any share, put through two clients of one.
pub(super) fn packs_conform(clients: &dyn Fn() -> Box<dyn Store>) {
    let (store, other) = (clients(), clients());
    for (seed, len) in [(1, 9 << 20), (2, LEN), (3, 32 << 20)] {
        let (name, bytes) = pack(seed, len);
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Present);
        assert_eq!(other.put(&name, &bytes).unwrap(), Put::Present);
        assert_eq!(other.len(&name).unwrap(), Some(ByteLen::of(&bytes)));
        assert!(other.get(&name).unwrap() == bytes);
        other.delete(&name).unwrap();
        let mut wrong = bytes.clone();
        wrong[len - 1] ^= 1;
        for wrong in [&wrong[..], &bytes[1..]] {
            assert_eq!(other.put(&name, wrong).unwrap(), Put::Created);
            assert_eq!(store.put(&name, &bytes).unwrap_err().kind(), ErrorKind::Exists);
            assert!(store.get(&name).unwrap() == *wrong, "what is there is never replaced");
            other.delete(&name).unwrap();
        }
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
    }
    let (name, bytes) = pack(4, LEN);
    thread::scope(|scope| {
        let put = || [&store, &other].map(|store| scope.spawn(|| store.put(&name, &bytes).map(drop)));
        put().into_iter().chain(put()).for_each(|put| put.join().unwrap().unwrap());
    });
    assert!(store.get(&name).unwrap() == bytes);
}

#[test]
fn packs_in_a_bucket_conform() {
    for fault in [Fault::None, Fault::NoConditionOfParts, Fault::RefusesParts, Fault::RefusesConditionOfParts]
    {
        let engine = Engine::new();
        engine.misbehave(fault);
        packs_conform(&|| Box::new(open(&engine, "s3://bucket/x")));
        assert_eq!(engine.uploads(), [], "{fault:?}");
    }
}

#[test]
fn a_pack_goes_in_parts_and_everything_else_in_one_request() {
    let engine = Engine::new();
    let store = ready(&engine);
    let (pack_name, bytes) = pack(1, LEN);
    engine.misbehave(Fault::Together(PARTS));
    assert_eq!(store.put(&pack_name, &bytes).unwrap(), Put::Created);
    let log = engine.log();
    let asked = ["look", "begin", "part", "complete", "put"].map(|what| count(&log, what));
    assert_eq!(asked, [1, 1, PARTS, 1, 0], "{log:?}");
    assert_eq!(log.last().unwrap(), "complete");
    assert_eq!(engine.most_parts_at_once(), PARTS);
    assert!(engine.get(pack_name.as_str()).unwrap() == bytes);
    for (name, bytes) in [pack(1, 8 << 20), (name("packs/00/other"), bytes.clone()), (name("index/1"), bytes)]
    {
        engine.misbehave(Fault::None);
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
        assert_eq!(engine.log(), ["put"], "{name}");
    }
}

#[test]
fn whichever_request_fails_the_pack_is_stored_and_only_what_failed_is_sent_again() {
    for (wrong, nth) in
        [Wrong::Busy, Wrong::Lost].into_iter().flat_map(|wrong| (0..6).map(move |nth| (wrong, nth)))
    {
        let engine = Engine::new();
        let store = patient(ready(&engine));
        let (name, bytes) = pack(2, LEN);
        engine.misbehave(Fault::At(nth, wrong));
        let put = store.put(&name, &bytes).unwrap();
        let log = engine.log();
        let what = format!("{wrong:?} {nth}: {log:?}");
        assert!(engine.get(name.as_str()).unwrap() == bytes, "{what}");
        let parts = PARTS + usize::from(log[nth] == "part");
        assert_eq!(count(&log, "part"), parts, "{what}");
        let was_done = (log[nth].as_str(), wrong) == ("complete", Wrong::Lost);
        assert_eq!(put, if was_done { Put::Present } else { Put::Created }, "{what}");
        // Of an upload whose beginning was never answered nobody knows the name; it has no parts.
        let left = usize::from((log[nth].as_str(), wrong) == ("begin", Wrong::Lost));
        drop(store);
        assert!(
            engine.uploads().len() == left && engine.uploads().iter().all(|(_, parts)| *parts == 0),
            "{what}"
        );
    }
}

#[test]
fn a_final_failure_leaves_nothing_behind() {
    for nth in 0..6 {
        let engine = Engine::new();
        let store = ready(&engine);
        let (name, bytes) = pack(3, LEN);
        engine.misbehave(Fault::At(nth, Wrong::Denied));
        let error = store.put(&name, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{nth}: {error:?}");
        assert_eq!(
            (engine.get(name.as_str()), engine.uploads()),
            (None, Vec::new()),
            "{nth}: {:?}",
            engine.log()
        );
        engine.misbehave(Fault::None);
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
    }
}

#[test]
fn what_came_between_the_look_and_the_completion_is_replaced_at_most_by_the_right_bytes() {
    let (name, bytes) = pack(4, LEN);
    let put = |fault, rival: &[u8]| {
        let engine = Engine::new();
        let store = ready(&engine);
        engine.misbehave(fault);
        engine.let_rival_put(rival);
        let put = store.put(&name, &bytes).map_err(|error| error.kind());
        assert_eq!(engine.uploads(), [], "{fault:?}");
        (put, engine.get(name.as_str()).unwrap())
    };
    assert!(put(Fault::None, &bytes) == (Ok(Put::Present), bytes.clone()));
    assert!(put(Fault::None, b"wrong") == (Err(ErrorKind::Exists), b"wrong".to_vec()));
    assert!(put(Fault::NoConditionOfParts, &bytes) == (Ok(Put::Created), bytes.clone()));
    assert!(put(Fault::NoConditionOfParts, b"wrong") == (Ok(Put::Created), bytes.clone()));
}

#[test]
fn a_service_that_refuses_parts_is_asked_once() {
    for fault in [Fault::RefusesParts, Fault::RefusesConditionOfParts] {
        let engine = Engine::new();
        let store = ready(&engine);
        engine.misbehave(fault);
        for seed in 0..2 {
            let (name, bytes) = pack(seed, LEN);
            assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created, "{fault:?}");
        }
        let log = engine.log();
        assert_eq!((count(&log, "begin"), count(&log, "put")), (1, 2), "{fault:?} {log:?}");
        assert_eq!(engine.uploads(), []);
    }
}

#[test]
fn an_error_inside_a_good_status_is_an_error() {
    let engine = Engine::new();
    let store = ready(&engine);
    let (name, bytes) = pack(5, LEN);
    engine.misbehave(Fault::ErrorsInside);
    assert_eq!(store.put(&name, &bytes).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(engine.get(name.as_str()), None);
    engine.misbehave(Fault::None);
    assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
    assert_eq!(engine.log(), ["look", "complete"], "the parts are there");
}

#[test]
fn an_upload_that_the_service_forgot_begins_anew() {
    let engine = Engine::new();
    let store = ready(&engine);
    let (name, bytes) = pack(6, LEN);
    engine.misbehave(Fault::At(5, Wrong::Busy));
    assert_eq!(store.put(&name, &bytes).unwrap_err().kind(), ErrorKind::Io);
    engine.forget_uploads();
    engine.misbehave(Fault::None);
    assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
    let log = engine.log();
    assert_eq!((count(&log, "begin"), count(&log, "part")), (1, PARTS), "{log:?}");
    assert!(engine.get(name.as_str()).unwrap() == bytes);
}

#[test]
fn over_a_line_that_fails_fewer_parts_go_at_once() {
    let engine = Engine::new();
    let store = ready(&engine);
    let (name, bytes) = pack(7, 32 << 20);
    for most in [4, 2, 1, 1] {
        engine.misbehave(Fault::Parts(Wrong::Busy));
        assert_eq!(store.put(&name, &bytes).unwrap_err().kind(), ErrorKind::Io);
        assert!(engine.most_parts_at_once() <= most, "{} at once, not {most}", engine.most_parts_at_once());
        assert!(count(&engine.log(), "part") <= most, "{:?}", engine.log());
    }
    engine.misbehave(Fault::None);
    assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
    assert_eq!(engine.most_parts_at_once(), 1);
}

#[test]
fn the_end_of_the_store_aborts_what_broke_off() {
    let engine = Engine::new();
    let store = ready(&engine);
    let (name, bytes) = pack(8, LEN);
    engine.misbehave(Fault::At(5, Wrong::Busy));
    assert_eq!(store.put(&name, &bytes).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(engine.uploads(), [(name.to_string(), PARTS)]);
    drop(store);
    assert_eq!(engine.uploads(), []);
}

/// Wants to stop once it is told.
#[derive(Debug, Default)]
struct Switch(AtomicBool);

impl Watch for Switch {
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn waiting(&self, _error: &Error, _left: Duration) {}

    fn answered(&self) {}
}

#[test]
fn whoever_stops_amid_a_pack_leaves_no_parts() {
    let engine = Engine::new();
    let switch = Arc::new(Switch::default());
    let url = "s3://bucket".parse().unwrap();
    let store = S3Store::new(url, &settings(&engine), SILENCE).unwrap();
    let store = store.with_watch(Arc::clone(&switch) as Arc<dyn Watch>);
    store.put(&name("halfhour.json"), b"{}").unwrap();
    engine.misbehave(Fault::SilentParts);
    let (name, bytes) = pack(9, LEN);
    thread::scope(|scope| {
        let put = scope.spawn(|| store.put(&name, &bytes).unwrap_err().kind());
        while engine.uploads().is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        switch.0.store(true, Ordering::SeqCst);
        assert_eq!(put.join().unwrap(), ErrorKind::Cancelled);
    });
    assert_eq!((engine.uploads(), engine.get(name.as_str())), (Vec::new(), None));
}
