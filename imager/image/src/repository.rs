//! `halfhour.json`: what a repository is, immutable from `init` on.

use crate::id::RepositoryId;
use crate::keys::Encryption;
use crate::{BLOCK_BYTES, FORMAT_VERSION};
use imager_units::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "halfhour-repository";

/// The description of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    format: String,
    version: u16,
    min_reader: u16,
    /// Which repository it is.
    pub id: RepositoryId,
    block_bytes: u64,
    encryption: String,
    key_check: String,
    /// When it was made, RFC 3339 UTC.
    pub created: String,
}

impl Description {
    /// The description of a new repository.
    pub fn new(keys: &crate::Keys, id: RepositoryId, created: String) -> Self {
        let encryption = match keys.encryption() {
            Encryption::None => "none",
            Encryption::XChaCha20Poly1305 => "xchacha20poly1305",
        };
        Self {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            min_reader: 1,
            id,
            block_bytes: u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX),
            encryption: encryption.to_owned(),
            key_check: keys.check(),
            created,
        }
    }

    /// As it lies on the share.
    ///
    /// # Errors
    /// None that can happen; serialising a struct of strings does not fail.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encode_json(self)
    }

    /// Reads it from the share.
    ///
    /// # Errors
    /// `Corrupt` when it is not one, `Unsupported` when the repository needs a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let described: Self = decode_json(bytes, "halfhour.json")?;
        if described.format != FORMAT {
            return Err(Error::corrupt("halfhour.json does not describe a repository"));
        }
        if described.min_reader > FORMAT_VERSION {
            return Err(Error::unsupported(format!(
                "the repository needs a reader of format {}; this is {FORMAT_VERSION}",
                described.min_reader
            )));
        }
        if usize::try_from(described.block_bytes) != Ok(BLOCK_BYTES) {
            return Err(Error::unsupported(format!("blocks of {} bytes", described.block_bytes)));
        }
        described.encryption()?;
        Ok(described)
    }

    /// How the repository is sealed.
    ///
    /// # Errors
    /// `Unsupported` when in a way this version does not know.
    pub fn encryption(&self) -> Result<Encryption> {
        match self.encryption.as_str() {
            "none" => Ok(Encryption::None),
            "xchacha20poly1305" => Ok(Encryption::XChaCha20Poly1305),
            other => Err(Error::unsupported(format!("a repository encrypted with {other:?}"))),
        }
    }

    /// Whether these are the repository's keys.
    pub fn accepts(&self, keys: &crate::Keys) -> bool {
        self.key_check == keys.check()
    }
}

/// Any of the repository's JSON documents, for a person to read.
///
/// # Errors
/// `Invalid` when it cannot be expressed, which none of ours is.
pub fn encode_json<T: Serialize>(document: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|e| Error::with_source(ErrorKind::Invalid, "writing JSON", e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads one of the repository's JSON documents, called `what` in errors.
///
/// # Errors
/// `Corrupt` when it is not one.
pub fn decode_json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::with_source(ErrorKind::Corrupt, format!("reading {what}"), e))
}
