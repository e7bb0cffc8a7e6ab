//! The command as a person or systemd runs it: what it prints, its exit status, its advice.

use crate::share::{Ask, Client, PATIENCE, lease};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

const NETSHARE: &str = env!("CARGO_BIN_EXE_netshare");

fn run(arguments: &[&str]) -> Output {
    Command::new(NETSHARE).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server as a process, killed when dropped.
pub(crate) struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(NETSHARE);
        command.arg("serve").arg(folder).args(options);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        Self::logging(command.stderr(Stdio::piped()))
    }

    fn logging(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim_end().to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let authority = self.url.strip_prefix("https://").unwrap().split('/').next().unwrap();
        authority.parse().unwrap()
    }

    /// Sends a signal and waits; exit status and log.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn token(folder: &Path, name: &str, scope: &str) -> String {
    let folder = folder.to_str().unwrap();
    let output = run(&["token", "add", name, "--dir", folder, "--scope", scope]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim_end().to_owned()
}

#[test]
fn a_server_prints_its_url_and_nothing_else_and_its_log_holds_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let (admin, web) = (token(folder.path(), "root", "admin"), token(folder.path(), "web-1", "machine:web"));
    let serving = Serving::start(folder.path(), &[]);
    let url = serving.url.clone();
    let (start, fingerprint) = url.split_once('#').unwrap();
    assert!(start.ends_with("/default") && fingerprint.len() == 64, "{}", serving.url);
    let mut client = Client::connect(serving.address());
    assert_eq!(client.ask(&Ask::new("PUT", "/default", &admin)).status, 201);
    let certificate = client.stream.conn.peer_certificates().unwrap()[0].to_vec();
    assert_eq!(sha256(&certificate), fingerprint);
    let name = format!("leases/{}", hex::encode([7; 16]));
    assert_eq!(client.ask(&Ask::put(&name, &web, &lease("web", 7))).status, 201);
    let path = folder.path().to_str().unwrap();
    assert!(run(&["token", "revoke", "web-1", "--dir", path]).status.success());
    assert_eq!(client.ask(&Ask::get(&name, &web)).status, 401, "a running server follows");
    let (code, log) = serving.end("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("token=\"web-1\"") && log.contains(&name) && log.contains("status=201"), "{log}");
    assert!(!log.contains(&admin) && !log.contains(&web) && !log.contains(&admin[9..]), "{log}");
    let again = Serving::start(folder.path(), &[]);
    assert_eq!(again.url.split_once('#').unwrap().1, fingerprint, "the certificate stays");
    assert_eq!(again.end("-INT").0, Some(130));
}

#[test]
fn a_log_that_cannot_be_written_fails_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let admin = token(folder.path(), "root", "admin");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(NETSHARE);
    command.arg("serve").arg(folder.path()).args(["--listen", "127.0.0.1:0"]).stderr(full);
    let serving = Serving::logging(&mut command);
    let mut client = Client::connect(serving.address());
    assert_eq!(client.ask(&Ask::new("PUT", "/default", &admin)).status, 201);
    assert_eq!(client.ask(&Ask::put("index/a", &admin, b"x")).status, 201);
}

