//! A share that fails when told to, for tests of everything above.
//!
//! Every call has a number, counted from 1. A run without a fault tells how many there are
//! ([`FaultyStore::calls`]); "the n-th call fails" is then a loop over them.

use crate::{Entry, ObjectName, Put, Store};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Call `nth` fails without effect.
    Fails {
        /// Its number, from 1.
        nth: u64,
        /// As what.
        kind: ErrorKind,
    },
    /// Call `nth` does what it should and then fails: the answer got lost.
    FailsAfter {
        /// Its number, from 1.
        nth: u64,
        /// As what.
        kind: ErrorKind,
    },
    /// Call `nth`, if a put, leaves only the first `len` bytes under the name and fails; if a get, returns only those
    /// bytes as if they were all.
    Truncates {
        /// Its number, from 1.
        nth: u64,
        /// How many bytes remain.
        len: ByteLen,
    },
    /// Call `nth`, if a listing, hands out so many entries and then fails as `Io`.
    Breaks {
        /// Its number, from 1.
        nth: u64,
        /// How many entries come before that.
        after: usize,
    },
    /// Every so many calls, one fails without effect, as `Io`.
    Often {
        /// Every call whose number is a multiple of this.
        every: u64,
    },
    /// From call `nth` on everything fails without effect: the share is gone.
    Gone {
        /// The number of the first call that fails, from 1.
        nth: u64,
        /// As what.
        kind: ErrorKind,
    },
}

/// What a call is to do.
enum Verdict {
    Proceed,
    FailAfter(Error),
    Truncate(usize, Error),
    Break(usize, Error),
}

/// `S` with faults.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Vec<StoreFault>,
    calls: AtomicU64,
}

impl<S: Store> FaultyStore<S> {
    /// A share that has these faults and otherwise behaves as `inner`.
    pub fn new(inner: S, faults: impl IntoIterator<Item = StoreFault>) -> Self {
        Self { inner, faults: faults.into_iter().collect(), calls: AtomicU64::new(0) }
    }

    /// How many calls there were, failed ones included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The share beneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The share beneath.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn next(&self, what: &str) -> Result<Verdict> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let error = |kind| Error::new(kind, format!("{what} on a faulty share (call {number})"));
        for fault in &self.faults {
            match *fault {
                StoreFault::Fails { nth, kind } if nth == number => return Err(error(kind)),
                StoreFault::Gone { nth, kind } if nth <= number => return Err(error(kind)),
                StoreFault::Often { every } if number.is_multiple_of(every) => {
                    return Err(error(ErrorKind::Io));
                }
                StoreFault::Breaks { nth, after } if nth == number => {
                    return Ok(Verdict::Break(after, error(ErrorKind::Io)));
                }
                StoreFault::FailsAfter { nth, kind } if nth == number => {
                    return Ok(Verdict::FailAfter(error(kind)));
                }
                StoreFault::Truncates { nth, len } if nth == number => {
                    return Ok(Verdict::Truncate(len.to_usize().unwrap_or(usize::MAX), error(ErrorKind::Io)));
                }
                _ => {}
            }
        }
        Ok(Verdict::Proceed)
    }

    fn call<T>(&self, what: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.next(what)? {
            Verdict::FailAfter(error) => call().and(Err(error)),
            Verdict::Proceed | Verdict::Truncate(..) | Verdict::Break(..) => call(),
        }
    }

    fn fetch(&self, what: &str, fetch: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        match self.next(what)? {
            Verdict::Proceed | Verdict::Break(..) => fetch(),
            Verdict::FailAfter(error) => fetch().and(Err(error)),
            Verdict::Truncate(len, _) => fetch().map(|mut bytes| {
                bytes.truncate(len);
                bytes
            }),
        }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        match self.next(&format!("put {name}"))? {
            Verdict::Proceed | Verdict::Break(..) => self.inner.put(name, bytes),
            Verdict::FailAfter(error) => self.inner.put(name, bytes).and(Err(error)),
            Verdict::Truncate(len, error) => {
                self.inner.put(name, bytes.get(..len).unwrap_or(bytes)).and(Err(error))
            }
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.fetch(&format!("get {name}"), || self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.fetch(&format!("get {part} of {name}"), || self.inner.get_range(name, part))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.call(&format!("length of {name}"), || self.inner.len(name))
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        match self.next(&format!("list {folder}"))? {
            Verdict::Break(after, error) => {
                let (mut left, mut broken) = (after, Some(error));
                let listed = self.inner.list(folder, &mut |entry| match left.checked_sub(1) {
                    Some(less) => {
                        left = less;
                        each(entry)
                    }
                    None => broken.take().map_or(Ok(()), Err),
                });
                listed.and(broken.map_or(Ok(()), Err))
            }
            Verdict::FailAfter(error) => self.inner.list(folder, each).and(Err(error)),
            Verdict::Proceed | Verdict::Truncate(..) => self.inner.list(folder, each),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.call(&format!("delete {name}"), || self.inner.delete(name))
    }
}

#[cfg(test)]
mod tests {
    use super::{FaultyStore, StoreFault};
    use crate::{MemoryStore, ObjectName, Put, Store};
    use imager_units::{ByteLen, ErrorKind};

    fn store(fault: StoreFault) -> (FaultyStore<MemoryStore>, ObjectName) {
        (FaultyStore::new(MemoryStore::new(), [fault]), ObjectName::new("a").unwrap())
    }

    #[test]
    fn a_lost_answer_is_not_a_lost_put() {
        let (store, name) = store(StoreFault::FailsAfter { nth: 1, kind: ErrorKind::Io });
        assert_eq!(store.put(&name, b"x").unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(store.put(&name, b"x").unwrap(), Put::Present);
    }

    #[test]
    fn a_failed_call_has_no_effect() {
        let (store, name) = store(StoreFault::Fails { nth: 1, kind: ErrorKind::OutOfSpace });
        assert_eq!(store.put(&name, b"x").unwrap_err().kind(), ErrorKind::OutOfSpace);
        assert_eq!(store.put(&name, b"x").unwrap(), Put::Created);
        assert_eq!(store.calls(), 2);
    }

    #[test]
    fn puts_and_gets_are_cut_off() {
        let len = ByteLen::new(2);
        let (cut, name) = store(StoreFault::Truncates { nth: 1, len });
        assert!(cut.put(&name, b"whole").is_err());
        assert_eq!(cut.get(&name).unwrap(), b"wh");
        let (cut, name) = store(StoreFault::Truncates { nth: 2, len });
        cut.put(&name, b"whole").unwrap();
        assert_eq!(cut.get(&name).unwrap(), b"wh");
        assert_eq!(cut.get(&name).unwrap(), b"whole");
    }

    #[test]
    fn a_listing_breaks_off() {
        for (after, expected) in [(0, 0), (1, 1), (5, 2)] {
            let store = FaultyStore::new(MemoryStore::new(), [StoreFault::Breaks { nth: 3, after }]);
            for name in ["a", "b"] {
                store.put(&ObjectName::new(name).unwrap(), b"x").unwrap();
            }
            let mut seen = 0;
            let mut each = |_| {
                seen += 1;
                Ok(())
            };
            assert_eq!(store.list("", &mut each).unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_share_that_is_gone_stays_gone() {
        let (store, name) = store(StoreFault::Gone { nth: 2, kind: ErrorKind::Io });
        store.put(&name, b"x").unwrap();
        assert!(store.get(&name).is_err() && store.delete(&name).is_err() && store.len(&name).is_err());
        assert_eq!(store.into_inner().get(&name).unwrap(), b"x");
    }
}
