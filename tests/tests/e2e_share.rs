//! A repository on the share server, over real TLS: the contract, the whole story with tokens of each scope, and what
//! happens when the server is the wrong one, dies, or its disk fails.

use halfhour_tests::junk::{self, Junk};
use halfhour_tests::{Fault, Imager, MIB, Proxy, Scratch, ShareServer, judge, need, tool};
use netshare_store::Store;
use netshare_store::conformance::{Clients, conformance};
use netshare_store::http::{HttpStore, SILENCE, Token};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DISK_MIB: u64 = 40;

/// A disk without a table, full of junk; `part` tells two of its kind apart in a tenth of their bytes.
fn disk(scratch: &Scratch, name: &str, seed: u64) -> String {
    let path = scratch.file(name, DISK_MIB * MIB);
    let mut junk = Junk::new(seed);
    let mut piece = vec![0; 1 << 20];
    for number in 0..DISK_MIB {
        junk.fill(&mut piece);
        junk::poke(Path::new(&path), number * MIB, &piece);
    }
    path
}

/// The program as a machine with this token.
fn client(scratch: &Scratch, state: &str, url: &str, token: &str) -> Imager {
    Imager::new(scratch.path(state), PathBuf::from(url)).with("IMAGER_TOKEN", token)
}

#[test]
fn the_contract_of_a_share_holds_over_https() {
    let scratch = Scratch::new();
    let server = Arc::new(ShareServer::start(&scratch.path("share")));
    let token = server.token("tester", "admin");
    let number = AtomicU64::new(0);
    conformance(move || -> Clients {
        let repository = format!("r{}", number.fetch_add(1, Ordering::SeqCst));
        let (server, token) = (Arc::clone(&server), token.clone());
        let open = move || {
            let url = server.url(&repository).parse().expect("a URL");
            let token = Token::new(&token).expect("a token");
            HttpStore::new(url, token, SILENCE).expect("a share")
        };
        open().create().expect("an admin makes repositories");
        Box::new(move || -> Box<dyn Store> { Box::new(open()) })
    });
}

/// By id too a machine's token shows that machine's captures, and says that there may be others.
fn a_machine_finds_its_own_captures_by_id(alpha: &Imager, restorer: &Imager, target: &str) {
    let ids = |machine: &str| -> Vec<String> {
        let listed = restorer.json(&["list", machine]);
        let captures = listed["captures"].as_array().expect("captures");
        captures.iter().map(|capture| format!("id:{}", capture["id"].as_str().expect("an id"))).collect()
    };
    let (own, others) = (ids("alpha"), ids("beta"));
    for id in [&own[0], &own[1], &own[0][..11].to_owned()] {
        assert!(
            own.contains(&format!("id:{}", alpha.json(&["show", id])["capture"].as_str().expect("an id")))
        );
        assert_eq!(alpha.json(&["verify", id, "--read-data"])["captures"].as_array().map(Vec::len), Some(1));
    }
    alpha.ok(&["diff", &own[0], &own[1]]);
    alpha.ok(&["restore", &own[1], "--bare-metal", "--to", target, "--yes"]);
    for command in [&["show", &others[0]][..], &["verify", &others[0]], &["diff", &own[0], &others[0]]] {
        let said = alpha.fails(11, command);
        let message = said["message"].as_str().expect("words");
        assert!(message.contains("alpha") && message.contains("token"), "{message}");
    }
    let all = alpha.json(&["verify"]);
    assert_eq!(all["captures"].as_array().map(Vec::len), Some(2));
    assert!(
        all["warnings"][0].as_str().is_some_and(|said| said.contains("only the captures of \"alpha\"")),
        "{all}"
    );
    assert_eq!(restorer.json(&["verify"])["warnings"], json!([]));
    // Holding is not a machine's to do; what it is about is found.
    assert_eq!(alpha.fails(1, &["hold", &own[0]])["kind"], "denied");
}

