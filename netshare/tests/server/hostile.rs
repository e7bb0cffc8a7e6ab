//! Requests that no client in order sends: each gets its status or is hung up on, and leaves nothing on the disk.

use crate::share::{Ask, Client, PATIENCE, Share, noise, pack_name};
use std::io::Write;
use std::net::TcpStream;

const DIGEST: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

/// Sends raw bytes with a good token in place of `TOKEN`; the status, or 0 where the server hung up.
fn raw(share: &Share, token: &str, text: &str) -> u16 {
    let mut client = share.client();
    let text = text.replace("TOKEN", &format!("Authorization: Bearer {token}"));
    client.send(text.as_bytes()).unwrap();
    client.reply("GET").map_or(0, |reply| reply.status)
}

#[test]
fn malformed_requests_are_refused_and_leave_nothing() {
    let share = Share::start();
    let token = share.token("admin");
    let put = "PUT /default/objects/a HTTP/1.1\r\nHost: x\r\nTOKEN\r\n";
    let digest = format!("Halfhour-Blake3: {DIGEST}\r\n");
    let long = "x".repeat(20_000);
    let many = (0..200).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let cases: Vec<(&[u16], String)> = vec![
        // Two readings of where a body ends.
        (&[400], format!("{put}{digest}Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /")),
        (&[400], format!("{put}{digest}Content-Length: 0, 5\r\n\r\n")),
        (
            &[400, 411],
            format!("{put}{digest}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            &[400, 411],
            format!("{put}{digest}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ),
        (&[411], format!("{put}{digest}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        (&[400], format!("{put}{digest}Transfer-Encoding: gzip\r\n\r\n")),
        (&[400, 411], format!("{put}{digest}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n")),
        (&[400], format!("{put}{digest}Content-Length : 0\r\n\r\n")),
        (&[400], format!("{put}{digest} Content-Length: 0\r\n\r\n")),
        // Lengths.
        (&[411], format!("{put}{digest}\r\n")),
        (&[400], format!("{put}{digest}Content-Length: -1\r\n\r\n")),
        (&[400], format!("{put}{digest}Content-Length: +1\r\n\r\n")),
        (&[400], format!("{put}{digest}Content-Length: 0x10\r\n\r\n")),
        (&[400], format!("{put}{digest}Content-Length: 99999999999999999999\r\n\r\n")),
        (&[400, 413, 431], format!("{put}{digest}Content-Length: 18446744073709551615\r\n\r\n")),
        (&[413], format!("{put}{digest}Content-Length: 67108865\r\n\r\n")),
        // Digests.
        (&[400], format!("{put}Content-Length: 0\r\n\r\n")),
        (&[400], format!("{put}{digest}{digest}Content-Length: 0\r\n\r\n")),
        (&[400], format!("{put}Halfhour-Blake3: {}\r\nContent-Length: 0\r\n\r\n", DIGEST.to_uppercase())),
        (&[400], format!("{put}Halfhour-Blake3: {}\r\nContent-Length: 0\r\n\r\n", &DIGEST[1..])),
        (&[422], format!("{put}Halfhour-Blake3: {}\r\nContent-Length: 0\r\n\r\n", "0".repeat(64))),
        // Heads.
        (&[400], "GET /default HTTP/1.1\r\nTOKEN\r\n\r\n".to_owned()),
        (&[400], "GET /default HTTP/1.1\r\nHost: x\r\nHost: y\r\nTOKEN\r\n\r\n".to_owned()),
        (&[400], "GET /default HTTP/1.0\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[0, 400], "GET /default HTTP/2.0\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[0, 400], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (&[400], "GET https://elsewhere/default HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[400], "GET /default?x=1 HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[400], "OPTIONS * HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[400], "CONNECT default:443 HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[400], "GET default HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[431], format!("GET /default HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n")),
        (&[414, 431], format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        (&[400, 431], format!("GET /default HTTP/1.1\r\nHost: x\r\n{many}\r\n")),
        (&[400], "GET /default HTTP/1.1\r\nHost: x\r\nTOKEN\r\nX: a\0b\r\n\r\n".to_owned()),
        (&[400], "\0\u{1}\u{2}nonsense\r\n\r\n".to_owned()),
        // A body where none belongs.
        (&[400], "GET /default HTTP/1.1\r\nHost: x\r\nTOKEN\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        (
            &[400],
            "DELETE /default/objects/a HTTP/1.1\r\nHost: x\r\nTOKEN\r\nContent-Length: 1\r\n\r\na".to_owned(),
        ),
        // Methods.
        (&[405], "POST /default/objects/a HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[405], "TRACE /default HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[405], "PUT /default/list HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[405], "DELETE /default HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
        (&[405], "BREW /default HTTP/1.1\r\nHost: x\r\nTOKEN\r\n\r\n".to_owned()),
    ];
    let before = share.content();
    for (wanted, text) in &cases {
        let status = raw(&share, &token, text);
        let shown = text.chars().take(200).collect::<String>();
        assert!(wanted.contains(&status), "{status}, not {wanted:?}:\n{shown}");
        assert!(share.content() == before, "something was written:\n{shown}");
    }
    assert_eq!(share.ask(&Ask::new("GET", "/healthz", "")).status, 200);
}

#[test]
fn a_length_said_twice_is_one_length() {
    let share = Share::start();
    let token = share.token("admin");
    // Nothing can be read into it: RFC 9112, section 6.3.
    let put = "PUT /default/objects/a HTTP/1.1\r\nHost: x\r\nTOKEN\r\n";
    let lengths = format!("Content-Length: 0\r\nContent-Length: 0\r\nHalfhour-Blake3: {DIGEST}\r\n\r\n");
    assert_eq!(raw(&share, &token, &(put.to_owned() + &lengths)), 201);
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let share = Share::start();
    let token = share.token("admin");
    std::fs::write(share.folder.path().join("secret"), b"secret").unwrap();
    let before = share.content();
    for path in [
        "/",
        "//default",
        "/default/",
        "/default//objects/a",
        "/default/objects/",
        "/default/objects/../../secret",
        "/default/objects/..",
        "/default/objects/./a",
        "/default/../secret",
        "/../../etc/passwd",
        "/default/objects/%2e%2e/%2e%2e/secret",
        "/default/objects/..%2f..%2fsecret",
        "/default/objects/%61",
        "/default/objects/a%00",
        "/default/objects/a%",
        "/%64efault/objects/a",
        "/default/objects/a\\b",
        "/default/objects/..\\..\\secret",
        "/default/objects/.hidden",
        "/default/objects/.tmp-1-2-3",
        "/default/objects/a.",
        "/default/objects/nul",
        "/default/objects/a:b",
        "/default/objects/a/b/c/d/e",
        "/default/objects/\u{e4}",
        "/default/objects/\u{2024}\u{2024}/secret",
        "/default/list/",
        "/default/list/..",
        "/default/list/%2e%2e",
        "/default/list/a//b",
        "/.netshare",
        "/.netshare/objects/tokens.json",
        "/.netshare/list",
        "/DEFAULT",
        "/default/other",
        "/default/objects",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let ask = Ask { body: (method == "PUT").then_some(b"x"), ..Ask::new(method, path, &token) };
            let reply = share.ask(&ask);
            assert_eq!(reply.status, 400, "{method} {path}");
        }
    }
    assert!(share.content() == before);
}

#[test]
fn a_body_that_ends_early_or_is_not_what_it_says_leaves_nothing() {
    let share = Share::start();
    let token = share.token("admin");
    let body = noise(1, 3_000_000);
    let before = share.content();
    for len in [0, 1, 100_000, 2_999_999] {
        let ask = Ask::put("packs/00/cut", &token, &body);
        let mut client = share.client();
        client.send(ask.head().as_bytes()).unwrap();
        client.send(&body[..len]).unwrap();
        client.stream.conn.send_close_notify();
        drop(client.stream.flush());
        drop(client.stream.sock.shutdown(std::net::Shutdown::Write));
        assert!(client.reply("PUT").is_none_or(|reply| reply.status == 400));
        assert!(client.is_hung_up());
    }
    for at in [0, 300_000, 2_999_999] {
        let mut damaged = body.clone();
        damaged[at] ^= 1;
        let ask = Ask::put("packs/00/other", &token, &damaged)
            .header(format!("Halfhour-Blake3: {}", blake3::hash(&body)));
        let reply = share.ask(&ask);
        assert_eq!((reply.status, reply.kind().as_str()), (422, "corrupt"));
    }
    assert!(share.content() == before, "{:?}", share.content().keys());
    assert_eq!(share.ask(&Ask::put("packs/00/cut", &token, &body)).status, 201);
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let share = Share::start();
    let token = share.token("admin");
    let body = noise(1, 2_000_000);
    let before = share.content();
    for _ in 0..5 {
        let ask = Ask::put("packs/00/vanished", &token, &body);
        let mut client = share.client();
        client.send(ask.head().as_bytes()).unwrap();
        client.send(&body[..1_500_000]).unwrap();
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    while share.content() != before {
        assert!(std::time::Instant::now() < deadline, "{:?}", share.content().keys());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let share = Share::start();
    let token = share.token("restore");
    let body = noise(1, 32 << 20);
    for _ in 0..4 {
        let reply = share.ask(&Ask::put("packs/00/large", &token, &body));
        assert_eq!((reply.status, reply.headers["connection"].as_str()), (403, "close"));
    }
    let head = Ask { body: None, ..Ask::put("packs/00/large", &token, b"") }
        .header(format!("Content-Length: {}", u32::MAX))
        .header(format!("Halfhour-Blake3: {DIGEST}"));
    let admin = share.token("admin");
    let reply = share.ask(&Ask { token: &admin, ..head });
    assert_eq!((reply.status, reply.kind().as_str()), (413, "invalid"));
}

#[test]
fn pipelined_requests_are_answered_one_by_one_and_nothing_is_smuggled() {
    let share = Share::start();
    let (machine, admin) = (share.token("machine:web"), share.token("admin"));
    assert_eq!(share.ask(&Ask::put("keys/1", &admin, b"key")).status, 201);
    let inner = format!(
        "DELETE /default/objects/keys/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {admin}\r\n\r\n"
    );
    // A request inside the body of another is that one's bytes.
    let reply = share.ask(&Ask::put(&pack_name(inner.as_bytes()), &machine, inner.as_bytes()));
    assert_eq!(reply.status, 201);
    // Behind a refused body it is never read.
    let mut client = share.client();
    let refused = Ask::put("trash/1", &machine, inner.as_bytes());
    client.send(format!("{}{inner}{inner}", refused.head()).as_bytes()).unwrap();
    assert_eq!(client.reply("PUT").unwrap().status, 403);
    assert!(client.is_hung_up());
    assert_eq!(share.ask(&Ask::get("keys/1", &admin)).status, 200);
    let mut client = share.client();
    let ask = Ask::get("keys/1", &admin).head();
    client.send(format!("{ask}{ask}{ask}").as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(client.reply("GET").unwrap().status, 200);
    }
}

#[test]
fn what_is_no_tls_is_hung_up_on() {
    let share = Share::start();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 600]] {
        let mut socket = TcpStream::connect(share.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytes).unwrap();
        drop(socket.shutdown(std::net::Shutdown::Write));
        let mut waste = Vec::new();
        drop(std::io::Read::read_to_end(&mut socket, &mut waste));
        assert!(!waste.starts_with(b"HTTP"));
    }
    assert_eq!(Client::connect(share.address).ask(&Ask::new("GET", "/healthz", "")).status, 200);
    assert!(
        share.figures().contains("netshare_refused_total{reason=\"handshake\"} 3"),
        "{}",
        share.figures()
    );
}

#[test]
fn damaged_requests_neither_stop_the_server_nor_write() {
    let share = Share::start();
    let token = share.token("restore");
    let sound = [
        Ask::get("keys/1", &token).header("Range: bytes=0-5").head(),
        Ask::new("GET", "/default/list/captures", &token).head(),
        Ask::put("packs/00/1", &token, b"body").head() + "body",
        Ask::new("PUT", "/other", &token).head(),
    ];
    let rounds = if std::env::var_os("HALFHOUR_FULL").is_some() { 5000 } else { 200 };
    let before = share.content();
    for round in 0..rounds {
        let random = noise(round, 64);
        let mut bytes = sound[usize::from(random[0]) % sound.len()].clone().into_bytes();
        for change in random[1..].chunks_exact(4).take(usize::from(random[63]) % 6 + 1) {
            if bytes.is_empty() {
                break;
            }
            let at = (usize::from(change[0]) << 8 | usize::from(change[1])) % bytes.len();
            match change[2] % 4 {
                0 => bytes[at] = change[3],
                1 => bytes.insert(at, change[3]),
                2 => _ = bytes.remove(at),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let mut client = share.client();
        drop(client.send(&bytes));
        client.stream.conn.send_close_notify();
        drop(client.stream.flush());
        if let Some(reply) = client.reply("GET") {
            assert!(
                (200..500).contains(&reply.status),
                "{} to {}",
                reply.status,
                String::from_utf8_lossy(&bytes)
            );
        }
    }
    assert!(share.content() == before);
    assert_eq!(share.ask(&Ask::new("GET", "/healthz", "")).status, 200);
}
