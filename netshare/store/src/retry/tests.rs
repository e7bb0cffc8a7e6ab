//! Ten minutes of patience in no time.

use super::persistence::{GLANCE, LONGEST_WAIT, Outage, SHORTEST_WAIT};
use super::{Nobody, Retry, Watch, spell};
use crate::conformance::conformance;
use crate::{
    Clock, Entry, FaultyStore, MemoryStore, ObjectName, Put, RecordingStore, Store, StoreFault, TestClock,
    Verb,
};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(600);

type Faulty = FaultyStore<MemoryStore>;

fn retry<S: Store>(inner: S) -> (Retry<S>, Arc<TestClock>) {
    let clock = Arc::new(TestClock::new(1));
    (Retry::with_clock(inner, PATIENCE, Arc::new(Nobody), Arc::clone(&clock) as Arc<dyn Clock>), clock)
}

fn faulty(faults: impl IntoIterator<Item = StoreFault>) -> (Retry<Faulty>, Arc<TestClock>) {
    retry(FaultyStore::new(MemoryStore::new(), faults))
}

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

const fn fails(nth: u64) -> StoreFault {
    StoreFault::Fails { nth, kind: ErrorKind::Io }
}

fn listed(store: &dyn Store, folder: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    store.list(folder, &mut |entry| {
        names.push(entry.name.to_string());
        Ok(())
    })?;
    Ok(names)
}

#[test]
fn a_share_without_a_fault_is_not_changed() {
    conformance(|| {
        let share = Arc::new(MemoryStore::new());
        Box::new(move || Box::new(retry(Arc::clone(&share)).0))
    });
}

#[test]
fn a_share_that_fails_every_second_call_conforms() {
    conformance(|| {
        let share = Arc::new(MemoryStore::new());
        Box::new(move || {
            let faulty = FaultyStore::new(Arc::clone(&share), [StoreFault::Often { every: 2 }]);
            Box::new(retry(faulty).0)
        })
    });
}

#[test]
fn a_lost_answer_is_found_out_by_asking_again() {
    let lost = |nth| StoreFault::FailsAfter { nth, kind: ErrorKind::Io };
    let (store, _) = faulty([lost(1), lost(3)]);
    let manifest = name("captures/db/1");
    assert_eq!(store.put(&manifest, b"manifest").unwrap(), Put::Present);
    store.delete(&manifest).unwrap();
    assert_eq!(store.len(&manifest).unwrap(), None);
    assert_eq!(store.inner().calls(), 5);
}

#[test]
fn the_shares_word_is_taken_at_once() {
    use ErrorKind::{Cancelled, Corrupt, Denied, Exists, Invalid, Lost, NotFound, OutOfSpace, Unsupported};
    for kind in [Denied, NotFound, Exists, Corrupt, Invalid, OutOfSpace, Unsupported, Cancelled, Lost] {
        let (store, clock) = faulty([StoreFault::Gone { nth: 1, kind }]);
        assert_eq!(store.put(&name("a"), b"x").unwrap_err().kind(), kind);
        assert_eq!(store.get(&name("a")).unwrap_err().kind(), kind);
        assert_eq!(listed(&store, "").unwrap_err().kind(), kind);
        assert_eq!((store.inner().calls(), clock.slept()), (3, Duration::ZERO));
    }
}