#[test]
fn two_machines_and_a_restore_by_the_command_line() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let url = server.url("default");
    let token = |name: &str, scope: &str| server.token(name, scope);
    let admin = client(&scratch, "admin", &url, &token("boss", "admin"));
    let (alpha, beta) = (token("alpha", "machine:alpha"), token("beta", "machine:beta"));
    let (alpha, beta) = (client(&scratch, "alpha", &url, &alpha), client(&scratch, "beta", &url, &beta));
    let restorer = client(&scratch, "restorer", &url, &token("restorer", "restore"));

    assert!(alpha.fails(10, &["list"])["message"].as_str().is_some(), "there is none yet");
    let refused = alpha.fails(1, &["init"]);
    assert_eq!(refused["kind"], "denied", "only an admin makes repositories");
    admin.ok(&["init"]);
    admin.fails(1, &["init"]);

    let disks = [disk(&scratch, "alpha.img", 1), disk(&scratch, "beta.img", 2)];
    for (machine, name, disk) in [(&alpha, "alpha", &disks[0]), (&beta, "beta", &disks[1])] {
        machine.ok(&["capture", disk, "--machine", name]);
        junk::over(Path::new(disk), 7 * MIB, 3 * MIB);
        machine.ok(&["capture", disk, "--machine", name]);
    }
    let stolen = alpha.fails(1, &["capture", &disks[1], "--machine", "beta"]);
    assert_eq!(stolen["kind"], "denied", "a machine's token is for that machine");
    restorer.fails(1, &["capture", &disks[0], "--machine", "alpha"]);

    let listed = restorer.json(&["list"]);
    assert_eq!(listed["captures"].as_array().map(Vec::len), Some(4));
    for (name, disk) in [("alpha", &disks[0]), ("beta", &disks[1])] {
        let target = scratch.file("target.img", DISK_MIB * MIB);
        restorer.ok(&["restore", name, "--bare-metal", "--to", &target, "--yes"]);
        assert_eq!(judge::whole(&target), judge::whole(disk));
    }
    admin.ok(&["verify", "--read-data"]);
    for reader in [&restorer, &alpha] {
        for command in ["list", "show", "verify"] {
            reader.ok(&[command, "alpha"]);
        }
        reader.ok(&["verify", "alpha", "--read-data"]);
    }
    restorer.ok(&["verify"]);
    let own = alpha.json(&["list"]);
    assert_eq!(own["captures"].as_array().map(Vec::len), Some(2), "a machine's token sees that machine");
    assert_eq!(own, alpha.json(&["list", "alpha"]));
    alpha.fails(1, &["list", "beta"]);
    alpha.fails(1, &["show", "beta"]);
    a_machine_finds_its_own_captures_by_id(&alpha, &restorer, &scratch.name("target.img"));

    // The repository is the same as on the server's own disk.
    let local = Imager::new(scratch.path("local"), scratch.path("share/default"));
    local.ok(&["verify", "--read-data"]);

    // An encrypted one, and what is pinned.
    let sealed = client(&scratch, "admin", &server.url("sealed"), &token("other", "admin"));
    let sealed = sealed.with("IMAGER_PASSWORD", "secret");
    sealed.ok(&["init", "--encrypt"]);
    sealed.ok(&["capture", &disks[0], "--machine", "alpha"]);
    sealed.ok(&["restore", "alpha", "--bare-metal", "--to", &scratch.name("target.img"), "--yes"]);

    let log = server.log();
    assert!(!log.contains("halfhour_") && log.contains("alpha"), "{log}");
}

#[test]
fn tokens_are_advised_about_and_never_told() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let (admin, url) = (server.token("boss", "admin"), server.url("default"));
    let none = Imager::new(scratch.path("state"), PathBuf::from(&url));
    client(&scratch, "state", &url, &admin).ok(&["init"]);
    let advice = |error: serde_json::Value| {
        let text = error.to_string();
        assert!(!text.contains(&admin), "the token is told: {text}");
        error["advice"].as_str().expect("advice").to_owned()
    };
    let missing = advice(none.fails(12, &["list"]));
    assert!(missing.contains("IMAGER_TOKEN"));
    let machine = server.token("m", "machine:m");
    let scope = advice(client(&scratch, "state", &server.url("another"), &machine).fails(1, &["init"]));
    server.revoke("boss");
    let refused = advice(client(&scratch, "state", &url, &admin).fails(12, &["list"]));
    let unknown = advice(client(&scratch, "state", &url, "nonsense").fails(12, &["list"]));
    assert!(refused == unknown && refused != missing && scope != refused && scope != missing);
    client(&scratch, "state", &url, "two words").fails(12, &["list"]);

    let file = scratch.path("token");
    std::fs::write(&file, format!("{machine}\n")).expect("a file");
    none.with("IMAGER_TOKEN_FILE", &file.display().to_string()).ok(&["list", "m"]);
    none.with("IMAGER_TOKEN_FILE", "/nonexistent").fails(1, &["list"]);
    // Debugging tells more, but not that.
    let told = none.with("IMAGER_TOKEN", &machine).with("IMAGER_LOG", "trace").run(&["list", "m"]);
    assert!(told.code == 0 && !told.text().contains(&machine), "{told:?}");
    none.with("IMAGER_TOKEN", &machine).with("IMAGER_TIMEOUT", "soon").fails(64, &["list"]);
}

