//! Failures: the chain of errors, one line of advice, and the exit status.

use imager_units::{Error, ErrorKind};
use std::io::{self, Write};

pub(crate) const USAGE: u8 = 64;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    advice: &'static str,
}

impl Failure {
    pub(crate) fn new(error: Error, advice: &'static str) -> Self {
        Self { error, advice }
    }

    pub(crate) fn code(&self) -> u8 {
        if self.error.kind() == ErrorKind::Invalid { USAGE } else { 1 }
    }

    /// Tells the person.
    pub(crate) fn show(&self) {
        let mut chain = self.error.to_string();
        let mut next = std::error::Error::source(&self.error);
        while let Some(error) = next {
            chain = format!("{chain}: {error}");
            next = error.source();
        }
        let advice = if self.advice.is_empty() { String::new() } else { format!("  {}\n", self.advice) };
        // Without anybody to tell, the exit status still does.
        let _ignored = write!(io::stderr(), "netshare: {chain}\n{advice}");
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let advice = match error.kind() {
            ErrorKind::NotFound => "check the name; the folder has to be there (is it mounted?)",
            ErrorKind::Denied => "check the permissions: the server needs to read and write the folder",
            ErrorKind::OutOfSpace => "make room in the folder",
            ErrorKind::Corrupt => "repair or remove what is named above",
            ErrorKind::Exists => "choose another name, or revoke that one first",
            ErrorKind::Unsupported => "use the version that wrote it or a newer one",
            ErrorKind::Invalid => "see netshare --help",
            _ => "",
        };
        Self { error, advice }
    }
}

/// A socket that cannot be had.
pub(crate) fn no_socket(address: std::net::SocketAddr, error: io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: see ip address",
        _ => "choose another address",
    };
    Failure::new(Error::io(format!("listening on {address}"), error), advice)
}
