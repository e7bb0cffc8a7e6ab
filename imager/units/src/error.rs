//! One error shape for the workspace: what kind, on what, and because of which other error.
//!
//! The kind is for code (exit status, retry or not), the context for people. A message is lower-case, has no full
//! stop and never repeats its source; whoever shows an error prints the chain.

use std::fmt;

/// What is to blame, which decides what a caller may do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The device, the file or the share failed.
    Io,
    /// The share was lost: what was being done can be done again, and continues.
    Lost,
    /// The data is damaged or contradicts itself.
    Corrupt,
    /// The data may be sound, but this version does not know it.
    Unsupported,
    /// The thing named is not there.
    NotFound,
    /// Something else is already there.
    Exists,
    /// There is no room left.
    OutOfSpace,
    /// Not permitted: by the system, or refused by us for safety.
    Denied,
    /// Asked to stop.
    Cancelled,
    /// The request itself makes no sense or is ambiguous.
    Invalid,
}

/// An error: its kind, what was being done to what, and its cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a cause of its own.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// An error caused by another.
    pub fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    /// An error of the operating system, with the kind its code implies.
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Os;
        let kind = match source.kind() {
            Os::NotFound => ErrorKind::NotFound,
            Os::PermissionDenied | Os::ReadOnlyFilesystem => ErrorKind::Denied,
            Os::AlreadyExists => ErrorKind::Exists,
            Os::StorageFull | Os::QuotaExceeded | Os::FileTooLarge => ErrorKind::OutOfSpace,
            _ => ErrorKind::Io,
        };
        Self::with_source(kind, context, source)
    }

    /// Damaged or contradictory data.
    pub fn corrupt(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, context)
    }

    /// Data of a sort this version does not know.
    pub fn unsupported(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, context)
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error seen from further out: `context` is put before it, the kind stays.
    #[must_use]
    pub fn within(self, context: impl Into<String>) -> Self {
        Self { kind: self.kind, context: context.into(), source: Some(Box::new(self)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Puts a context before an error.
pub trait Context<T> {
    /// Says what was being done, and to what, when the error came.
    ///
    /// # Errors
    /// The error, if it was one, with the context before it.
    fn context(self, say: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, say: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.within(say()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, say: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::io(say(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Error, ErrorKind};
    use std::error::Error as _;

    #[test]
    fn kind_survives_context_and_the_chain_says_each_thing_once() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let result: super::Result<()> = Err(full).context(|| "writing pack ab".to_owned());
        let error = result.context(|| "capturing disk 1".to_owned()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfSpace);
        assert_eq!(error.to_string(), "capturing disk 1");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("writing pack ab"));
        assert!(Error::corrupt("x").source().is_none());
    }
}
