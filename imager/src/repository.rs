//! An open repository: a share, what the repository is, and its keys.

use crate::moved::Moves;
use imager_image::frame::FrameKind;
use imager_image::id::RepositoryId;
use imager_image::keys::{Encryption, MasterKey, Slot, SlotKind};
use imager_image::node::Location;
use imager_image::repository::{Description, decode_json, encode_json};
use imager_image::{Codec, Compression, Keys, PackId, names};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, Result};
use netshare_store::{ObjectName, Put, Store};
use std::sync::Arc;

const READER: &[u8] = include_bytes!("../image/reader/restore.py");
const INSTRUCTIONS: &[u8] = include_bytes!("../image/reader/RESTORE.txt");

/// How much is fetched at once when small frames are read one after the other.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// Asks whose captures are all that may be listed; nobody's in particular, where all may.
pub type OwnMachine = Box<dyn Fn() -> Result<Option<String>> + Send + Sync>;

/// An open repository.
pub struct Repository {
    store: Arc<dyn Store>,
    description: Description,
    keys: Box<Keys>,
    moves: Box<Moves>,
    own_machine: Option<OwnMachine>,
}

/// A repository whose contents are sealed and whose key is not known yet.
pub struct Locked {
    store: Arc<dyn Store>,
    description: Description,
}

/// A repository as found on the share.
pub enum Found {
    /// Nothing is needed to read it.
    Open(Repository),
    /// A passphrase or recovery key is.
    Locked(Locked),
}

/// An object's name from our own grammar.
///
/// # Errors
/// `Invalid` when it is none; names made from ids always are one.
pub fn object(name: impl Into<String>) -> Result<ObjectName> {
    ObjectName::new(name)
}

impl Repository {
    /// Makes a repository on a share that holds none. With a `secret` its contents are encrypted, and the secret
    /// opens the first slot.
    ///
    /// # Errors
    /// `Exists` when there is one already.
    pub fn create(store: Arc<dyn Store>, secret: Option<&[u8]>) -> Result<Self> {
        let name = object(names::DESCRIPTION)?;
        if store.len(&name)?.is_some() {
            let there = format!("{} holds a repository already", store.location());
            return Err(Error::new(ErrorKind::Exists, there));
        }
        let (id, created) = (RepositoryId::random()?, crate::clock::now_rfc3339());
        let (master, encryption) = match secret {
            None => (MasterKey::public(id), Encryption::None),
            Some(_) => (MasterKey::random()?, Encryption::XChaCha20Poly1305),
        };
        let keys = Keys::new(id, &master, encryption);
        let description = Description::new(&keys, id, created.clone());
        if let Some(secret) = secret {
            let label = "first".to_owned();
            let slot = Slot::wrap(id, &master, secret, SlotKind::Passphrase, label, created)?;
            put_new(&*store, names::slot(slot.id), &encode_json(&slot)?)?;
        }
        put_anew(&*store, names::READER, READER)?;
        put_anew(&*store, names::INSTRUCTIONS, INSTRUCTIONS)?;
        // Last: from here on it is a repository.
        put_new(&*store, names::DESCRIPTION.to_owned(), &description.encode()?)?;
        Ok(Self { store, description, keys: keys.into(), moves: Box::default(), own_machine: None })
    }

    /// Finds the repository on a share.
    ///
    /// # Errors
    /// `NotFound` when there is none; `Unsupported` when it needs a newer version; `Corrupt`.
    pub fn find(store: Arc<dyn Store>) -> Result<Found> {
        let bytes = store.get(&object(names::DESCRIPTION)?).map_err(|error| {
            // Whoever is refused or cannot reach it does not know whether there is one.
            let what = match error.kind() {
                ErrorKind::NotFound => "there is no repository at",
                _ => "opening the repository at",
            };
            error.within(format!("{what} {}", store.location()))
        })?;
        let description = Description::decode(&bytes)?;
        if description.encryption()? != Encryption::None {
            return Ok(Found::Locked(Locked { store, description }));
        }
        let master = MasterKey::public(description.id);
        let keys = Keys::new(description.id, &master, Encryption::None);
        if !description.accepts(&keys) {
            return Err(Error::corrupt("halfhour.json does not fit its own id"));
        }
        Ok(Found::Open(Self {
            store,
            description,
            keys: keys.into(),
            moves: Box::default(),
            own_machine: None,
        }))
    }

