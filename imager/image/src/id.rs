//! Names of things: digests and random identifiers, each a type of its own, hexadecimal at the edge only.

use imager_units::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// How many bytes it has.
            pub const LEN: usize = $bytes;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let mut bytes = [0; $bytes];
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if !text.bytes().any(|b| b.is_ascii_uppercase()) => Ok(Self(bytes)),
                    _ => Err(Error::new(
                        ErrorKind::Invalid,
                        concat!("an id of this kind has ", $bytes, " bytes in lower-case hexadecimal"),
                    )),
                }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }
    };
}

macro_rules! random_id {
    ($name:ident) => {
        impl $name {
            /// A new one from the system's random source.
            ///
            /// # Errors
            /// `Io` when the system has no random bytes.
            pub fn random() -> Result<Self> {
                let mut bytes = [0; Self::LEN];
                fill_random(&mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

id!(
    /// A block's identity: keyed BLAKE3 of its bytes with the unmasked ones zero.
    BlockId,
    32
);
id!(
    /// A map node's identity: keyed BLAKE3 of its encoding.
    NodeId,
    32
);
id!(
    /// A pack's name: BLAKE3 of its bytes.
    PackId,
    32
);
id!(
    /// A repository, drawn at `init`.
    RepositoryId,
    16
);
id!(
    /// A capture, drawn when it starts.
    CaptureId,
    16
);
id!(
    /// A key slot.
    SlotId,
    8
);
id!(
    /// Which master key something is sealed with; derived from the key.
    KeyId,
    8
);
random_id!(RepositoryId);
random_id!(CaptureId);
random_id!(SlotId);

/// Fills `bytes` from the system's random source.
///
/// # Errors
/// `Io` when the system has none.
pub fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|e| Error::with_source(ErrorKind::Io, "reading random bytes from the system", e))
}
