//! Failures: the chain of errors, what to do next, and the exit status.

use super::output::tell;
use imager_units::{Error, ErrorKind};
use netshare_store::http::Refusal;
use netshare_store::mounted::Trouble;
use netshare_store::s3::{NoCredentials, Verdict};
use serde_json::{Value, json};

pub(crate) const USAGE: u8 = 64;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    code: u8,
    advice: String,
}

impl Failure {
    /// A failure with an exit status and advice of its own.
    pub(crate) fn new(code: u8, error: Error, advice: impl Into<String>) -> Self {
        Self { error, code, advice: advice.into() }
    }

    /// A mistake in what was asked for.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        let advice = "see imager --help";
        Self::new(USAGE, Error::new(ErrorKind::Invalid, message.into()), advice)
    }

    /// There is no repository.
    pub(crate) fn no_repository(error: Error) -> Self {
        match error.kind() {
            _ if Trouble::of(&error).is_some() => error.into(),
            ErrorKind::NotFound => {
                Self::new(10, error, "check --repo, or make a repository with imager init")
            }
            ErrorKind::Unsupported => {
                Self::new(13, error, "use the version that made it or a newer one; nothing was changed")
            }
            _ => error.into(),
        }
    }

    /// There is no such capture.
    pub(crate) fn no_capture(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::new(11, error, "imager list shows what there is"),
            _ => error.into(),
        }
    }

    /// Something in the repository is damaged.
    pub(crate) fn damaged(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NotFound => {
                Self::new(3, error, "imager verify names what is affected; try an earlier capture")
            }
            _ => error.into(),
        }
    }

    /// A restore that could not be planned.
    pub(crate) fn no_plan(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Corrupt => {
                let advice =
                    "nothing was written; imager verify names what is affected; try an earlier capture";
                Self::new(3, error, advice)
            }
            _ => error.into(),
        }
    }

    /// A restore onto what refuses writes.
    pub(crate) fn write_protected(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Denied => {
                let advice = "nothing was written; with --unprotect this restore lifts that for what it writes, and sets it \
                              again at its end";
                Self::new(4, error, advice)
            }
            _ => error.into(),
        }
    }

    /// A restore that would not or could not be done.
    pub(crate) fn damaged_or_refused(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Corrupt => Self::damaged(error),
            _ => error.into(),
        }
    }

    /// The exit status.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The chain of errors, outermost first.
    fn message(&self) -> String {
        chain(&self.error)
    }

    /// The same in one line.
    pub(crate) fn told(&self) -> String {
        format!("{}: {}", self.message(), self.advice)
    }

    /// What a script is told.
    pub(crate) fn json(&self) -> Value {
        let kind = format!("{:?}", self.error.kind()).to_lowercase();
        json!({ "kind": kind, "message": self.message(), "advice": self.advice })
    }

    /// Tells the script.
    pub(crate) fn show_json(&self) {
        super::output::print_json(&json!({ "error": self.json() }));
    }

    /// Tells the person.
    pub(crate) fn show(&self) {
        tell(format!("imager: {}", self.message()));
        if !self.advice.is_empty() {
            tell(format!("  {}", self.advice));
        }
    }
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &Error) -> String {
    let mut chain = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        chain.push(error.to_string());
        next = error.source();
    }
    chain.join(": ")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Some((code, advice)) = caused_by(&error).map(advice).or_else(|| bucket_advice(&error)) {
            return Self::new(code, error, advice);
        }
        if let Some((code, advice)) =
            Trouble::of(&error).map(|trouble| (trouble_code(trouble), trouble.advice()))
        {
            return Self::new(code, error, advice);
        }
        let (code, advice) = match error.kind() {
            ErrorKind::Cancelled => (130, "run it again to continue; nothing was published"),
            ErrorKind::Invalid => (USAGE, "see imager --help"),
            ErrorKind::Denied if is_permission(&error) => (1, "run it as root, or check the permissions"),
            ErrorKind::Denied => (4, "nothing was written"),
            ErrorKind::Lost => (5, "check the share and run it again: it continues where it was"),
            ErrorKind::OutOfSpace => (1, "make room and run it again: what is stored already is used"),
            ErrorKind::NotFound => (1, "check the name"),
            ErrorKind::Exists => (1, ""),
            ErrorKind::Corrupt => (1, "what is named above is damaged"),
            ErrorKind::Unsupported => (1, "this version cannot do that"),
            ErrorKind::Io => (1, "check the disk and its cables (dmesg shows what the kernel saw)"),
        };
        Self::new(code, error, advice)
    }
}

fn trouble_code(trouble: &Trouble) -> u8 {
    match trouble {
        Trouble::Password | Trouble::NoPassword | Trouble::Expired => 12,
        Trouble::NoShare | Trouble::Folder => 10,
        _ if trouble.kind() == ErrorKind::Lost => 5,
        _ => 1,
    }
}

/// What to do when a bucket's service refuses, or is not even asked.
fn bucket_advice(error: &Error) -> Option<(u8, &'static str)> {
    if error.kind() != ErrorKind::Denied {
        return None;
    }
    if caused_by::<NoCredentials>(error).is_some() {
        return Some((
            12,
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile that has them",
        ));
    }
    let says = "check the credentials, their region and endpoint, and that their policy allows get, put, list and delete";
    caused_by::<Verdict>(error).map(|_| (12, says))
}

/// The cause of a certain sort, such as why a server refused or was refused.
fn caused_by<E: std::error::Error + 'static>(error: &Error) -> Option<&E> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn advice(refusal: &Refusal) -> (u8, &'static str) {
    match refusal {
        Refusal::NoToken => {
            (12, "set IMAGER_TOKEN_FILE or IMAGER_TOKEN; on the server netshare token add makes one")
        }
        Refusal::UnknownToken => (
            12,
            "check IMAGER_TOKEN or IMAGER_TOKEN_FILE; on the server netshare token list shows whose are valid",
        ),
        Refusal::Scope => (
            1,
            "name the token's own machine, or use a token whose scope does it: restore for every machine, admin for the rest",
        ),
        Refusal::Fingerprint(_) => (
            4,
            "nothing was sent; if the server has a new certificate, take the URL it prints when it starts",
        ),
        Refusal::Certificate(_) => (
            4,
            "nothing was sent; put the certificate's fingerprint behind # in the URL, or make this system trust its issuer",
        ),
        Refusal::NoRoots => (
            4,
            "put the fingerprint of the server's certificate behind # in the URL, or install ca-certificates",
        ),
        Refusal::NotTls(_) => {
            (4, "nothing was sent; check the host and port in the URL, and any proxy in between")
        }
        Refusal::Redirect => (4, "use the address of the share server itself, not of what stands before it"),
    }
}

/// Whether the system, not we, refused: then rights help.
fn is_permission(error: &Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        if let Some(os) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                os.kind(),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
            );
        }
        next = error.source();
    }
    false
}
