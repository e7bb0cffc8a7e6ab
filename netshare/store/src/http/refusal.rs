//! Why a server or we ourselves ended a conversation for good: nothing that trying again would change.

use super::url::Fingerprint;
use std::fmt;

/// The cause within a `Denied` error of a share, for whoever gives advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The share wants a token, and none is given.
    NoToken,
    /// The server does not know the token, or no longer.
    UnknownToken,
    /// The server knows the token, but it is not for this.
    Scope,
    /// The server shows another certificate than the one whose fingerprint the URL has.
    Fingerprint(Fingerprint),
    /// The system's roots do not vouch for the server's certificate, or it is not valid now; and why.
    Certificate(String),
    /// This system has no roots that could vouch for anybody.
    NoRoots,
    /// What answers there does not speak TLS, or none that we speak; and what it said.
    NotTls(String),
    /// The server sends us elsewhere.
    Redirect,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("the server wants a token, and none is given"),
            Self::UnknownToken => f.write_str("the server does not know this token, or it was revoked"),
            Self::Scope => f.write_str("this is not within the token's scope"),
            Self::Fingerprint(found) => write!(f, "the server shows another certificate, {found}"),
            Self::Certificate(why) => write!(f, "the server's certificate is not accepted: {why}"),
            Self::NoRoots => f.write_str("this system trusts no certificate authority at all"),
            Self::NotTls(why) => write!(f, "what answers there is no HTTPS server: {why}"),
            Self::Redirect => f.write_str("the server sends us elsewhere, and we do not go"),
        }
    }
}

impl std::error::Error for Refusal {}
