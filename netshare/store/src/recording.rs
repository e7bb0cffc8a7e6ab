//! A share that keeps a record of the calls, so that a test can say "this took three gets".

use crate::{Entry, ObjectName, Put, Store};
use imager_units::{ByteLen, ErrorKind, Extent, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which of the store's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// `put`
    Put,
    /// `get`
    Get,
    /// `get_range`
    GetRange,
    /// `len`
    Len,
    /// `list`
    List,
    /// `delete`
    Delete,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub verb: Verb,
    /// The object's name, or the folder's.
    pub on: String,
    /// The bytes sent or received; for a listing, of the objects listed: zero.
    pub len: ByteLen,
    /// How it failed, if it did.
    pub failed: Option<ErrorKind>,
}

/// `S`, with a record.
#[derive(Debug, Default)]
pub struct RecordingStore<S> {
    inner: S,
    calls: Mutex<Vec<Call>>,
}

impl<S: Store> RecordingStore<S> {
    /// A share with an empty record.
    pub fn new(inner: S) -> Self {
        Self { inner, calls: Mutex::default() }
    }

    /// The share beneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The calls since the start or the last `take`, in the order in which they ended; the record is then empty.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.lock())
    }

    /// How many calls of this kind are on record.
    pub fn count(&self, verb: Verb) -> usize {
        self.lock().iter().filter(|call| call.verb == verb).count()
    }

    /// The bytes that calls of this kind moved.
    pub fn bytes(&self, verb: Verb) -> ByteLen {
        self.lock().iter().filter(|call| call.verb == verb).map(|call| call.len).sum()
    }

    fn record<T>(&self, verb: Verb, on: &str, result: Result<T>, len: impl Fn(&T) -> ByteLen) -> Result<T> {
        let moved = result.as_ref().map_or(ByteLen::ZERO, len);
        let failed = result.as_ref().err().map(imager_units::Error::kind);
        self.lock().push(Call { verb, on: on.to_owned(), len: moved, failed });
        result
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Store for RecordingStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.record(Verb::Put, name.as_str(), self.inner.put(name, bytes), |_| ByteLen::of(bytes))
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.record(Verb::Get, name.as_str(), self.inner.get(name), |bytes| ByteLen::of(bytes))
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        let result = self.inner.get_range(name, part);
        self.record(Verb::GetRange, name.as_str(), result, |bytes| ByteLen::of(bytes))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.record(Verb::Len, name.as_str(), self.inner.len(name), |_| ByteLen::ZERO)
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.record(Verb::List, folder, self.inner.list(folder, each), |()| ByteLen::ZERO)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.record(Verb::Delete, name.as_str(), self.inner.delete(name), |()| ByteLen::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::{RecordingStore, Verb};
    use crate::{MemoryStore, ObjectName, Store};
    use imager_units::{ByteLen, ErrorKind, Extent};

    #[test]
    fn every_call_is_on_record_with_its_bytes_and_its_failure() {
        let store = RecordingStore::new(MemoryStore::new());
        let name = ObjectName::new("a/b").unwrap();
        assert!(store.get(&name).is_err());
        store.put(&name, b"12345").unwrap();
        store.get_range(&name, Extent::first(ByteLen::new(2))).unwrap();
        store.list("a", &mut |_| Ok(())).unwrap();
        store.delete(&name).unwrap();
        assert_eq!((store.count(Verb::Put), store.bytes(Verb::Put)), (1, ByteLen::new(5)));
        assert_eq!(store.bytes(Verb::GetRange), ByteLen::new(2));
        let calls = store.take();
        assert_eq!(
            calls.iter().map(|call| call.on.as_str()).collect::<Vec<_>>(),
            ["a/b", "a/b", "a/b", "a", "a/b"]
        );
        assert_eq!(calls[0].failed, Some(ErrorKind::NotFound));
        assert!(store.take().is_empty());
    }
}
