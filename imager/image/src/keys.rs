//! Keys: one random master key a repository, subkeys for each purpose, slots that wrap it.
//!
//! An encrypted repository's master key exists on the share only wrapped by slots (`keys/<id>`): Argon2id turns a
//! passphrase or recovery key into a wrapping key. A plain repository has a master key too, derived from its public
//! id: everything then works the same way, but keeps out nobody.

use crate::id::{BlockId, KeyId, NodeId, RepositoryId, SlotId, fill_random};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use imager_units::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Argon2id's memory at most, in KiB: 64 MiB, so that a slot from a hostile share cannot exhaust a rescue system.
const ARGON2_MOST_KIB: u32 = 65_536;
/// Argon2id's passes at most.
const ARGON2_MOST_PASSES: u32 = 16;
/// Argon2id's passes in slots we make.
const ARGON2_PASSES: u32 = 3;

/// The master key.
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// Everything derived from the master key.
pub struct Keys {
    repository: RepositoryId,
    key_id: KeyId,
    blocks: Zeroizing<[u8; 32]>,
    nodes: Zeroizing<[u8; 32]>,
    check: Zeroizing<[u8; 32]>,
    sealing: Option<Sealing>,
}

/// The ciphers of an encrypted repository.
pub(crate) struct Sealing {
    pub(crate) frames: XChaCha20Poly1305,
    pub(crate) manifests: XChaCha20Poly1305,
}

/// Whether the repository's contents are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Digests only.
    None,
    /// XChaCha20-Poly1305.
    XChaCha20Poly1305,
}

impl MasterKey {
    /// A new one for an encrypted repository.
    ///
    /// # Errors
    /// `Io` when the system has no random bytes.
    pub fn random() -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        fill_random(key.as_mut_slice())?;
        Ok(Self(key))
    }

    /// The public one of a plain repository.
    pub fn public(repository: RepositoryId) -> Self {
        Self(derive("public master key", &repository.0))
    }
}

impl Keys {
    /// Derives the subkeys.
    pub fn new(repository: RepositoryId, master: &MasterKey, encryption: Encryption) -> Self {
        let sub = |purpose: &str| derive(purpose, master.0.as_slice());
        let cipher = |purpose: &str| XChaCha20Poly1305::new(&Key::from(*sub(purpose)));
        let mut key_id = KeyId([0; KeyId::LEN]);
        key_id.0.iter_mut().zip(sub("key id").iter()).for_each(|(to, from)| *to = *from);
        Self {
            repository,
            key_id,
            blocks: sub("block ids"),
            nodes: sub("node ids"),
            check: sub("key check"),
            sealing: (encryption == Encryption::XChaCha20Poly1305)
                .then(|| Sealing { frames: cipher("frames"), manifests: cipher("manifests") }),
        }
    }

    /// The identity of a block whose unmasked bytes are already zero.
    pub fn block_id(&self, masked: &[u8]) -> BlockId {
        BlockId(*blake3::keyed_hash(&self.blocks, masked).as_bytes())
    }

    /// The identity of an encoded map node.
    pub fn node_id(&self, encoded: &[u8]) -> NodeId {
        NodeId(*blake3::keyed_hash(&self.nodes, encoded).as_bytes())
    }

    /// What `halfhour.json` holds so that a wrong key is noticed at once.
    pub fn check(&self) -> String {
        hex::encode(blake3::keyed_hash(&self.check, &self.repository.0).as_bytes())
    }

    /// Whether contents are sealed.
    pub fn encryption(&self) -> Encryption {
        if self.sealing.is_some() { Encryption::XChaCha20Poly1305 } else { Encryption::None }
    }

    pub(crate) fn sealing(&self) -> Option<&Sealing> {
        self.sealing.as_ref()
    }

    /// Repository, kind of object and key, so that no sealed object can stand in for one of another kind or place.
    /// Not the pack: frames move.
    pub(crate) fn associated_data(&self, kind: u8) -> [u8; 25] {
        let mut data = [0; 25];
        let parts = self.repository.0.iter().chain([&kind]).chain(&self.key_id.0);
        data.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        data
    }
}

/// What opens a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotKind {
    /// A passphrase a person chose.
    Passphrase,
    /// A random key printed once.
    Recovery,
}

/// `keys/<id>`: the master key, wrapped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// Its own id, which is its name.
    pub id: SlotId,
    /// What opens it.
    pub kind: SlotKind,
    /// A person's name for it.
    pub label: String,
    /// When it was made, RFC 3339 UTC.
    pub created: String,
    kdf: Kdf,
    nonce: String,
    wrapped: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kdf {
    name: String,
    m_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
}

