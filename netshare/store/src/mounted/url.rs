//! `smb://[DOMAIN;][USER@]HOST[:PORT]/SHARE[/FOLDER...]` and `nfs://HOST[:PORT]/EXPORT[/FOLDER...]`.
//!
//! A password is never part of it: URLs end up in histories, logs and process lists.

use imager_units::{Error, ErrorKind, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which kind of file server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SMB 2.1 to 3.1.1.
    Smb,
    /// NFS 4.0 to 4.2.
    Nfs,
}

impl Kind {
    fn scheme(self) -> &'static str {
        match self {
            Self::Smb => "smb",
            Self::Nfs => "nfs",
        }
    }

    /// The kernel's name for it.
    pub(super) fn filesystem(self) -> &'static str {
        match self {
            Self::Smb => "cifs",
            Self::Nfs => "nfs4",
        }
    }

    fn usual_port(self) -> u16 {
        match self {
            Self::Smb => 445,
            Self::Nfs => 2049,
        }
    }
}

/// Where a share of a file server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountUrl {
    kind: Kind,
    domain: Option<String>,
    user: Option<String>,
    host: String,
    port: u16,
    /// SMB: the share. NFS: empty.
    share: String,
    /// SMB: the folder in the share. NFS: the whole path on the server.
    folder: PathBuf,
}

impl MountUrl {
    /// Which kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The user, who then has a password; nobody for a guest, and for NFS.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The user's domain.
    pub(super) fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The server's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn share(&self) -> &str {
        &self.share
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl FromStr for MountUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let form = "smb://USER@HOST[:PORT]/SHARE[/FOLDER] or nfs://HOST[:PORT]/EXPORT";
            // Whoever wrote a password into it should not find it in a log too.
            let shown = url.rsplit_once('@').map_or(url, |(_, behind)| behind);
            Error::new(ErrorKind::Invalid, format!("{shown:?}: {why}; expected is {form}"))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("no URL"))?;
        let kind = match scheme {
            "smb" => Kind::Smb,
            "nfs" => Kind::Nfs,
            _ => return Err(wrong("another kind of share")),
        };
        let (place, path) = rest.split_once('/').ok_or_else(|| wrong("no share is named"))?;
        let (user, place) = place.rsplit_once('@').map_or((None, place), |(user, place)| (Some(user), place));
        if user.is_some_and(|user| user.contains(':')) {
            return Err(wrong("a password does not belong into a URL (set IMAGER_SHARE_PASSWORD_FILE)"));
        }
        if user.is_some() && kind == Kind::Nfs {
            return Err(wrong("nfs knows machines, not users"));
        }
        let decode = |text: &str| decoded(text).ok_or_else(|| wrong("not all of it is text"));
        let (domain, user) = match user.map(|user| user.split_once(';').unwrap_or(("", user))) {
            None => (None, None),
            Some((domain, user)) => (Some(decode(domain)?).filter(|it| !it.is_empty()), Some(decode(user)?)),
        };
        if user.as_deref() == Some("") {
            return Err(wrong("the user has no name"));
        }
        let (host, port) = host_and_port(place).ok_or_else(|| wrong("no host and port"))?;
        let mut names = Vec::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let name = decode(name)?;
            if matches!(name.as_str(), "." | "..") || name.contains(['/', '\\']) {
                return Err(wrong("that is no path"));
            }
            names.push(name);
        }
        if names.is_empty() {
            return Err(wrong("no share is named"));
        }
        let share = if kind == Kind::Smb { names.remove(0) } else { String::new() };
        let port = port.unwrap_or(kind.usual_port());
        Ok(Self { kind, domain, user, host, port, share, folder: names.into_iter().collect() })
    }
}

/// Splits `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn host_and_port(place: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || host.starts_with(['.', '-']) || !host.bytes().all(is_name) {
        return None;
    }
    let port = port
        .map(|port| port.parse().ok().filter(|port| *port != 0))
        .map_or(Some(None), |port| port.map(Some));
    Some((host.to_owned(), port?))
}

/// Text with its `%XX` replaced. `None` when that is not text, or has characters that no server takes.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(if *first == b'%' {
            let (digits, behind) = rest.split_at_checked(2)?;
            rest = behind;
            u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?, 16).ok()?
        } else {
            *first
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

fn encoded(text: &str) -> String {
    let plain = |c: char| {
        c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '$' | '!' | '+' | ',' | '=' | '&')
    };
    let encode = |c: char| {
        let mut buffer = [0; 4];
        c.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()
    };
    text.chars().map(|c| if plain(c) { c.to_string() } else { encode(c) }).collect()
}

impl fmt::Display for MountUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.kind.scheme())?;
        if let Some(domain) = &self.domain {
            write!(f, "{};", encoded(domain))?;
        }
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user))?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if self.port != self.kind.usual_port() {
            write!(f, ":{}", self.port)?;
        }
        if self.kind == Kind::Smb {
            write!(f, "/{}", encoded(&self.share))?;
        }
        self.folder.iter().try_for_each(|name| write!(f, "/{}", encoded(&name.to_string_lossy())))
    }
}
