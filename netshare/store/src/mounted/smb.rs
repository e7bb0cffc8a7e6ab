//! SMB by the kernel's `cifs` (Documentation/admin-guide/cifs/usage.rst; the settings are those of mount.cifs(8)).
//!
//! `vers=default` offers 2.1 to 3.1.1 and takes the highest that the server has. Traffic is encrypted where the server
//! can (`seal`); the negotiation of 3.1.1 is protected, so nobody in between can talk us out of it.

use super::mount::{self, Refused, Setting, value};
use super::{Kind, MountUrl, Password, Trouble};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::net::SocketAddr;

/// A share that no server has.
const NO_SHARE: &str = "halfhour-no-share$";

/// Mounts the root of the share.
pub(super) fn mount(
    url: &MountUrl,
    server: SocketAddr,
    password: Option<&Password>,
) -> Result<OwnedFd, Trouble> {
    // For a second the kernel remembers that a name was not there, which no setting of a mount changes: a lease or manifest
    // that another machine put meanwhile would be missed. This switch is the module's; it costs others some lookups.
    if let Err(error) = std::fs::write("/proc/fs/cifs/LookupCacheEnabled", "0") {
        tracing::warn!("names that were not there may stay so for a second: {error}");
    }
    let attempt =
        |share: &str, sealed| mount::mount(Kind::Smb, &settings(url, server, share, password, sealed));
    let is_known = url.user().is_some();
    let mounted = match attempt(url.share(), is_known) {
        // Not for every refusal: a wrong password that is tried twice locks accounts twice as fast.
        Err(refused) if is_known && is_version(refused.code) => attempt(url.share(), false),
        mounted => mounted,
    };
    let code_of = |share: &str| attempt(share, false).err().map(|refused| refused.code);
    mounted.map_err(|refused| match refused.code {
        // The server refuses whom it does not know before it looks for the share.
        Errno::ACCESS if code_of(NO_SHARE) == Some(Errno::NOENT) => Trouble::NotPermitted,
        // Without its ciphers the kernel finds "no" share, not even the one that every server has.
        Errno::NOENT if code_of("IPC$") == Some(Errno::NOENT) => Trouble::NoCipher,
        _ => explain(&refused),
    })
}

fn is_version(code: Errno) -> bool {
    matches!(code, Errno::OPNOTSUPP | Errno::PROTONOSUPPORT)
}

fn explain(refused: &Refused) -> Trouble {
    match refused.code {
        Errno::ACCESS | Errno::KEYREJECTED | Errno::NOKEY | Errno::PERM => Trouble::Password,
        Errno::KEYEXPIRED => Trouble::Expired,
        Errno::NOENT | Errno::NXIO => Trouble::NoShare,
        code if is_version(code) => Trouble::Version("2.1, 3.0, 3.0.2 or 3.1.1"),
        Errno::HOSTDOWN
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::TIMEDOUT
        | Errno::AGAIN
        | Errno::PIPE => Trouble::Protocol(refused.text()),
        _ => Trouble::Other(refused.text()),
    }
}

fn settings(
    url: &MountUrl,
    server: SocketAddr,
    share: &str,
    password: Option<&Password>,
    is_sealed: bool,
) -> Vec<Setting> {
    let mut all = vec![
        value("source", format!("//{}/{share}", url.host())),
        value("ip", server.ip().to_string()),
        value("port", server.port().to_string()),
        value("vers", "default"),
        // No cache of content, names or attributes, and none that rests on a promise of the server's.
        value("cache", "none"),
        value("actimeo", "0"),
        Setting::Wish("nohandlecache"),
        Setting::Wish("nolease"),
        // Nothing in common with what others mounted from this server.
        Setting::Flag("nosharesock"),
        Setting::Flag("soft"),
        // A server that is silent for three times as long is taken for gone.
        value("echo_interval", "10"),
        // The server decides who may do what; modes that the client makes up say nothing about that.
        Setting::Flag("noperm"),
        value("file_mode", "0600"),
        value("dir_mode", "0700"),
    ];
    match url.user() {
        None => all.push(value("sec", "none")),
        Some(user) => {
            all.push(value("username", user));
            all.push(value("password", password.map_or(&[][..], Password::bytes)));
            all.extend(url.domain().map(|domain| value("domain", domain)));
        }
    }
    if is_sealed {
        all.push(Setting::Flag("seal"));
    }
    all
}