#[test]
fn the_wrong_server_is_refused_before_anything_is_sent() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let other = ShareServer::start(&scratch.path("other"));
    let token = server.token("boss", "admin");
    let imager = client(&scratch, "state", &server.url("default"), &token);
    imager.ok(&["init"]);

    // Another server at the address: what an attacker in between looks like.
    let place = format!("https://{}/default", other.address());
    let wrong = client(&scratch, "fresh", &format!("{place}#{}", server.fingerprint()), &token);
    let error = wrong.fails(4, &["list"]);
    assert!(error["message"].as_str().is_some_and(|text| text.contains(other.fingerprint())), "{error}");
    let unpinned = client(&scratch, "fresh", &place, &token).fails(4, &["list"]);
    assert_eq!(unpinned["kind"], "denied");
    assert!(!other.log().contains("GET"), "nothing was asked: {}", other.log());

    // The same place under another fingerprint, which this machine remembers differently.
    for fingerprint in ["", &format!("#{}", other.fingerprint())] {
        let changed = format!("https://{}/default{fingerprint}", server.address());
        let error = client(&scratch, "state", &changed, &token).fails(4, &["list"]);
        assert!(error["advice"].as_str().is_some_and(|text| text.contains("repositories.json")), "{error}");
    }
    // Another repository in its place.
    std::fs::remove_dir_all(server.folder().join("default")).expect("a folder of ours");
    client(&scratch, "fresh", &server.url("default"), &token).ok(&["init"]);
    imager.fails(4, &["list"]);
    // And none.
    std::fs::remove_dir_all(server.folder().join("default")).expect("a folder of ours");
    imager.fails(10, &["list"]);
}

/// A certificate for 127.0.0.1 from an authority, that is valid for so many days from then.
fn certificate(scratch: &Scratch, name: &str, from: &str, to: &str) -> String {
    let at = |suffix: &str| scratch.name(&format!("{name}.{suffix}"));
    if !scratch.path("ca.pem").exists() {
        let (key, pem) = (scratch.name("ca.key"), scratch.name("ca.pem"));
        let subject = ["-subj", "/CN=Halfhour test authority", "-days", "30"];
        let arguments = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        tool("openssl", &[&arguments[..], &subject, &["-keyout", &key, "-out", &pem]].concat());
    }
    std::fs::write(at("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").expect("a file");
    let request = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    tool(
        "openssl",
        &[&request[..], &["-subj", "/CN=share", "-keyout", &at("key"), "-out", &at("csr")]].concat(),
    );
    let (ca, ca_key) = (scratch.name("ca.pem"), scratch.name("ca.key"));
    let sign = ["x509", "-req", "-in", &at("csr"), "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
    let dates = ["-not_before", from, "-not_after", to];
    let out = ["-extfile", &at("ext"), "-out", &at("pem")];
    // Dates of one's choice are not in every version.
    if halfhour_tests::try_tool("openssl", &[&sign[..], &dates, &out].concat()).is_err() {
        let days = if to.starts_with("2001") { "-1" } else { "30" };
        tool("openssl", &[&sign[..], &["-days", days], &out].concat());
    }
    format!("{},{}", at("pem"), at("key"))
}

#[test]
fn an_own_authority_is_trusted_and_an_expired_certificate_is_not() {
    if !need::programs(&["openssl"]) {
        return;
    }
    let scratch = Scratch::new();
    let sound = certificate(&scratch, "sound", "20200101000000Z", "20991231235959Z");
    let expired = certificate(&scratch, "expired", "20000101000000Z", "20010101000000Z");
    let roots = scratch.name("ca.pem");
    let place = |server: &ShareServer| format!("https://{}/default", server.address());

    let server = ShareServer::start_with(&scratch.path("sound-share"), Some(sound));
    let imager = client(&scratch, "a", &place(&server), &server.token("boss", "admin"));
    assert_eq!(imager.fails(4, &["init"])["kind"], "denied", "nobody vouches for it");
    imager.with("SSL_CERT_FILE", &roots).ok(&["init"]);
    let by_name = format!("https://localhost:{}/default", server.address().port());
    let error = client(&scratch, "b", &by_name, "x").with("SSL_CERT_FILE", &roots).fails(4, &["list"]);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("name")), "{error}");
    imager.with("SSL_CERT_FILE", "/nonexistent").with("SSL_CERT_DIR", "/nonexistent").fails(4, &["list"]);

    let server = ShareServer::start_with(&scratch.path("expired-share"), Some(expired));
    let token = server.token("boss", "admin");
    let imager = client(&scratch, "c", &place(&server), &token).with("SSL_CERT_FILE", &roots);
    let error = imager.fails(4, &["init"]);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("expired")), "{error}");
    assert!(!server.log().contains("PUT"), "nothing was asked");
    client(&scratch, "d", &server.url("default"), &token).ok(&["init"]);
}

