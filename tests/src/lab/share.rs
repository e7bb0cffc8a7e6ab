//! The share of the lab: the server on this host's loopback, with a repository, and settings for rescue media that use it.

use super::HOST;
use crate::imager::Imager;
use crate::scratch::Scratch;
use crate::share::ShareServer;
use std::net::SocketAddr;

/// A share server with a repository.
pub struct Share {
    /// The server.
    pub server: ShareServer,
    /// `imager` as an administrator of it.
    pub admin: Imager,
}

impl Share {
    /// A new one; its repository is empty.
    pub fn new(scratch: &Scratch) -> Self {
        let server = ShareServer::start(&scratch.path("share"));
        let (url, token) = (server.url("default"), server.token("admin", "admin"));
        let admin = Imager::new(scratch.path("admin"), url.into()).with("IMAGER_TOKEN", &token);
        admin.ok(&["init"]);
        Self { server, admin }
    }

    /// Settings that put a machine's newest capture onto a disk and start it; `more` lines may say how.
    pub fn restore_settings(&self, machine: &str, disk: &str, more: &str) -> String {
        restore_settings(&self.share_settings("restorer", "restore"), machine, disk, more)
    }

    /// Settings that say where the share is for a machine, with a new token.
    pub fn share_settings(&self, name: &str, scope: &str) -> String {
        let (url, token) = self.place(name, scope);
        format!("repo = '{url}'\ntoken = '{token}'\n")
    }

    /// The repository's URL for a machine, and a new token.
    pub fn place(&self, name: &str, scope: &str) -> (String, String) {
        let host = SocketAddr::new(HOST.parse().expect("an address"), self.server.address().port());
        (self.server.url_through(host, "default"), self.server.token(name, scope))
    }
}

/// Settings that capture a machine's disk to the share of the settings `share` and switch it off.
pub fn capture_settings(share: &str, machine: &str, disk: &str) -> String {
    format!("{share}machine = '{machine}'\ndisk = ['{disk}']\nafter = 'poweroff'\n")
}

/// Settings that put a machine's newest capture from that share onto a disk and start it; `more` lines may say how.
pub fn restore_settings(share: &str, machine: &str, disk: &str, more: &str) -> String {
    format!("{share}capture = '{machine}'\ntarget = ['{disk}']\nconfirm = 'yes'\nafter = 'reboot'\n{more}")
}