    /// The same, opened by somebody who may list the captures of one machine only, which `ask` tells when it matters.
    #[must_use]
    pub fn with_own_machine(self, ask: OwnMachine) -> Self {
        Self { own_machine: Some(ask), ..self }
    }

    /// The machine whose captures are all that whoever opened it may list, where that is so.
    pub(crate) fn own_machine(&self) -> Result<Option<String>> {
        self.own_machine.as_ref().map_or(Ok(None), |ask| ask())
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.description.id
    }

    /// Whether its contents are sealed.
    pub fn encryption(&self) -> Encryption {
        self.keys.encryption()
    }

    /// The share it lies on.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// What is known of moved frames.
    pub(crate) fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What one thread seals and opens frames with.
    ///
    /// # Errors
    /// `OutOfSpace` without memory for it.
    pub fn codec(&self, compression: Compression) -> Result<Codec<'_>> {
        Codec::new(&self.keys, compression)
    }

    /// A reader of frames for one thread.
    ///
    /// # Errors
    /// `OutOfSpace` without memory for it.
    pub fn frames(&self) -> Result<FrameReader<'_>> {
        Ok(FrameReader { repository: self, codec: self.codec(Compression::Fast)?, ahead: None })
    }
}

impl Locked {
    /// The key slots.
    ///
    /// # Errors
    /// `Io` from the share. A damaged slot is passed over: another may open.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        slots(&*self.store)
    }

    /// Opens the repository with a passphrase or recovery key; `None` when it opens no slot.
    ///
    /// # Errors
    /// `Io` from the share; `Corrupt` when a slot opens to a key that is not the repository's.
    pub fn open(self, secret: &[u8]) -> Result<Result<Repository, Self>> {
        let Some(master) = self.unwrap(secret)? else { return Ok(Err(self)) };
        let keys = Keys::new(self.description.id, &master, self.description.encryption()?);
        if !self.description.accepts(&keys) {
            return Err(Error::corrupt("a key slot holds the key of another repository"));
        }
        let (store, description) = (self.store, self.description);
        Ok(Ok(Repository { store, description, keys: keys.into(), moves: Box::default(), own_machine: None }))
    }

    /// The master key that `secret` opens.
    ///
    /// # Errors
    /// `Io` from the share.
    pub fn unwrap(&self, secret: &[u8]) -> Result<Option<MasterKey>> {
        for slot in self.slots()? {
            match self.unwrap_slot(&slot, secret) {
                Ok(Some(master)) => return Ok(Some(master)),
                Ok(None) => {}
                // One slot that cannot be used must not lock out those that can.
                Err(error) => tracing::warn!("key slot {} is passed over: {error}", slot.id),
            }
        }
        Ok(None)
    }

    /// Adds a slot that `secret` opens.
    ///
    /// # Errors
    /// `Io`, `OutOfSpace`, `Denied` from the share.
    pub fn add_slot(
        &self,
        master: &MasterKey,
        secret: &[u8],
        kind: SlotKind,
        label: String,
    ) -> Result<imager_image::id::SlotId> {
        let created = crate::clock::now_rfc3339();
        let slot = Slot::wrap(self.description.id, master, secret, kind, label, created)?;
        put_new(&*self.store, names::slot(slot.id), &encode_json(&slot)?)?;
        Ok(slot.id)
    }

    /// The master key, if `secret` opens this slot. A recovery key does however it is typed.
    fn unwrap_slot(&self, slot: &Slot, secret: &[u8]) -> Result<Option<MasterKey>> {
        let typed = String::from_utf8_lossy(secret).trim().to_lowercase();
        match slot.kind {
            SlotKind::Passphrase => slot.unwrap(self.description.id, secret),
            SlotKind::Recovery => slot.unwrap(self.description.id, typed.as_bytes()),
        }
    }

    /// Removes a slot, once `secret` has shown that there is another that opens: what lies beside it may be damaged, or
    /// of another repository. Says whether the secret opens anything.
    ///
    /// # Errors
    /// `NotFound` when there is none of that id; `Denied` when it is the only one, or the only one that `secret` opens.
    pub fn remove_slot(&self, id: imager_image::id::SlotId, secret: &[u8]) -> Result<bool> {
        let slots = self.slots()?;
        if !slots.iter().any(|slot| slot.id == id) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no key slot {id}")));
        }
        if slots.len() < 2 {
            let last = "this is the last key slot: without it nothing in the repository can ever be read";
            return Err(Error::new(ErrorKind::Denied, last));
        }
        let opens = |slot: &&Slot| matches!(self.unwrap_slot(slot, secret), Ok(Some(_)));
        let (this, others): (Vec<_>, Vec<_>) = slots.iter().partition(|slot| slot.id == id);
        if others.into_iter().any(|slot| opens(&slot)) {
            self.store.delete(&object(names::slot(id))?)?;
            return Ok(true);
        }
        if this.iter().any(opens) {
            let what =
                "a key is removed by whoever holds another: this one opens no slot but the one to be removed";
            return Err(Error::new(ErrorKind::Denied, what));
        }
        Ok(false)
    }
}