#[test]
fn wrong_bytes_from_the_server_are_damage() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let imager = client(&scratch, "state", &server.url("default"), &server.token("boss", "admin"));
    let disk = disk(&scratch, "disk.img", 4);
    imager.ok(&["init"]);
    imager.ok(&["capture", &disk, "--machine", "m"]);
    let packs = server.folder().join("default/packs").display().to_string();
    let found = tool("find", &[&packs, "-type", "f", "-size", "+4M"]);
    junk::poke(Path::new(found.lines().next().expect("a pack of blocks")), 1 << 20, b"not what was stored");
    imager.run(&["verify", "--read-data"]).expect_code(3);
    let target = scratch.file("target.img", DISK_MIB * MIB);
    imager.run(&["restore", "m", "--bare-metal", "--to", &target, "--yes"]).expect_code(3);
}

#[test]
fn a_server_that_dies_in_the_middle_is_exit_5_and_the_next_run_goes_on() {
    let scratch = Scratch::new();
    let mut server = ShareServer::start(&scratch.path("share"));
    let proxy = Proxy::start(server.address());
    let token = server.token("boss", "admin");
    let imager = client(&scratch, "state", &server.url_through(proxy.address(), "default"), &token);
    imager.ok(&["init"]);
    let disk = disk(&scratch, "disk.img", 3);
    let capture = ["capture", &disk, "--machine", "m"];

    proxy.order(25 * MIB, Fault::Signal);
    let mut running =
        imager.command(&capture).stderr(std::process::Stdio::null()).spawn().expect("it starts");
    wait_until(|| proxy.has_fired());
    server.kill();
    assert_eq!(running.wait().expect("it ends").code(), Some(5));
    assert_eq!(imager.fails(5, &capture)["kind"], "lost", "nobody is there");
    server.restart();
    assert_eq!(imager.json(&["list"])["captures"], json!([]), "nothing of it is visible");
    proxy.heal();
    imager.ok(&capture);

    let target = scratch.file("target.img", DISK_MIB * MIB);
    let restore = ["restore", "m", "--bare-metal", "--to", &target, "--yes"];
    proxy.order(15 * MIB, Fault::Reset);
    imager.fails(5, &restore);
    assert!(proxy.has_fired());
    imager.ok(&restore);
    assert_eq!(judge::whole(&target), judge::whole(&disk));

    // With patience neither is noticed.
    let patient = imager.with("IMAGER_PATIENCE", "30s");
    junk::over(Path::new(&disk), 0, 20 * MIB);
    proxy.order(10 * MIB, Fault::Signal);
    let mut running =
        patient.command(&capture).stderr(std::process::Stdio::null()).spawn().expect("it starts");
    wait_until(|| proxy.has_fired());
    server.restart();
    assert_eq!(running.wait().expect("it ends").code(), Some(0));
    proxy.order(15 * MIB, Fault::Truncate);
    patient.ok(&restore);
    assert_eq!(judge::whole(&target), judge::whole(&disk));
}

fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
