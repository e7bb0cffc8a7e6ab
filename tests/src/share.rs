//! The share server, run as an administrator runs it: on loopback, with tokens, killed and started again at its port.

use crate::binary;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server for the repositories below a folder. It ends when dropped.
pub struct ShareServer {
    folder: PathBuf,
    log: PathBuf,
    tls: Option<String>,
    boot: Option<PathBuf>,
    address: SocketAddr,
    fingerprint: String,
    child: Option<Child>,
}

impl ShareServer {
    /// With a certificate of its own making.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, None)
    }

    /// The same at another address of this machine.
    pub fn start_at(folder: &Path, address: IpAddr) -> Self {
        Self::begin(folder, address, None)
    }

    /// With the certificate and key in these files (`CERT,KEY`).
    pub fn start_with(folder: &Path, tls: Option<String>) -> Self {
        Self::begin(folder, Ipv4Addr::LOCALHOST.into(), tls)
    }

    fn begin(folder: &Path, address: IpAddr, tls: Option<String>) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let address = SocketAddr::new(address, 0);
        let log = folder.with_extension("log");
        let folder = folder.to_owned();
        let mut server =
            Self { folder, log, tls, boot: None, address, fingerprint: String::new(), child: None };
        server.restart();
        server
    }

    /// Starts it again, at the same port.
    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(binary::netshare());
        command.arg("serve").arg(&self.folder).args(["--listen", &self.address.to_string()]);
        command.args(self.tls.iter().flat_map(|tls| ["--tls", tls.as_str()]));
        if let Some(folder) = &self.boot {
            command.arg("--boot").arg(folder).args(["--boot-listen", "127.0.0.1:0"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut url = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut url).expect("it says where it is");
        self.child = Some(child);
        let place = url.trim().strip_prefix("https://").and_then(|url| url.split_once('#'));
        let (place, fingerprint) = place.unwrap_or_else(|| panic!("no URL: {url:?}; {}", self.log()));
        let authority = place.split('/').next().unwrap_or_default();
        self.address = authority.parse().expect("an address and a port");
        self.fingerprint = fingerprint.to_owned();
    }

    /// Has machines boot from the files of a folder, too: starts it again, and says where they are by HTTP.
    pub fn boot_from(&mut self, folder: &Path) -> SocketAddr {
        self.boot = Some(folder.to_owned());
        self.restart();
        let log = self.log();
        let place = log.rsplit("machines boot from http://").next().and_then(|rest| rest.split('/').next());
        place.and_then(|place| place.parse().ok()).unwrap_or_else(|| panic!("it does not say where: {log}"))
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it ends");
        }
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self) {
        if let Some(mut child) = self.child.take() {
            crate::tool("kill", &["-TERM", &child.id().to_string()]);
            child.wait().expect("it ends");
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of its repositories.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The fingerprint of its certificate.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The URL of a repository.
    pub fn url(&self, repository: &str) -> String {
        self.url_through(self.address, repository)
    }

    /// The same, by way of a proxy.
    pub fn url_through(&self, proxy: SocketAddr, repository: &str) -> String {
        format!("https://{proxy}/{repository}#{}", self.fingerprint)
    }

    /// A new token of that scope.
    pub fn token(&self, name: &str, scope: &str) -> String {
        self.run_token(&["add", name, "--scope", scope]).trim().to_owned()
    }

    /// Ends a token.
    pub fn revoke(&self, name: &str) {
        self.run_token(&["revoke", name]);
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it said one of these: a request is told when its answer is out, so perhaps after the client has ended.
    pub fn expect_log(&self, any: &[&str]) {
        let begun = std::time::Instant::now();
        while !any.iter().any(|text| self.log().contains(text)) {
            assert!(
                begun.elapsed() < std::time::Duration::from_secs(60),
                "none of {any:?} in:\n{}",
                self.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn run_token(&self, arguments: &[&str]) -> String {
        let folder = self.folder.display().to_string();
        let program = binary::netshare().display().to_string();
        crate::tool(&program, &[&["token"], arguments, &["--dir", &folder]].concat())
    }
}

impl Drop for ShareServer {
    fn drop(&mut self) {
        self.kill();
    }
}