impl Slot {
    /// Wraps `master` so that `secret` opens it.
    ///
    /// # Errors
    /// `Io` when the system has no random bytes.
    pub fn wrap(
        repository: RepositoryId,
        master: &MasterKey,
        secret: &[u8],
        kind: SlotKind,
        label: String,
        created: String,
    ) -> Result<Self> {
        let (mut salt, mut nonce) = ([0; 16], [0; 24]);
        fill_random(&mut salt)?;
        fill_random(&mut nonce)?;
        let name = "argon2id".to_owned();
        let kdf =
            Kdf { name, m_kib: ARGON2_MOST_KIB, passes: ARGON2_PASSES, lanes: 1, salt: hex::encode(salt) };
        let payload = Payload { msg: master.0.as_slice(), aad: &slot_data(repository) };
        let wrapped = XChaCha20Poly1305::new(&Key::from(*kdf.stretch(secret)?))
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::new(ErrorKind::Invalid, "wrapping the master key"))?;
        let (nonce, wrapped) = (hex::encode(nonce), hex::encode(wrapped));
        Ok(Self { id: SlotId::random()?, kind, label, created, kdf, nonce, wrapped })
    }

    /// The master key, or `None` when `secret` does not open this slot.
    ///
    /// # Errors
    /// `Corrupt` when the slot is malformed, `Unsupported` when its parameters exceed what we accept.
    pub fn unwrap(&self, repository: RepositoryId, secret: &[u8]) -> Result<Option<MasterKey>> {
        let nonce: [u8; 24] = unhex(&self.nonce)?;
        let wrapped: [u8; 48] = unhex(&self.wrapped)?;
        let payload = Payload { msg: &wrapped, aad: &slot_data(repository) };
        let opened = XChaCha20Poly1305::new(&Key::from(*self.kdf.stretch(secret)?))
            .decrypt(&XNonce::from(nonce), payload)
            .map(Zeroizing::new);
        let Ok(opened) = opened else { return Ok(None) };
        let mut key = Zeroizing::new([0; 32]);
        key.iter_mut().zip(opened.iter()).for_each(|(to, from)| *to = *from);
        Ok(Some(MasterKey(key)))
    }
}

impl Kdf {
    fn stretch(&self, secret: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let sane = self.name == "argon2id"
            && (8..=ARGON2_MOST_KIB).contains(&self.m_kib)
            && (1..=ARGON2_MOST_PASSES).contains(&self.passes)
            && self.lanes == 1;
        if !sane {
            return Err(Error::unsupported("a key slot with parameters outside what this version accepts"));
        }
        let salt: [u8; 16] = unhex(&self.salt)?;
        let mut key = Zeroizing::new([0; 32]);
        Params::new(self.m_kib, self.passes, self.lanes, Some(32))
            .and_then(|params| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                    secret,
                    &salt,
                    key.as_mut_slice(),
                )
            })
            .map_err(|e| Error::new(ErrorKind::Invalid, format!("argon2id: {e}")))?;
        Ok(key)
    }
}

fn slot_data(repository: RepositoryId) -> [u8; 24] {
    let mut data = [0; 24];
    data.iter_mut().zip(repository.0.iter().chain(b"key slot")).for_each(|(to, from)| *to = *from);
    data
}

fn unhex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|e| Error::with_source(ErrorKind::Corrupt, "a key slot's field", e))?;
    Ok(bytes)
}

fn derive(purpose: &str, material: &[u8]) -> Zeroizing<[u8; 32]> {
    // BLAKE3 asks for a context that is unique to the application and the purpose.
    Zeroizing::new(blake3::derive_key(&format!("halfhour 2026-11 {purpose}"), material))
}

#[cfg(test)]
mod tests {
    use super::{Encryption, Keys, MasterKey, Slot, SlotKind};
    use crate::id::RepositoryId;

    #[test]
    fn a_slot_opens_with_its_secret_only_and_in_its_repository_only() {
        let (here, there) = (RepositoryId([1; 16]), RepositoryId([2; 16]));
        let master = MasterKey::random().unwrap();
        let slot = Slot::wrap(here, &master, b"correct", SlotKind::Passphrase, String::new(), String::new())
            .unwrap();
        let opened = slot.unwrap(here, b"correct").unwrap().unwrap();
        let check = |key| Keys::new(here, key, Encryption::XChaCha20Poly1305).check();
        assert_eq!(check(&opened), check(&master));
        assert!(slot.unwrap(here, b"wrong").unwrap().is_none());
        assert!(slot.unwrap(there, b"correct").unwrap().is_none());
    }

    #[test]
    fn a_slot_that_asks_for_too_much_memory_is_refused() {
        let master = MasterKey::public(RepositoryId([1; 16]));
        let repository = RepositoryId([1; 16]);
        let mut slot =
            Slot::wrap(repository, &master, b"x", SlotKind::Recovery, String::new(), String::new()).unwrap();
        slot.kdf.m_kib = u32::MAX;
        assert!(slot.unwrap(repository, b"x").is_err());
    }
}