#[test]
fn a_share_that_stays_away_is_lost_after_the_patience_and_asked_once_more_each_time() {
    let (store, clock) = faulty([StoreFault::Gone { nth: 1, kind: ErrorKind::Io }]);
    let error = store.put(&name("a"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert_eq!(error.to_string(), "the share memory did not answer for 10 min");
    assert_eq!(clock.slept(), PATIENCE);
    // Waits of half a minute at most, half of that on average.
    let calls = store.inner().calls();
    assert!((25..120).contains(&calls), "{calls} tries");
    assert_eq!(store.get(&name("a")).unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!((store.inner().calls(), clock.slept()), (calls + 1, PATIENCE));
}

#[test]
fn the_patience_starts_anew_after_an_answer() {
    // Each outage alone is shorter than the patience, all of them together are much longer.
    let (store, clock) = faulty((1..400).filter(|nth| nth % 20 != 0).map(fails));
    for _ in 0..20 {
        store.len(&name("a")).unwrap();
    }
    assert!(clock.slept() > PATIENCE * 2, "{:?}", clock.slept());
}

#[test]
fn no_patience_means_one_try() {
    let inner = FaultyStore::new(MemoryStore::new(), [fails(1)]);
    let store = Retry::new(inner, Duration::ZERO, Arc::new(Nobody));
    let error = store.get(&name("a")).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Lost, "the share memory failed"));
    assert_eq!(store.inner().calls(), 1);
}

#[test]
fn a_clock_that_jumps_makes_the_patience_neither_endless_nor_zero() {
    let hour = Duration::from_secs(3600);
    let jumps: [&[Duration]; 5] = [
        &[Duration::ZERO],
        &[hour * 24 * 365 * 100, Duration::ZERO],
        &[Duration::ZERO, hour * 24 * 365 * 100],
        &[hour * 3, hour * 2, hour],
        &[Duration::MAX, Duration::ZERO],
    ];
    for jumps in jumps {
        let (store, clock) = faulty([StoreFault::Gone { nth: 1, kind: ErrorKind::Io }]);
        clock.jump(jumps.iter().copied());
        assert_eq!(store.get(&name("a")).unwrap_err().kind(), ErrorKind::Lost);
        let calls = store.inner().calls();
        assert!((4..200).contains(&calls), "{calls} tries with {jumps:?}");
        assert!(clock.slept() <= PATIENCE);
    }
}

/// Stops after some glances, and writes down what it is told.
#[derive(Debug, Default)]
struct Impatient {
    glances: AtomicUsize,
    stop_after: Option<usize>,
    told: Mutex<Vec<String>>,
}

impl Watch for Impatient {
    fn cancelled(&self) -> bool {
        let glances = self.glances.fetch_add(1, Ordering::SeqCst);
        self.stop_after.is_some_and(|after| glances >= after)
    }

    fn waiting(&self, error: &Error, left: Duration) {
        self.told.lock().unwrap().push(format!("{error}: {}", spell(left)));
    }

    fn answered(&self) {
        self.told.lock().unwrap().push("answered".to_owned());
    }
}

#[test]
fn an_interruption_ends_the_waiting_within_a_second() {
    for after in [0, 1, 7, 100] {
        let watch = Arc::new(Impatient { stop_after: Some(after), ..Impatient::default() });
        let clock = Arc::new(TestClock::new(2));
        let inner = FaultyStore::new(MemoryStore::new(), [StoreFault::Gone { nth: 1, kind: ErrorKind::Io }]);
        let store = Retry::with_clock(inner, PATIENCE, watch, Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(store.get(&name("a")).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(clock.slept() <= GLANCE * u32::try_from(after).unwrap());
    }
}

#[test]
fn a_person_is_told_once_a_minute_and_when_it_is_over() {
    let watch = Arc::new(Impatient::default());
    let clock = Arc::new(TestClock::new(3));
    let inner = FaultyStore::new(MemoryStore::new(), (1..=20).map(fails));
    let store = Retry::with_clock(
        inner,
        PATIENCE,
        Arc::clone(&watch) as Arc<dyn Watch>,
        Arc::clone(&clock) as Arc<dyn Clock>,
    );
    store.put(&name("a"), b"x").unwrap();
    store.put(&name("b"), b"x").unwrap();
    let told = watch.told.lock().unwrap().clone();
    let minutes = usize::try_from(clock.slept().as_secs() / 60).unwrap();
    assert!((2..=minutes + 2).contains(&told.len()), "{told:?} in {:?}", clock.slept());
    assert!(told[0].ends_with(": 9 min"), "{told:?}");
    assert_eq!(told.last().unwrap(), "answered");
    // A hiccup is nobody's business.
    let inner = FaultyStore::new(MemoryStore::new(), [fails(1), fails(2)]);
    let watch = Arc::new(Impatient::default());
    let clock = Arc::new(TestClock::new(3));
    let store = Retry::with_clock(inner, PATIENCE, Arc::clone(&watch) as Arc<dyn Watch>, clock);
    store.put(&name("a"), b"x").unwrap();
    assert!(watch.told.lock().unwrap().is_empty());
}

#[test]
fn waits_grow_and_are_bounded() {
    let mut outage = Outage::default();
    for bound in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
        let mut same = Outage { tries: outage.tries, ..Outage::default() };
        assert!(
            same.pause(u64::MAX) <= Duration::from_millis(bound)
                && outage.pause(bound).as_millis() == bound.into()
        );
    }
    (0..100).for_each(|_| assert!(outage.pause(u64::MAX) <= LONGEST_WAIT));
    assert_eq!(outage.pause(0), SHORTEST_WAIT);
}

/// Lists in another order each time, as a share may.
struct Shuffled<S>(S, AtomicUsize);

impl<S: Store> Store for Shuffled<S> {
    fn location(&self) -> String {
        self.0.location()
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.0.put(name, bytes)
    }
    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.0.get(name)
    }
    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.0.get_range(name, part)
    }
    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.0.len(name)
    }
    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut entries = Vec::new();
        self.0.list(folder, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        let by = self.1.fetch_add(1, Ordering::SeqCst) * 7;
        let len = entries.len().max(1);
        entries.rotate_left(by % len);
        entries.into_iter().try_for_each(each)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.0.delete(name)
    }
}

