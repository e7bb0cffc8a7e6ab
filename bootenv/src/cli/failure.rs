//! Failures: the chain of errors, what to do next, and the exit status.

use bootenv::advice::Advice;
use imager_units::{Error, ErrorKind};
use serde_json::{Value, json};

/// Not understood.
pub(crate) const USAGE: u8 = 64;

/// Why a build failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    message: String,
    advice: String,
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        if self.kind == ErrorKind::Invalid { USAGE } else { 1 }
    }

    pub(crate) fn to_json(&self) -> Value {
        let kind = format!("{:?}", self.kind).to_lowercase();
        json!({ "error": { "kind": kind, "message": self.message, "advice": self.advice } })
    }

    pub(crate) fn to_lines(&self) -> String {
        format!("bootenv: {}\n  {}", self.message, self.advice)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (mut messages, mut advice) = (Vec::new(), None);
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = next {
            match cause.downcast_ref::<Advice>() {
                Some(found) => advice = Some(found.to_string()),
                None => messages.push(cause.to_string()),
            }
            next = cause.source();
        }
        let advice = advice.unwrap_or_else(|| default(error.kind()).to_owned());
        Self { kind: error.kind(), message: messages.join(": "), advice }
    }
}

fn default(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::OutOfSpace => {
            "make room (the cache takes about 700 MB, the medium 120 MB) and run it again"
        }
        ErrorKind::NotFound => "check the name; if a package lacks something, try --refresh",
        ErrorKind::Denied => "check the permissions, or name other folders by --output and --cache",
        ErrorKind::Invalid => "see bootenv build --help",
        _ => "run it again; with --refresh if something in the cache may be damaged",
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, USAGE};
    use bootenv::advice::Advice;
    use imager_units::{Error, ErrorKind};

    #[test]
    fn advice_is_told_apart_from_the_chain() {
        let error = Advice::error(ErrorKind::Io, "no mirror", "look at the network").within("fetching");
        let failure = Failure::from(error);
        assert_eq!(failure.to_lines(), "bootenv: fetching: no mirror\n  look at the network");
        assert_eq!(failure.code(), 1);
        assert_eq!(Failure::from(Error::new(ErrorKind::Invalid, "x")).code(), USAGE);
    }
}
