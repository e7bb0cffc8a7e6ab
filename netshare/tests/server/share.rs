//! A running server with a share of its own, and a client that sends whatever bytes it is told to, over real TLS.

use netshare::{Grant, Identity, Limits, Server, Sockets, Tokens};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a test waits for a byte before it calls the server hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server with the repository `default`, stopped when dropped.
pub(crate) struct Share {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Share {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("default")).unwrap();
        Self::at(folder, limits)
    }

    pub(crate) fn at(folder: tempfile::TempDir, limits: Limits) -> Self {
        let identity = Identity::self_signed(folder.path()).unwrap();
        let server = Server::new(folder.path(), &identity, limits).unwrap();
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (listener, figures) = (socket(), socket());
        let (address, metrics) = (listener.local_addr().unwrap(), figures.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            let sockets = Sockets { share: vec![listener], metrics: Some(figures), boot: None };
            runtime.block_on(server.run(sockets, async { drop(stopped.await) })).unwrap();
        });
        Self { folder, address, metrics, stop: Some(stop), thread: Some(thread) }
    }

    /// A new token of this scope.
    pub(crate) fn token(&self, scope: &str) -> String {
        self.token_for(scope, &[])
    }

    /// The same, for these repositories only.
    pub(crate) fn token_for(&self, scope: &str, repositories: &[&str]) -> String {
        let tokens = Tokens::of(self.folder.path());
        let name = format!("t{}", tokens.list().unwrap().len());
        let only = repositories.iter().map(|name| (*name).to_owned()).collect();
        tokens
            .add(&Grant {
                name,
                scope: scope.parse().unwrap(),
                repositories: if repositories.is_empty() { None } else { Some(only) },
                created: String::new(),
            })
            .unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &Ask<'_>) -> Reply {
        self.client().ask(request)
    }

    /// Tells the server to stop and waits for it.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Everything below the share that is not the server's own: path, and the bytes of files. The file by which its sweep
    /// at the start reads the share's clock, and which may be there for a moment, is its own.
    pub(crate) fn content(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        walk(self.folder.path(), &mut found);
        found
    }

    /// The text of the metrics page.
    pub(crate) fn figures(&self) -> String {
        let mut socket = TcpStream::connect(self.metrics).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_name() == ".netshare" || entry.file_name().as_encoded_bytes().ends_with(b"-clock") {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            found.insert(entry.path(), None);
            walk(&entry.path(), found);
        } else {
            found.insert(entry.path(), fs::read(entry.path()).ok());
        }
    }
}

/// A request that is in order.
#[derive(Clone, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: String,
    pub(crate) token: &'a str,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) headers: Vec<String>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: &'a str, path: impl Into<String>, token: &'a str) -> Self {
        Self { method, path: path.into(), token, ..Self::default() }
    }

    pub(crate) fn put(name: &str, token: &'a str, body: &'a [u8]) -> Self {
        Self { body: Some(body), ..Self::new("PUT", format!("/default/objects/{name}"), token) }
    }

    pub(crate) fn get(name: &str, token: &'a str) -> Self {
        Self::new("GET", format!("/default/objects/{name}"), token)
    }

    pub(crate) fn header(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    pub(crate) fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: share\r\n", self.method, self.path);
        if !self.token.is_empty() {
            head += &format!("Authorization: Bearer {}\r\n", self.token);
        }
        if let Some(body) = self.body {
            head += &format!("Content-Length: {}\r\n", body.len());
            if !self.headers.iter().any(|header| header.starts_with("Halfhour-Blake3")) {
                head += &format!("Halfhour-Blake3: {}\r\n", blake3::hash(body));
            }
        }
        self.headers.iter().for_each(|header| head += &format!("{header}\r\n"));
        head + "\r\n"
    }
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The kind of error.
    pub(crate) fn kind(&self) -> String {
        self.json()["error"]["kind"].as_str().unwrap().to_owned()
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { stream: StreamOwned::new(session, socket) }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub(crate) fn ask(&mut self, ask: &Ask<'_>) -> Reply {
        self.send(ask.head().as_bytes()).unwrap();
        // Who is refused early need not take the body.
        drop(self.send(ask.body.unwrap_or_default()));
        self.reply(ask.method).expect("an answer")
    }

    /// Reads an answer; `None` where the server hung up without one.
    pub(crate) fn reply(&mut self, method: &str) -> Option<Reply> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) => return None,
                Err(error) if is_patience(&error) => panic!("the server hangs: {error}"),
                Err(_) => return None,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            self.chunks(&mut body).ok()?;
        } else if let Some(len) = headers.get("content-length").filter(|_| method != "HEAD") {
            body = vec![0; len.parse().unwrap()];
            self.stream.read_exact(&mut body).ok()?;
        }
        Some(Reply { status, headers, body })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                self.stream.read_exact(&mut byte)?;
                line.push(byte[0]);
            }
            let len = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = vec![0; len + 2];
            self.stream.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..len]);
            if len == 0 {
                return Ok(());
            }
        }
    }

    /// Whether the server hangs up within the patience of a test; what it says before is passed over.
    pub(crate) fn is_hung_up(&mut self) -> bool {
        let mut waste = [0; 4096];
        loop {
            match self.stream.read(&mut waste) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !is_patience(&error),
            }
        }
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Takes any certificate: what is tested here is the server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The name of a manifest.
pub(crate) fn manifest_name(machine: &str, id: u8) -> String {
    format!("captures/{machine}/20261121T031500Z-{}", hex::encode([id; 16]))
}

/// The name of the pack with these bytes.
pub(crate) fn pack_name(bytes: &[u8]) -> String {
    let digest = blake3::hash(bytes).to_hex();
    format!("packs/{}/{digest}", &digest[..2])
}

/// The beginning of a manifest, which is all that the server looks at.
pub(crate) fn manifest(machine: &str, id: u8, revoked: bool) -> Vec<u8> {
    let header = serde_json::json!({
        "machine": machine, "time": "2026-11-21T03:15:00Z", "kind": "full", "id": hex::encode([id; 16]),
        "sequence": 1, "previous": null, "revoked": revoked,
    });
    let header = header.to_string();
    let mut bytes = vec![0x50, 0x56, 0xc8, 0x5d, 0xe8, 0x4b, 0x84, 0x88, 1, 0, 0, 0];
    bytes.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend([0; 64]);
    bytes
}

/// The lease of a capture.
pub(crate) fn lease(machine: &str, id: u8) -> Vec<u8> {
    serde_json::json!({ "manifest": manifest_name(machine, id), "machine": machine }).to_string().into_bytes()
}

/// Bytes that are the same every time and nothing in particular.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
