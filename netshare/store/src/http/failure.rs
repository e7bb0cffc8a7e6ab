//! What a failed request means: the share's trouble (which may pass), its refusal (which will not), or a wrong request.

use super::refusal::Refusal;
use imager_units::{Error, ErrorKind};
use reqwest::StatusCode;
use serde::Deserialize;
use std::error::Error as StdError;
use std::time::Duration;

const MESSAGE_CHARS_MAX: usize = 300;
/// What a person may have set in the belief that it matters here.
const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

#[derive(Deserialize)]
struct Failure {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

/// A connection that could not be made, or broke.
pub(super) fn broken(what: String, error: reqwest::Error) -> Error {
    let error = error.without_url();
    match refusal(&error) {
        Some(refusal) => Error::with_source(ErrorKind::Denied, what, refusal),
        None => Error::with_source(ErrorKind::Io, what, innermost(&error)),
    }
}

/// Nothing came or went for too long.
pub(super) fn silent(what: String, silence: Duration) -> Error {
    let why = format!("the server was silent for {} s", silence.as_secs_f32());
    Error::with_source(ErrorKind::Io, what, why)
}

/// An answer that our server does not give.
pub(super) fn strange(what: String, why: impl Into<String>) -> Error {
    Error::with_source(ErrorKind::Io, what, why.into())
}

/// An answer other than the one hoped for; `body` is the beginning of what came with it.
pub(super) fn refused(what: String, status: StatusCode, body: &[u8], secret: &str) -> Error {
    let said = serde_json::from_slice::<Failure>(body).ok().map(|failure| failure.error.message);
    let said = said.map_or_else(String::new, |said| format!(": {}", harmless(&said, secret)));
    match status.as_u16() {
        401 => Error::with_source(ErrorKind::Denied, what, Refusal::UnknownToken),
        403 => Error::with_source(ErrorKind::Denied, format!("{what}{said}"), Refusal::Scope),
        300..=399 => Error::with_source(ErrorKind::Denied, what, Refusal::Redirect),
        code => Error::with_source(kind(code), what, format!("the server answers {status}{said}")),
    }
}

fn kind(status: u16) -> ErrorKind {
    match status {
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Exists,
        416 => ErrorKind::Corrupt,
        400 | 405 | 411 | 413 => ErrorKind::Invalid,
        507 => ErrorKind::OutOfSpace,
        _ => ErrorKind::Io,
    }
}

/// What a server says may be shown on a terminal and kept in a log: no control characters, and not our own secret.
fn harmless(said: &str, secret: &str) -> String {
    let said = said.replace(secret, "…");
    let shown = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(MESSAGE_CHARS_MAX).collect()
}

/// Why TLS ended, where that is for good.
fn refusal(error: &reqwest::Error) -> Option<Refusal> {
    use rustls::{CertificateError, Error as Tls, InvalidMessage};
    let tls = chain(error).find_map(tls_error)?;
    match tls {
        Tls::InvalidCertificate(CertificateError::Other(other)) => {
            let ours = other.0.downcast_ref::<Refusal>().cloned();
            Some(ours.unwrap_or_else(|| Refusal::Certificate(other.to_string())))
        }
        Tls::InvalidCertificate(why) => Some(Refusal::Certificate(certificate(why))),
        Tls::NoCertificatesPresented | Tls::UnsupportedNameType => {
            Some(Refusal::Certificate(tls.to_string()))
        }
        Tls::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion)
            if error.is_connect() =>
        {
            Some(Refusal::NotTls("it does not speak TLS".to_owned()))
        }
        Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol => Some(Refusal::NotTls(tls.to_string())),
        Tls::AlertReceived(alert) if error.is_connect() => {
            Some(Refusal::NotTls(format!("it refuses the connection ({alert:?})")))
        }
        _ => None,
    }
}

fn certificate(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Why;
    match why {
        Why::Expired | Why::ExpiredContext { .. } => {
            "it has expired (or this machine's clock is wrong)".to_owned()
        }
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "it is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        Why::UnknownIssuer => "nobody this system trusts vouches for it".to_owned(),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => "it is for another name".to_owned(),
        Why::Revoked => "it was revoked".to_owned(),
        other => other.to_string(),
    }
}

fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    error.downcast_ref::<rustls::Error>()
}

/// An error and everything beneath it. What an `io::Error` carries is beneath it, though its `source` passes it over.
fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        carried.map(|carried| carried as &(dyn StdError + 'static)).or_else(|| error.source())
    })
}

fn innermost(error: &reqwest::Error) -> String {
    let cause = chain(error).last().map_or_else(|| error.to_string(), ToString::to_string);
    if !error.is_connect() {
        return cause;
    }
    let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let proxy = PROXIES.iter().find(is_set);
    let hint =
        proxy.map_or_else(String::new, |name| format!(" ({name} is set, but shares are reached directly)"));
    format!("cannot connect: {cause}{hint}")
}

#[cfg(test)]
mod tests {
    use super::{harmless, refused};
    use imager_units::ErrorKind;
    use reqwest::StatusCode;

    #[test]
    fn every_status_has_the_kind_of_the_protocol() {
        for (status, kind) in [
            (301, ErrorKind::Denied),
            (400, ErrorKind::Invalid),
            (401, ErrorKind::Denied),
            (403, ErrorKind::Denied),
            (404, ErrorKind::NotFound),
            (405, ErrorKind::Invalid),
            (408, ErrorKind::Io),
            (409, ErrorKind::Exists),
            (411, ErrorKind::Invalid),
            (413, ErrorKind::Invalid),
            (416, ErrorKind::Corrupt),
            (418, ErrorKind::Io),
            (422, ErrorKind::Io),
            (429, ErrorKind::Io),
            (500, ErrorKind::Io),
            (503, ErrorKind::Io),
            (507, ErrorKind::OutOfSpace),
        ] {
            let error = refused("x".to_owned(), StatusCode::from_u16(status).unwrap(), b"", "s");
            assert_eq!(error.kind(), kind, "{status}");
        }
    }

    #[test]
    fn what_a_server_says_cannot_play_with_the_terminal_or_tell_the_token() {
        let said = harmless(&format!("\x1b[2J tok_1 {}", "x".repeat(5000)), "tok_1");
        assert!(!said.contains(['\x1b']) && !said.contains("tok_1") && said.chars().count() <= 300);
    }
}
