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

    /// Settings that capture a machine's disk and switch it off.
    pub fn capture_settings(&self, machine: &str, disk: &str) -> String {
        let settings = self.share_settings("capturer", &format!("machine:{machine}"));
        format!("{settings}machine = '{machine}'\ndisk = ['{disk}']\nafter = 'poweroff'\n")
    }

    /// Settings that put a machine's newest capture onto a disk and start it; `more` lines may say how.
    pub fn restore_settings(&self, machine: &str, disk: &str, more: &str) -> String {
        let settings = self.share_settings("restorer", "restore");
        format!(
            "{settings}capture = '{machine}'\ntarget = ['{disk}']\nconfirm = 'yes'\nafter = 'reboot'\n{more}"
        )
    }

    /// Where the share is for a machine, with a new token.
    pub fn share_settings(&self, name: &str, scope: &str) -> String {
        let host = SocketAddr::new(HOST.parse().expect("an address"), self.server.address().port());
        let token = self.server.token(name, scope);
        format!("repo = '{}'\ntoken = '{token}'\n", self.server.url_through(host, "default"))
    }
}
