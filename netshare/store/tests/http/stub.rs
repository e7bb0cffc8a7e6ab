//! A TLS server that answers from a script: the hostile and the broken ones that a real server never is.

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey as Signing;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A connection as a script has it.
pub(crate) type Connection = StreamOwned<ServerConnection, TcpStream>;

/// What a script does with each request: its head, and the connection to answer on. Returns whether to go on.
pub(crate) type Script = dyn Fn(&str, &mut Connection) -> std::io::Result<bool> + Send + Sync;

/// A certificate with a key.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        Self { certificate: cert.der().clone(), key: signing_key.serialize_der() }
    }

    /// The same certificate in the hands of somebody who has not its key.
    pub(crate) fn without_its_key(&self) -> Self {
        Self { certificate: self.certificate.clone(), key: KeyPair::generate().unwrap().serialize_der() }
    }

    pub(crate) fn fingerprint(&self) -> String {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        let digest = suite.common.hash_provider.hash(&self.certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let key = provider.key_provider.load_private_key(key).unwrap();
        let signing = Arc::new(Signing::new(vec![self.certificate.clone()], key));
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        builder.with_no_client_auth().with_cert_resolver(Arc::new(Always(signing)))
    }
}

#[derive(Debug)]
struct Always(Arc<Signing>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<Signing>> {
        Some(Arc::clone(&self.0))
    }
}

/// The running server; it ends when dropped.
pub(crate) struct Stub {
    address: SocketAddr,
    identity: Identity,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stub {
    pub(crate) fn start(
        script: impl Fn(&str, &mut Connection) -> std::io::Result<bool> + Send + Sync + 'static,
    ) -> Self {
        Self::with(Identity::new(), rustls::ALL_VERSIONS, script)
    }

    pub(crate) fn with(
        identity: Identity,
        versions: &[&'static rustls::SupportedProtocolVersion],
        script: impl Fn(&str, &mut Connection) -> std::io::Result<bool> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, end, config) =
            (Arc::clone(&heads), Arc::clone(&ended), Arc::new(identity.config(versions)));
        let script: Arc<Script> = Arc::new(script);
        let connections = Arc::new(AtomicUsize::new(0));
        let opened = Arc::clone(&connections);
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for socket in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, script, config) = (Arc::clone(&seen), Arc::clone(&script), Arc::clone(&config));
                // What a client that gave up leaves behind ends by itself.
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                threads.push(std::thread::spawn(move || {
                    let tls = ServerConnection::new(config).unwrap();
                    let _broken = serve(StreamOwned::new(tls, socket), &seen, &*script);
                }));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Self { address, identity, heads, connections, ended, thread: Some(thread) }
    }

    /// The URL with the right fingerprint.
    pub(crate) fn url(&self) -> String {
        format!("{}#{}", self.place(), self.identity.fingerprint())
    }

    /// The URL without one.
    pub(crate) fn place(&self) -> String {
        format!("https://{}/repo", self.address)
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn serve(mut connection: Connection, seen: &Mutex<Vec<String>>, script: &Script) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        seen.lock().unwrap().push(head.clone());
        if !script(&head, &mut connection)? {
            connection.conn.send_close_notify();
            return connection.flush();
        }
    }
}

/// The length of the body behind a head.
pub(crate) fn content_length(head: &str) -> usize {
    let lower = head.to_ascii_lowercase();
    let line = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    line.map_or(0, |len| len.trim().parse().unwrap())
}

/// Takes the body of a request.
pub(crate) fn body(head: &str, connection: &mut Connection) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; content_length(head)];
    connection.read_exact(&mut body)?;
    Ok(body)
}

/// Answers with a whole response.
pub(crate) fn answer(
    connection: &mut Connection,
    status: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<bool> {
    write!(
        connection,
        "HTTP/1.1 {status}\r\nHalfhour-Share: 1\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )?;
    connection.write_all(body)?;
    connection.flush()?;
    Ok(true)
}