#[test]
fn a_listing_that_breaks_off_hands_out_everything_once() {
    let memory = MemoryStore::new();
    let names: BTreeSet<String> = (0..50).map(|at| format!("packs/{at}")).collect();
    for at in &names {
        memory.put(&name(at), b"x").unwrap();
    }
    let breaks =
        (1..=30).map(|nth| StoreFault::Breaks { nth, after: usize::try_from(nth * 3 % 50).unwrap() });
    let (store, _) = retry(FaultyStore::new(Shuffled(memory, AtomicUsize::new(0)), breaks));
    let found = listed(&store, "packs").unwrap();
    assert_eq!(found.len(), 50);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
}

#[test]
fn a_listing_that_never_gets_further_is_lost_and_the_callers_error_is_his() {
    let gone = (1..1000).map(|nth| StoreFault::Breaks { nth, after: 1 });
    let memory = MemoryStore::new();
    for at in ["a", "b"] {
        memory.put(&name(at), b"x").unwrap();
    }
    let (store, clock) = retry(FaultyStore::new(memory, gone));
    assert_eq!(listed(&store, "").unwrap_err().kind(), ErrorKind::Lost);
    assert!(clock.slept() >= PATIENCE && clock.slept() < PATIENCE * 2);

    let recorded = RecordingStore::new(MemoryStore::new());
    recorded.put(&name("a"), b"x").unwrap();
    let (store, _) = retry(recorded);
    let mine = |_| Err(Error::new(ErrorKind::Io, "my disk"));
    let error = store.list("", &mut { mine }).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Io, "my disk"));
    assert_eq!(store.inner().count(Verb::List), 1);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8, u8),
    Get(u8),
    Len(u8),
    Delete(u8),
    List,
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..4_u8;
    prop_oneof![
        (at.clone(), 0..3_u8).prop_map(|(at, with)| Step::Put(at, with)),
        at.clone().prop_map(Step::Get),
        at.clone().prop_map(Step::Len),
        at.prop_map(Step::Delete),
        Just(Step::List),
    ]
}

/// About every second call fails in some way.
fn fault() -> impl Strategy<Value = StoreFault> {
    let nth = 1..80_u64;
    prop_oneof![
        nth.clone().prop_map(fails),
        nth.clone().prop_map(|nth| StoreFault::FailsAfter { nth, kind: ErrorKind::Io }),
        (nth, any::<u8>()).prop_map(|(nth, after)| StoreFault::Breaks { nth, after: usize::from(after % 5) }),
    ]
}

proptest! {
    #[test]
    fn a_faulty_share_asked_again_is_a_sound_one(
        steps in proptest::collection::vec(step(), 1..40),
        faults in proptest::collection::vec(fault(), 0..50),
    ) {
        let (store, _) = retry(FaultyStore::new(Shuffled(MemoryStore::new(), AtomicUsize::new(1)), faults));
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(at, with) => {
                    let (at, bytes) = (format!("x/{at}"), vec![with; 9]);
                    let put = store.put(&name(&at), &bytes);
                    match model.get(&at) {
                        None => assert!(put.is_ok()),
                        Some(there) if *there == bytes => assert_eq!(put.unwrap(), Put::Present),
                        Some(_) => assert_eq!(put.unwrap_err().kind(), ErrorKind::Exists),
                    }
                    model.entry(at).or_insert(bytes);
                }
                Step::Get(at) => {
                    let at = format!("x/{at}");
                    assert_eq!(store.get(&name(&at)).ok(), model.get(&at).cloned());
                }
                Step::Len(at) => {
                    let at = format!("x/{at}");
                    assert_eq!(store.len(&name(&at)).unwrap(), model.get(&at).map(|bytes| ByteLen::of(bytes)));
                }
                Step::Delete(at) => {
                    store.delete(&name(&format!("x/{at}"))).unwrap();
                    model.remove(&format!("x/{at}"));
                }
                Step::List => {
                    let mut found = listed(&store, "x").unwrap();
                    found.sort_unstable();
                    assert_eq!(found, model.keys().cloned().collect::<Vec<_>>());
                }
            }
        }
    }
}
