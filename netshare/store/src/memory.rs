//! A share in memory, for tests.

use crate::{Entry, ObjectName, Put, Store, name};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Objects = BTreeMap<ObjectName, Arc<Vec<u8>>>;

/// Objects in memory; cloning takes a snapshot.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: RwLock<Objects>,
}

impl MemoryStore {
    /// An empty share.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes an object behind everybody's back, as a failing disk would.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn damage(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut objects = self.write();
        let bytes = objects.get_mut(name).ok_or_else(|| absent(name))?;
        change(Arc::make_mut(bytes));
        Ok(())
    }

    fn object(&self, name: &ObjectName) -> Result<Arc<Vec<u8>>> {
        self.read().get(name).cloned().ok_or_else(|| absent(name))
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self { objects: RwLock::new(self.read().clone()) }
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        let mut objects = self.write();
        match objects.get(name) {
            None => {
                objects.insert(name.clone(), Arc::new(bytes.to_vec()));
                Ok(Put::Created)
            }
            Some(there) if there.as_slice() == bytes => Ok(Put::Present),
            Some(_) => Err(Error::new(ErrorKind::Exists, format!("{name} is there with other content"))),
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.object(name).map(|bytes| bytes.to_vec())
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        let bytes = self.object(name)?;
        let range = part.start().get().try_into().ok().zip(part.end().get().try_into().ok());
        let found = range.and_then(|(start, end): (usize, usize)| bytes.get(start..end));
        found
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Error::corrupt(format!("{name} has {} bytes, {part} are wanted", bytes.len())))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        Ok(self.read().get(name).map(|bytes| ByteLen::of(bytes)))
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        name::check_folder(folder)?;
        let objects = self.read().clone();
        let listed = objects.into_iter().filter(|(name, _)| name.is_below(folder));
        listed
            .into_iter()
            .try_for_each(|(name, bytes)| each(Entry { name, len: ByteLen::of(&bytes), received: None }))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.write().remove(name);
        Ok(())
    }
}

fn absent(name: &ObjectName) -> Error {
    Error::new(ErrorKind::NotFound, format!("{name} is not there"))
}

#[cfg(test)]
mod tests {
    use super::MemoryStore;
    use crate::{ObjectName, Store};

    #[test]
    fn a_clone_is_a_snapshot_and_damage_is_seen() {
        let store = MemoryStore::new();
        let name = ObjectName::new("a").unwrap();
        store.put(&name, b"sound").unwrap();
        let snapshot = store.clone();
        store.damage(&name, |bytes| bytes[0] ^= 1).unwrap();
        assert_eq!(store.get(&name).unwrap(), b"round");
        assert_eq!(snapshot.get(&name).unwrap(), b"sound");
    }
}
