//! NFS version 4 by the kernel (nfs(5)); version 3 needs services beside the server's one port, and is not tried.
//!
//! `softerr`: a call that the server does not answer fails as timed out, after 5 + 10 + 15 seconds. Whoever waits longer
//! is above us. `actimeo=0` and `lookupcache=none` ask the server about every name and attribute.

use super::mount::{self, Refused, Setting, value};
use super::{Kind, MountUrl, Trouble};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::net::SocketAddr;
use std::path::Path;

/// In this order; the kernel does not go down by itself. 4.2 has nothing that we use, and comes last: since 6.6 Linux reads
/// by its `READ_PLUS` (RFC 7862, 15.10), and with nfs-ganesha before 6.2 that gives zeros or errors (nfs-ganesha #1188).
const VERSIONS: [&str; 3] = ["4.1", "4.0", "4.2"];

/// Mounts a folder of the server.
pub(super) fn mount(url: &MountUrl, server: SocketAddr, folder: &Path) -> Result<OwnedFd, Trouble> {
    let mut last = Trouble::Version("4.2, 4.1 or 4.0");
    for version in VERSIONS {
        match mount::mount(Kind::Nfs, &settings(url, server, folder, version)) {
            Ok(mounted) => return Ok(mounted),
            Err(refused) => {
                last = explain(&refused);
                if !matches!(last, Trouble::Version(_)) {
                    break;
                }
            }
        }
    }
    Err(last)
}

fn explain(refused: &Refused) -> Trouble {
    match refused.code {
        Errno::PROTONOSUPPORT | Errno::OPNOTSUPP => Trouble::Version("4.2, 4.1 or 4.0"),
        Errno::ACCESS | Errno::PERM => Trouble::NotPermitted,
        Errno::NOENT | Errno::NOTDIR => Trouble::NoShare,
        Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::TIMEDOUT
        | Errno::HOSTUNREACH
        | Errno::IO
        | Errno::PIPE => Trouble::Protocol(refused.text()),
        _ => Trouble::Other(refused.text()),
    }
}

fn settings(url: &MountUrl, server: SocketAddr, folder: &Path, version: &str) -> Vec<Setting> {
    let host = if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().to_owned() };
    vec![
        value("source", format!("{host}:{}", Path::new("/").join(folder).display())),
        value("vers", version),
        value("proto", if server.is_ipv4() { "tcp" } else { "tcp6" }),
        value("addr", server.ip().to_string()),
        value("port", server.port().to_string()),
        Setting::Flag("softerr"),
        value("timeo", "50"),
        value("retrans", "2"),
        value("actimeo", "0"),
        value("lookupcache", "none"),
        // Nothing in common with what others mounted from this server.
        Setting::Flag("nosharecache"),
    ]
}
