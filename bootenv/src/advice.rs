//! What to do next, carried by an error: the innermost cause of one that this crate makes.

use imager_units::{Error, ErrorKind};
use std::fmt;

/// One sentence of advice.
#[derive(Debug)]
pub struct Advice(String);

impl Advice {
    /// An error that says what to do next.
    pub fn error(kind: ErrorKind, context: impl Into<String>, advice: impl Into<String>) -> Error {
        Error::with_source(kind, context, Self(advice.into()))
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Advice {}
