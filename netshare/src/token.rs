//! The secret that a client shows: 256 random bits behind a prefix that people and scanners recognise.
//!
//! Only a digest is kept. It needs no salt and no slow function: nobody can try 2^256 secrets. Digests are compared,
//! never secrets, so the time a comparison takes says nothing about a secret.

use imager_units::{Error, ErrorKind, Result};

const PREFIX: &str = "halfhour_";
const SECRET_BYTES: usize = 32;
const CONTEXT: &str = "halfhour 2026-11 share token";

/// A new secret, as text.
///
/// # Errors
/// `Io` when the system has no randomness.
pub(crate) fn generate() -> Result<String> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)
        .map_err(|error| Error::with_source(ErrorKind::Io, "drawing a random token", error))?;
    Ok(format!("{PREFIX}{}", hex::encode(secret)))
}

/// What is kept of a secret. Comparing two takes the same time whatever is in them.
pub(crate) fn digest(token: &str) -> blake3::Hash {
    blake3::Hash::from_bytes(blake3::derive_key(CONTEXT, token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{digest, generate};

    #[test]
    fn tokens_are_recognisable_and_never_the_same() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert!(one.starts_with("halfhour_") && one.len() == 9 + 64, "{one}");
        assert_ne!(one, other);
        assert_ne!(digest(&one), digest(&other));
        assert_ne!(digest(&one).to_hex().as_str(), &one[9..]);
    }
}
