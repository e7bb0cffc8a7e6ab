//! The whole contract with a share.

use crate::ObjectName;
use imager_units::{ByteLen, Extent, Result};
use std::time::SystemTime;

/// What a successful `put` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is new.
    Created,
    /// An object of this name with the same bytes was there already.
    Present,
}

/// One listed object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name.
    pub name: ObjectName,
    /// Its length as the share tells it.
    pub len: ByteLen,
    /// When the share received it, by the share's own clock, where whoever wrote it could not choose that.
    pub received: Option<SystemTime>,
}

/// A share. All calls may be made by any number of threads, processes and machines at once.
pub trait Store: Send + Sync {
    /// Where it is, for messages; without secrets.
    fn location(&self) -> String;

    /// Makes an object durable under a name that is free. Of several at once with different bytes, one wins.
    /// Never replaces, never leaves a part of `bytes` under `name` where the share can avoid it.
    ///
    /// # Errors
    /// `Exists` when the name holds other bytes; `OutOfSpace`, `Denied`, `Io` from the share.
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put>;

    /// The bytes of an object.
    ///
    /// # Errors
    /// `NotFound`; `Io`, `Denied` from the share.
    fn get(&self, name: &ObjectName) -> Result<Vec<u8>>;

    /// The bytes of a part of an object, exactly as long as asked.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when the object ends before the part does; `Io`, `Denied` from the share.
    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>>;

    /// The length of an object, `None` when there is none.
    ///
    /// # Errors
    /// `Io`, `Denied` from the share.
    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>>;

    /// Every object whose name starts with the folder `folder` (no `/` at its end; at any depth; `""` for all), in no
    /// order. What is not a name of the grammar (temporary files, a person's notes) is passed over. A folder that is
    /// not there is empty. An object whose `put` returned before the call began is listed.
    ///
    /// # Errors
    /// `Io`, `Denied` from the share; whatever `each` returns ends the listing.
    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// `Io`, `Denied` from the share.
    fn delete(&self, name: &ObjectName) -> Result<()>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: Store + ?Sized> Store for $pointer {
            fn location(&self) -> String {
                (**self).location()
            }

            fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
                (**self).put(name, bytes)
            }

            fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
                (**self).get(name)
            }

            fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
                (**self).get_range(name, part)
            }

            fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
                (**self).len(name)
            }

            fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
                (**self).list(folder, each)
            }

            fn delete(&self, name: &ObjectName) -> Result<()> {
                (**self).delete(name)
            }
        }
    )*};
}

// A borrowed, shared or boxed share is a share.
forward!(&T, std::sync::Arc<T>, Box<T>);
