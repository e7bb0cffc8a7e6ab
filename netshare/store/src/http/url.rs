//! `https://HOST[:PORT]/REPO[#FINGERPRINT]`, taken apart by hand: nothing in it is optional but what is said to be, and
//! no part of it may mean something else to another parser.

use imager_units::{Error, ErrorKind, Result};
use reqwest::Url;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

const SCHEME: &str = "https://";
const PORT: u16 = 443;
const REPOSITORY_BYTES_MAX: usize = 63;
const HOST_BYTES_MAX: usize = 253;

/// The SHA-256 of a server's certificate (its DER bytes).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Where a repository lies on a server, and which certificate that server shows.
///
/// Shown without the fingerprint: the same place under another certificate is the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsUrl {
    host: String,
    port: u16,
    repository: String,
    fingerprint: Option<Fingerprint>,
}

impl HttpsUrl {
    /// The one certificate that is accepted; without it, whatever this system's roots vouch for.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }
}

impl FromStr for HttpsUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        parse(url).map_err(|why| {
            let what = "no URL of a share: https://HOST:PORT/REPOSITORY#FINGERPRINT is expected";
            // The URL is not repeated: a person may have put a secret into it.
            Error::with_source(ErrorKind::Invalid, what, why)
        })
    }
}

fn parse(url: &str) -> Result<HttpsUrl, &'static str> {
    let rest = url.strip_prefix(SCHEME).ok_or("it does not begin with https://")?;
    let (rest, fingerprint) = match rest.split_once('#') {
        None => (rest, None),
        Some((rest, digits)) => {
            (rest, Some(Fingerprint::parse(digits).ok_or("behind # come 64 hexadecimal digits")?))
        }
    };
    let (authority, repository) = rest.split_once('/').ok_or("it names no repository behind the server")?;
    if authority.contains('@') {
        return Err("it holds a user or password: the token goes into IMAGER_TOKEN or IMAGER_TOKEN_FILE");
    }
    let (host, port) = host_and_port(authority).ok_or("the server's name or port is malformed")?;
    let repository = repository.strip_suffix('/').unwrap_or(repository);
    if !is_repository(repository) {
        return Err("the repository's name is not 1 to 63 of a-z, 0-9 and '-'");
    }
    let url = HttpsUrl { host, port, repository: repository.to_owned(), fingerprint };
    // Names such as `10.0.0.300`, `127.1` or `xn--` are others, or none, to whoever connects.
    let theirs = Url::parse(&url.to_string()).ok();
    let is_same = |theirs: &Url| url.host.starts_with('[') || theirs.host_str() == Some(url.host.as_str());
    if !theirs.as_ref().is_some_and(is_same) {
        return Err("the server's name is neither a name nor an address");
    }
    Ok(url)
}

fn host_and_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            (host, port.parse().ok().filter(|port| digits && *port > 0)?)
        }
        _ => (authority, PORT),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let named = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    match address {
        Some(address) => Some((format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)),
        None => {
            let sound = (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(named);
            (sound && !host.starts_with(['.', '-'])).then(|| (host.to_ascii_lowercase(), port))
        }
    }
}

fn is_repository(name: &str) -> bool {
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=REPOSITORY_BYTES_MAX).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(sound)
}

impl Fingerprint {
    fn parse(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}:{}/{}", self.host, self.port, self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::HttpsUrl;
    use imager_units::ErrorKind;

    #[test]
    fn urls_are_taken_apart_and_shown_without_the_fingerprint() {
        let digits = "0123456789abcdef".repeat(4);
        for (text, shown, pinned) in [
            ("https://h/r", "https://h:443/r", false),
            ("https://H.Example:8443/default/", "https://h.example:8443/default", false),
            ("https://10.0.0.1:1/0-a", "https://10.0.0.1:1/0-a", false),
            ("https://[0:0::1]:8443/r", "https://[::1]:8443/r", false),
            ("https://[::1]/r", "https://[::1]:443/r", false),
            ("https://[::ffff:10.0.0.1]/r", "https://[::ffff:10.0.0.1]:443/r", false),
            ("https://my_nas.lan./r", "https://my_nas.lan.:443/r", false),
            (&format!("https://h:8443/r#{digits}"), "https://h:8443/r", true),
            (&format!("https://h:8443/r#{}", digits.to_uppercase()), "https://h:8443/r", true),
        ] {
            let url: HttpsUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.fingerprint().is_some()), (shown, pinned), "{text}");
            assert!(url.fingerprint().is_none_or(|found| found.to_string() == digits));
        }
    }

    #[test]
    fn anything_else_is_refused_and_not_repeated() {
        let long = format!("https://h/{}", "a".repeat(64));
        for text in [
            "http://h/r",
            "https://h",
            "https://h/",
            "https:///r",
            "https://h/r/s",
            "https://h/R",
            "https://h/-r",
            "https://h/r?x",
            "https://h/..",
            "https://h/%72",
            "https://secret@h/r",
            "https://u:secret@h/r",
            "https://h:0/r",
            "https://h:/r",
            "https://h:+1/r",
            "https://h:65536/r",
            "https://[::1/r",
            "https://[zz]/r",
            "https://h h/r",
            "https://h\\@x/r",
            "https://10.0.0.300/r",
            "https://127.1/r",
            "https://1/r",
            "https://10.0.0.010/r",
            "https://h.0x7f/r",
            "https://xn--/r",
            "https://h/r#",
            "https://h/r#12",
            &format!("https://h/r#{}", "g".repeat(64)),
            &format!("https://h/r#{}", "+1".repeat(32)),
            &long,
        ] {
            let error = text.parse::<HttpsUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