fn sha256(bytes: &[u8]) -> String {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    hex::encode(suite.common.hash_provider.hash(bytes).as_ref())
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let secret = token(folder.path(), "web", "machine:web");
    assert!(secret.starts_with("halfhour_"));
    let only =
        run(&["token", "add", "r", "--dir", path, "--scope", "restore:web,db", "--repo", "a", "--repo", "b"]);
    assert!(only.status.success());
    let list = run(&["token", "list", "--dir", path]);
    let shown = text(&list.stdout);
    assert!(
        shown.contains("machine:web") && shown.contains("restore:db,web") && shown.contains("a,b"),
        "{shown}"
    );
    assert!(!shown.contains(&secret[9..]));
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["token", "list", "--dir", path, "--json"]).stdout).unwrap();
    assert_eq!(json["tokens"][1]["repositories"], serde_json::json!(["a", "b"]));
    let again = run(&["token", "add", "web", "--dir", path, "--scope", "admin"]);
    assert_eq!((again.status.code(), again.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(text(&again.stderr).contains("revoke"), "{}", text(&again.stderr));
    assert!(run(&["token", "revoke", "web", "--dir", path]).status.success());
    assert_eq!(run(&["token", "revoke", "web", "--dir", path]).status.code(), Some(1));
}

#[test]
fn a_token_that_could_not_be_shown_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut command = Command::new(NETSHARE);
    command.args(["token", "add", "web", "--dir", path, "--scope", "admin"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(command.stdout(full).stderr(Stdio::null()).status().unwrap().code(), Some(1));
    assert_eq!(text(&run(&["token", "list", "--dir", path]).stdout), "");
}

#[test]
fn failures_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let (file, absent) = (file.to_str().unwrap(), format!("{path}/absent"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let cases: Vec<(i32, &str, Vec<&str>)> = vec![
        (64, "Usage", vec![]),
        (64, "Usage", vec!["serve"]),
        (64, "invalid value", vec!["serve", path, "--listen", "nonsense"]),
        (64, "CERT,KEY", vec!["serve", path, "--tls", "one"]),
        (64, "is no scope", vec!["token", "add", "x", "--dir", path, "--scope", "root"]),
        (64, "is no name", vec!["token", "add", "a b", "--dir", path, "--scope", "admin"]),
        (64, "is no name", vec!["token", "add", "x", "--dir", path, "--scope", "admin", "--repo", "../x"]),
        (1, "mounted", vec!["serve", &absent]),
        (64, "is no folder", vec!["serve", file]),
        (1, "mounted", vec!["token", "list", "--dir", &absent]),
        (64, "is no folder", vec!["token", "list", "--dir", file]),
        (1, "another program", vec!["serve", path, "--listen", &busy]),
        (1, "another program", vec!["serve", path, "--listen", "127.0.0.1:0", "--metrics", &busy]),
        (1, "no such address", vec!["serve", path, "--listen", "192.0.2.1:7443"]),
        (1, "reading the certificate", vec!["serve", path, "--tls", "/absent/c,/absent/k"]),
        (1, "no certificate", vec!["serve", path, "--tls", "/dev/null,/dev/null"]),
    ];
    for (code, words, arguments) in cases {
        let output = run(&arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[test]
fn own_certificates_are_taken_and_bad_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, wrong) = (path("c.pem"), path("k.pem"), path("w.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&wrong, other.serialize_pem()).unwrap();
    let serving = Serving::start(folder.path(), &["--tls", &format!("{certificate},{key}")]);
    assert_eq!(serving.url.split_once('#').unwrap().1, sha256(made.cert.der()));
    let mut client = Client::connect(serving.address());
    assert_eq!(client.ask(&Ask::new("GET", "/healthz", "")).status, 200);
    assert!(!folder.path().join(".netshare").exists(), "nothing is made that is not needed");
    let output = run(&["serve", &path(""), "--tls", &format!("{certificate},{wrong}")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("certificate and key do not do"), "{}", text(&output.stderr));
}

#[test]
fn what_the_server_may_not_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", NETSHARE, "serve"]);
    if !Command::new("setpriv").args(["--reuid=65534", "true"]).status().is_ok_and(|status| status.success())
    {
        println!("skipped: only root can be somebody else");
        return;
    }
    if !Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", NETSHARE, "--version"])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("skipped: nobody may not run the command where it lies");
        return;
    }
    // A folder of somebody else, and one whose key somebody else keeps.
    let output = nobody.arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("permissions"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_root_adds_belongs_to_the_owner_of_the_share() {
    let folder = tempfile::tempdir().unwrap();
    if std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).is_err() {
        println!("skipped: only root can give files away");
        return;
    }
    token(folder.path(), "web", "machine:web");
    for name in ["", "tokens.json", "lock"] {
        let metadata = fs::metadata(folder.path().join(".netshare").join(name)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 65534, "{name}");
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{name}");
    }
}

#[test]
fn a_socket_from_systemd_is_served() {
    let Ok(_) = Command::new("systemd-socket-activate").arg("--version").output() else {
        println!("skipped: there is no systemd-socket-activate here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let admin = token(folder.path(), "root", "admin");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &address.to_string(), NETSHARE, "serve"]).arg(folder.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut serving = Serving { child, url: String::new() };
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < PATIENCE, "no socket");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let status = Client::connect(address).ask(&Ask::new("PUT", "/default", &admin)).status;
    BufReader::new(serving.child.stdout.as_mut().unwrap()).read_line(&mut serving.url).unwrap();
    assert_eq!(status, 201);
    assert!(serving.url.starts_with(&format!("https://{address}/default#")), "{}", serving.url);
    assert_eq!(serving.end("-TERM").0, Some(0));
}

#[test]
fn the_units_are_in_order_and_leave_little_exposed() {
    let Ok(_) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("skipped: there is no systemd-analyze here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
    for name in ["netshare.service", "netshare.socket"] {
        let unit =
            fs::read_to_string(format!("{units}/{name}")).unwrap().replace("/usr/bin/netshare", NETSHARE);
        fs::write(folder.path().join(name), unit).unwrap();
    }
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(folder.path().join("netshare.service"));
        let output = command.output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let (sound, said) = analyze(&["verify"]);
    assert!(sound && said.is_empty(), "{said}");
    // In tenths: at most 1.5 of 10.
    let (little, said) = analyze(&["security", "--offline=true", "--threshold=15"]);
    assert!(little, "{said}");
}
