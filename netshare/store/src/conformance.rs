//! What every kind of share must do, as one function that takes any.
//!
//! Written against [`Store`] alone, so that a share of another crate can be put through it. Each share has two clients,
//! because what one process remembers of a share is no property of the share.

#![expect(clippy::unwrap_used, reason = "a share that breaks the contract ends the test")]

use crate::{Entry, ObjectName, Put, Store};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent};
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const THREADS: u8 = 12;

/// More objects than any known share lists in one answer.
const MANY: usize = 1050;

/// A share for as long as this value lives; every call opens another client of it.
pub type Clients = Box<dyn Fn() -> Box<dyn Store>>;

/// Puts the shares that `make` creates (each new and empty) through the whole contract.
///
/// # Panics
/// Where a share breaks it.
pub fn conformance(make: impl Fn() -> Clients) {
    let one = |check: fn(&dyn Store)| {
        let clients = make();
        check(&*clients());
    };
    one(objects_come_back_as_they_were_put);
    one(ranges_are_exact_or_errors);
    one(a_name_is_never_given_twice);
    one(deleting_is_repeatable);
    one(listings_have_all_below_a_folder_and_nothing_else);
    one(a_listing_ends_at_the_callers_error);
    one(names_of_every_folder_are_kept_apart);
    one(a_large_object_comes_back);
    one(a_listing_of_many_is_whole);
    let two = |check: fn(&dyn Store, &dyn Store)| {
        let clients = make();
        check(&*clients(), &*clients());
    };
    two(what_one_client_did_the_other_sees);
    two(of_many_writers_one_wins);
    two(equal_writers_all_succeed);
    two(no_reader_sees_a_part);
    two(a_listing_is_sound_while_others_put_and_delete);
}

/// The clients of a share that is one value.
pub fn clients_of(store: impl Store + 'static) -> Clients {
    let store = std::sync::Arc::new(store);
    Box::new(move || Box::new(std::sync::Arc::clone(&store)))
}

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn part(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
}

/// Bytes that are told apart by `seed`.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

fn listed(store: &dyn Store, folder: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut each = |Entry { name, len, .. }| {
        assert!(found.insert(name.to_string(), len.get()).is_none(), "{name} is listed twice");
        Ok(())
    };
    store.list(folder, &mut each).unwrap();
    found
}

fn objects_come_back_as_they_were_put(store: &dyn Store) {
    assert!(!store.location().is_empty());
    let sizes = [0, 1, 4095, 4096, 65_537, (3 << 20) + 5];
    for (seed, size) in (0..).zip(sizes) {
        let (name, bytes) = (name(&format!("packs/{seed:02}/{size}")), pattern(seed, size));
        assert_eq!(store.len(&name).unwrap(), None);
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
        assert_eq!(store.len(&name).unwrap(), Some(ByteLen::of(&bytes)));
        assert!(store.get(&name).unwrap() == bytes);
    }
    for absent in ["packs/00/absent", "packs/99/0", "absent", "packs"] {
        assert_eq!(store.get(&name(absent)).unwrap_err().kind(), ErrorKind::NotFound, "{absent}");
        assert_eq!(
            store.get_range(&name(absent), part(0, 1)).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{absent}"
        );
        assert_eq!(store.len(&name(absent)).unwrap(), None, "{absent}");
    }
}