fn slots(store: &dyn Store) -> Result<Vec<Slot>> {
    let mut found = Vec::new();
    store.list(names::KEYS, &mut |entry| {
        match store.get(&entry.name).and_then(|bytes| decode_json(&bytes, "a key slot")) {
            Ok(slot) => found.push(slot),
            Err(error) => tracing::warn!("key slot {} is passed over: {error}", entry.name),
        }
        Ok(())
    })?;
    found.sort_by(|a: &Slot, b| a.created.cmp(&b.created).then(a.id.cmp(&b.id)));
    Ok(found)
}

fn put_new(store: &dyn Store, name: String, bytes: &[u8]) -> Result<Put> {
    store.put(&object(name)?, bytes)
}

/// Puts what another attempt (or another version's) may have left behind, whole or in part.
fn put_anew(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<Put> {
    match put_new(store, name.to_owned(), bytes) {
        Err(error) if error.kind() == ErrorKind::Exists => {
            store.delete(&object(name)?)?;
            put_new(store, name.to_owned(), bytes)
        }
        put => put,
    }
}

/// Reads frames of packs for one thread. Frames that lie behind one another are fetched together.
pub struct FrameReader<'r> {
    repository: &'r Repository,
    codec: Codec<'r>,
    ahead: Option<Ahead>,
}

struct Ahead {
    pack: PackId,
    extent: Extent,
    bytes: Vec<u8>,
}

impl FrameReader<'_> {
    /// What the frame at `location` holds, or where it moved. Fetches some of what lies behind it too.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged, `NotFound` when its pack is gone; `Io`, `Denied` from the share.
    pub fn open(&mut self, kind: FrameKind, location: &Location) -> Result<Vec<u8>> {
        let repository = self.repository;
        repository.follow(location, |place| self.open_at(kind, place))
    }

    fn open_at(&mut self, kind: FrameKind, location: &Location) -> Result<Vec<u8>> {
        let wanted = location.frame.extent();
        let held = |ahead: &Ahead| ahead.pack == location.pack.id && ahead.extent.contains(wanted);
        if !self.ahead.as_ref().is_some_and(held) {
            self.ahead = None;
            let end = wanted.start().saturating_add(wanted.len().max(ByteLen::new(READ_AHEAD_BYTES)));
            let end = end.min(ByteOffset::new(location.pack.len.into()));
            match self.fetch(location.pack.id, Extent::between(wanted.start(), end)) {
                // A pack that was cut short may still hold this frame.
                Err(error) if error.kind() == ErrorKind::Corrupt => self.fetch(location.pack.id, wanted)?,
                fetched => fetched?,
            }
        }
        let ahead = self.ahead.as_ref().ok_or_else(|| Error::corrupt("a frame outside its pack"))?;
        let from = wanted.start().saturating_since(ahead.extent.start()).to_usize().unwrap_or(usize::MAX);
        let len = wanted.len().to_usize().unwrap_or(usize::MAX);
        let frame = ahead.bytes.get(from..).and_then(|rest| rest.get(..len));
        let frame = frame.ok_or_else(|| Error::corrupt("a frame outside its pack"))?;
        self.codec.open(kind, frame).context(|| format!("pack {} at {wanted}", location.pack.id))
    }

    /// Fetches the frames that `span` covers, so that opening them needs no further call to the share.
    ///
    /// # Errors
    /// As `open`.
    pub fn fetch(&mut self, pack: PackId, extent: Extent) -> Result<()> {
        let bytes = self.repository.store.get_range(&object(names::pack(pack))?, extent)?;
        self.ahead = Some(Ahead { pack, extent, bytes });
        Ok(())
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        self.repository
    }
}