fn ranges_are_exact_or_errors(store: &dyn Store) {
    let (name, bytes) = (name("index/a"), pattern(7, 10_000));
    store.put(&name, &bytes).unwrap();
    for (start, len) in [(0, 0), (0, 1), (9_999, 1), (0, 10_000), (4_000, 500), (10_000, 0)] {
        let range = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
        assert_eq!(store.get_range(&name, part(start, len)).unwrap(), bytes[range]);
    }
    for (start, len) in [(0, 10_001), (9_999, 2), (10_001, 1), (1 << 40, 1 << 50)] {
        assert_eq!(store.get_range(&name, part(start, len)).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

fn a_name_is_never_given_twice(store: &dyn Store) {
    for name in ["captures/db/1", "packs/aa/1", "top"].map(name) {
        let bytes = pattern(1, 100_000);
        let mut other = bytes.clone();
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
        assert_eq!(store.put(&name, &bytes).unwrap(), Put::Present);
        other[99_999] ^= 1;
        for other in [&other[..], &bytes[..99_999], &[]] {
            assert_eq!(store.put(&name, other).unwrap_err().kind(), ErrorKind::Exists);
        }
        assert!(store.get(&name).unwrap() == bytes);
    }
}

fn deleting_is_repeatable(store: &dyn Store) {
    let name = name("leases/a");
    store.delete(&name).unwrap();
    store.put(&name, b"1").unwrap();
    store.delete(&name).unwrap();
    store.delete(&name).unwrap();
    assert_eq!(store.get(&name).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(listed(store, "").is_empty());
    assert_eq!(store.put(&name, b"2").unwrap(), Put::Created);
    assert_eq!(store.get(&name).unwrap(), b"2");
}

fn listings_have_all_below_a_folder_and_nothing_else(store: &dyn Store) {
    assert!(listed(store, "").is_empty() && listed(store, "packs").is_empty());
    let names = ["halfhour.json", "packs-2/d", "packs/00/a", "packs/00/b", "packs/ff/c", "w/x/y/z"];
    for (size, name) in (0..).zip(names.map(name)) {
        store.put(&name, &pattern(0, size)).unwrap();
    }
    for (folder, expected) in [
        ("", &names[..]),
        ("packs", &names[2..5]),
        ("packs/00", &names[2..4]),
        ("w/x/y", &names[5..]),
        ("w/x/y/z", &[]),
        ("halfhour.json", &[]),
        ("pack", &[]),
        ("packs/00/a/b", &[]),
    ] {
        let found = listed(store, folder);
        assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), expected, "below {folder:?}");
        assert!(found.iter().all(|(name, &len)| names[usize::try_from(len).unwrap()] == name));
    }
    for folder in ["packs/", "/", "..", "packs/../packs", "a/b/c/d/e", ".tmp"] {
        let error = store.list(folder, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{folder:?}");
    }
}

fn a_listing_ends_at_the_callers_error(store: &dyn Store) {
    for at in ["a/1", "a/2", "a/3"] {
        store.put(&name(at), b"").unwrap();
    }
    let mut seen = 0;
    let stop = |_| {
        seen += 1;
        Err(imager_units::Error::new(ErrorKind::Cancelled, "enough"))
    };
    assert_eq!(store.list("a", &mut { stop }).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(seen, 1);
}

fn of_many_writers_one_wins(store: &dyn Store, other: &dyn Store) {
    for round in 0..8 {
        let name = name(&format!("captures/race/{round}"));
        let results = race(|thread| {
            let client = if thread % 2 == 0 { store } else { other };
            client.put(&name, &pattern(thread.into(), 20_000))
        });
        let winners: Vec<_> =
            (0..).zip(&results).filter(|(_, result)| result.is_ok()).map(|(at, _)| at).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(store.get(&name).unwrap() == pattern(winners[0], 20_000));
        let losers = results.iter().filter_map(|result| result.as_ref().err());
        losers.for_each(|error| assert_eq!(error.kind(), ErrorKind::Exists));
    }
    assert_eq!(listed(store, "captures").len(), 8);
}

fn equal_writers_all_succeed(store: &dyn Store, other: &dyn Store) {
    for round in 0..8 {
        let name = name(&format!("packs/{round:02}/x"));
        let bytes = pattern(round, 200_000);
        let results = race(|thread| {
            let client = if thread % 2 == 0 { store } else { other };
            client.put(&name, &bytes).unwrap()
        });
        assert!(results.contains(&Put::Created));
        assert!(store.get(&name).unwrap() == bytes);
    }
}

fn race<T: Send>(run: impl Fn(u8) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS.into());
    let (run, start) = (&run, &start);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn(move || {
                    start.wait();
                    run(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn no_reader_sees_a_part(store: &dyn Store, writer: &dyn Store) {
    let (name, bytes, done) = (name("packs/00/seen"), pattern(1, 300_000), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..40 {
                writer.put(&name, &bytes).unwrap();
                writer.delete(&name).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            match store.get(&name) {
                Ok(found) => assert!(found == bytes, "{} of {} bytes", found.len(), bytes.len()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
            for (found, len) in listed(store, "packs") {
                assert_eq!((found.as_str(), len), (name.as_str(), 300_000));
            }
        }
    });
}

fn names_of_every_folder_are_kept_apart(store: &dyn Store) {
    let long = ["a", "b"].map(|letter| letter.repeat(100)).join("/");
    let names = [
        "halfhour.json",
        "RESTORE.txt",
        "restore.py",
        "keys/0a1b",
        "captures/db-01/20261121T031500Z-0a1b2c3d",
        "packs/7f/7f00",
        "index/7f00",
        "leases/7f00",
        "trash/7f00",
        "moved/7f00",
        "damaged/7f00",
        "holds/7f00",
        "checks/7f00/20261121T031500Z",
        "reports/db-01/20261121T031500Z",
        "w/x/y/z._-Z9",
        "w/x-1/y",
        "w/x.1/y",
        "w/x1/y",
        &long,
    ]
    .map(name);
    for name in &names {
        assert_eq!(store.put(name, name.as_str().as_bytes()).unwrap(), Put::Created, "{name}");
    }
    let mut found = BTreeMap::new();
    for name in &names {
        assert_eq!(store.get(name).unwrap(), name.as_str().as_bytes());
        let folder = name.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
        found.extend(listed(store, folder));
        assert_eq!(found.get(name.as_str()), Some(&(name.as_str().len() as u64)), "below {folder:?}");
    }
    assert_eq!(found, listed(store, ""));
    assert_eq!(listed(store, "w/x").keys().collect::<Vec<_>>(), ["w/x/y/z._-Z9"]);
}

fn a_large_object_comes_back(store: &dyn Store) {
    let (name, bytes) = (name("packs/00/large"), pattern(3, 32 << 20));
    assert_eq!(store.put(&name, &bytes).unwrap(), Put::Created);
    assert_eq!(store.put(&name, &bytes).unwrap(), Put::Present);
    assert!(store.get(&name).unwrap() == bytes);
    let middle = store.get_range(&name, part(16 << 20, 300_000)).unwrap();
    assert!(middle == bytes[16 << 20..][..300_000]);
    assert_eq!(store.put(&name, &bytes[1..]).unwrap_err().kind(), ErrorKind::Exists);
}

fn a_listing_of_many_is_whole(store: &dyn Store) {
    race(|thread| {
        for at in (0..MANY).filter(|at| at % usize::from(THREADS) == usize::from(thread)) {
            store.put(&name(&format!("trash/{at:04}")), b"").unwrap();
        }
    });
    for folder in ["", "trash"] {
        assert_eq!(listed(store, folder).len(), MANY, "below {folder:?}");
    }
}

fn what_one_client_did_the_other_sees(one: &dyn Store, other: &dyn Store) {
    for at in 0..20 {
        let (name, bytes) = (name(&format!("captures/db/{at}")), pattern(at, 1000));
        // Looking before it is there, so that nobody remembers that it is not.
        assert_eq!(other.len(&name).unwrap(), None);
        assert_eq!(other.get(&name).unwrap_err().kind(), ErrorKind::NotFound);
        one.put(&name, &bytes).unwrap();
        assert_eq!(other.len(&name).unwrap(), Some(ByteLen::of(&bytes)));
        assert_eq!(listed(other, "captures").get(name.as_str()), Some(&1000));
        assert!(other.get(&name).unwrap() == bytes);
        assert_eq!(other.put(&name, &bytes).unwrap(), Put::Present);
        assert_eq!(other.put(&name, b"x").unwrap_err().kind(), ErrorKind::Exists);
        other.delete(&name).unwrap();
        assert_eq!(one.len(&name).unwrap(), None);
        assert!(listed(one, "captures").is_empty());
        assert_eq!(one.put(&name, b"other").unwrap(), Put::Created);
        assert_eq!(other.get(&name).unwrap(), b"other");
        one.delete(&name).unwrap();
    }
}

fn a_listing_is_sound_while_others_put_and_delete(store: &dyn Store, writer: &dyn Store) {
    let stays = |at: usize| format!("index/{at:02}5");
    for at in 0..20 {
        store.put(&name(&stays(at)), &pattern(0, at)).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..120 {
                let name = name(&format!("index/{:02}{}", at % 20, at % 4));
                writer.put(&name, &pattern(0, 99)).unwrap();
                if at % 3 > 0 {
                    writer.delete(&name).unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let found = listed(store, "index");
            for at in 0..20 {
                assert_eq!(found.get(&stays(at)), Some(&(at as u64)), "what stays is listed");
            }
            assert!(found.iter().all(|(name, &len)| name.ends_with('5') || len == 99), "{found:?}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{clients_of, conformance};
    use crate::{FaultyStore, MemoryStore, RecordingStore, Store};
    use std::sync::Arc;

    #[test]
    fn memory_conforms() {
        conformance(|| clients_of(MemoryStore::new()));
    }

    #[test]
    fn decorators_without_a_fault_change_nothing() {
        conformance(|| {
            let share = Arc::new(MemoryStore::new());
            Box::new(move || Box::new(RecordingStore::new(FaultyStore::new(Arc::clone(&share), []))))
        });
        conformance(|| {
            let boxed: Box<dyn Store> = Box::new(MemoryStore::new());
            clients_of(boxed)
        });
    }
}
