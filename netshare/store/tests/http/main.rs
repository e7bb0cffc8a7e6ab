//! The client against servers that are hostile, broken, or not the right ones: the right kind of error, soon, and
//! nothing given away. The servers are real TLS servers on loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests say what is wrong by panicking")]

mod cancel;
mod listings;
mod stub;

use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent};
use netshare_store::http::{HttpStore, Refusal, Token};
use netshare_store::{Entry, Nobody, ObjectName, Put, Retry, Store, TestClock};
use std::error::Error as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stub::{Connection, Identity, Stub, answer, body};

const SECRET: &str = "hh_secret_0123456789";
const SILENCE: Duration = Duration::from_millis(400);
/// No refusal may take longer, whatever the server does.
const SOON: Duration = Duration::from_secs(4);

fn store(url: &str) -> HttpStore {
    HttpStore::new(url.parse().unwrap(), Token::new(SECRET).unwrap(), SILENCE).unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn part(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
}

fn chain(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

fn refusal(error: &Error) -> Option<Refusal> {
    error.source().and_then(|source| source.downcast_ref()).cloned()
}

/// The call fails as that, soon, and the message does not tell the token.
fn fails<T: std::fmt::Debug>(kind: ErrorKind, call: impl FnOnce() -> Result<T, Error>) -> Error {
    let start = Instant::now();
    let error = call().unwrap_err();
    let text = chain(&error);
    assert!(start.elapsed() < SOON, "it took {:?}: {text}", start.elapsed());
    assert_eq!(error.kind(), kind, "{text}");
    assert!(!text.contains(SECRET), "{text}");
    error
}

fn listed(store: &HttpStore, folder: &str) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    store.list(folder, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

/// A server that answers every request by this, after it took its body.
fn answers(status: &'static str, headers: &'static str, with: &'static [u8]) -> Stub {
    Stub::start(move |head, connection| {
        body(head, connection)?;
        answer(connection, status, headers, with)
    })
}

/// A server that answers every request by these bytes and closes.
fn says(raw: impl Into<Vec<u8>>) -> Stub {
    let raw = raw.into();
    Stub::start(move |head, connection| {
        body(head, connection)?;
        connection.write_all(&raw)?;
        connection.flush()?;
        Ok(false)
    })
}

#[test]
fn a_request_is_what_the_protocol_says() {
    let stub = Stub::start(|head, connection| {
        let body = body(head, connection)?;
        let digest = format!("halfhour-blake3: {}\r\n", blake3::hash(&body).to_hex());
        assert!(!head.starts_with("PUT /repo/objects") || head.to_ascii_lowercase().contains(&digest));
        answer(connection, "201 Created", "", b"")
    });
    let store = store(&stub.url());
    assert_eq!(store.location(), stub.place());
    store.create().unwrap();
    for size in [0, 1, 128 << 10, (3 << 20) + 1] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| at.to_le_bytes()[0]).collect();
        assert_eq!(store.put(&name("packs/aa/b"), &bytes).unwrap(), Put::Created);
    }
    let heads = stub.heads();
    assert!(heads[0].starts_with("PUT /repo HTTP/1.1\r\n"));
    for head in &heads {
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nauthorization: bearer {SECRET}\r\n")), "{head}");
        assert!(!head.contains("transfer-encoding") && head.matches("content-length").count() <= 1, "{head}");
    }
    assert!(heads[1..].iter().all(|head| head.to_ascii_lowercase().contains("content-length: ")));
    assert!(!format!("{store:?}").contains(SECRET));
}

#[test]
fn statuses_are_kinds_and_no_redirect_is_followed() {
    let elsewhere = answers("201 Created", "", b"");
    for (status, kind) in [
        ("200 OK", None),
        ("204 No Content", Some(ErrorKind::Io)),
        ("400 Bad Request", Some(ErrorKind::Io)),
        ("302 Found", Some(ErrorKind::Denied)),
        ("307 Temporary Redirect", Some(ErrorKind::Denied)),
        ("401 Unauthorized", Some(ErrorKind::Denied)),
        ("403 Forbidden", Some(ErrorKind::Denied)),
        ("404 Not Found", Some(ErrorKind::NotFound)),
        ("407 Proxy Authentication Required", Some(ErrorKind::Io)),
        ("409 Conflict", Some(ErrorKind::Exists)),
        ("413 Content Too Large", Some(ErrorKind::Invalid)),
        ("422 Unprocessable Content", Some(ErrorKind::Io)),
        ("503 Service Unavailable", Some(ErrorKind::Io)),
        ("507 Insufficient Storage", Some(ErrorKind::OutOfSpace)),
    ] {
        let location = format!("Location: {}/objects/a\r\n", elsewhere.place());
        let stub = Stub::start(move |head, connection| {
            body(head, connection)?;
            answer(
                connection,
                status,
                &location,
                format!("{{\"error\":{{\"kind\":\"io\",\"message\":\"\x1b {SECRET}\"}}}}").as_bytes(),
            )
        });
        let store = store(&stub.url());
        match kind {
            None => assert_eq!(store.put(&name("a"), b"x").unwrap(), Put::Present),
            Some(kind) => {
                let error = fails(kind, || store.put(&name("a"), b"x"));
                assert!(!chain(&error).contains('\x1b'));
                let refused = refusal(&error);
                let expected = match &status[..3] {
                    "302" | "307" => Some(Refusal::Redirect),
                    "401" => Some(Refusal::UnknownToken),
                    "403" => Some(Refusal::Scope),
                    _ => None,
                };
                assert_eq!(refused, expected, "{status}");
            }
        }
        assert_eq!(stub.heads().len(), 1, "{status}: asked once");
    }
    assert!(elsewhere.heads().is_empty());
}

#[test]
fn another_certificate_gets_nothing_from_us() {
    let stub = answers("201 Created", "", b"");
    let wrong = format!("{}#{}", stub.place(), Identity::new().fingerprint());
    let error = fails(ErrorKind::Denied, || store(&wrong).put(&name("a"), b"x"));
    assert!(
        matches!(refusal(&error), Some(Refusal::Fingerprint(found)) if stub.url().ends_with(&found.to_string()))
    );
    assert!(stub.heads().is_empty(), "nothing was sent");
}

#[test]
fn a_certificate_that_nobody_vouches_for_gets_nothing_from_us() {
    let stub = answers("201 Created", "", b"");
    match HttpStore::new(stub.place().parse().unwrap(), Token::new(SECRET).unwrap(), SILENCE) {
        Ok(store) => {
            let error = fails(ErrorKind::Denied, || store.put(&name("a"), b"x"));
            assert!(matches!(refusal(&error), Some(Refusal::Certificate(_))), "{error:?}");
        }
        // A system without any roots.
        Err(error) => assert_eq!(refusal(&error), Some(Refusal::NoRoots)),
    }
    assert!(stub.heads().is_empty(), "nothing was sent");
}

#[test]
fn the_right_certificate_without_its_key_gets_nothing_from_us() {
    for version in rustls::ALL_VERSIONS {
        let identity = Identity::new();
        let fingerprint = identity.fingerprint();
        let stub = Stub::with(identity.without_its_key(), &[version], |head, connection| {
            body(head, connection)?;
            answer(connection, "201 Created", "", b"")
        });
        let url = format!("{}#{fingerprint}", stub.place());
        let error = fails(ErrorKind::Denied, || store(&url).put(&name("a"), b"x"));
        assert!(matches!(refusal(&error), Some(Refusal::Certificate(_))), "{error:?}");
        assert!(stub.heads().is_empty(), "nothing was sent");
    }
}

#[test]
fn a_pinned_certificate_is_accepted_by_either_version_of_tls() {
    for version in rustls::ALL_VERSIONS {
        let stub = Stub::with(Identity::new(), &[version], |head, connection| {
            body(head, connection)?;
            answer(connection, "201 Created", "", b"")
        });
        assert_eq!(store(&stub.url()).put(&name("a"), b"x").unwrap(), Put::Created);
    }
}

#[test]
fn what_does_not_speak_tls_gets_nothing_from_us() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/repo#{}", listener.local_addr().unwrap(), Identity::new().fingerprint());
    let plain = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut first = [0; 4096];
        let len = socket.read(&mut first).unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
        first[..len].to_vec()
    });
    let error = fails(ErrorKind::Denied, || store(&url).put(&name("a"), b"x"));
    assert!(matches!(refusal(&error), Some(Refusal::NotTls(_))), "{error:?}");
    let seen = plain.join().unwrap();
    assert!(!seen.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
}

#[test]
fn nobody_there_is_a_failure_that_may_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/repo#{}", listener.local_addr().unwrap(), Identity::new().fingerprint());
    // It takes connections, but nobody answers: a stalled handshake.
    fails(ErrorKind::Io, || store(&url).get(&name("a")));
    drop(listener);
    fails(ErrorKind::Io, || store(&url).get(&name("a")));
}

#[test]
fn bodies_are_as_long_as_they_should_be() {
    let range = "Content-Range: bytes 10-19/100\r\n";
    let partial = |rest: &str, body: &str| {
        format!("HTTP/1.1 206 Partial Content\r\nHalfhour-Share: 1\r\n{rest}\r\n{body}")
    };
    for (raw, get, get_range) in [
        // Cut off.
        ("HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Length: 10\r\n\r\n12345".to_owned(), ErrorKind::Io, ErrorKind::Io),
        // Without a length: nobody can tell whether it is whole.
        ("HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nConnection: close\r\n\r\n12345".to_owned(), ErrorKind::Io, ErrorKind::Io),
        (
            "HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n".to_owned(),
            ErrorKind::Io,
            ErrorKind::Io,
        ),
        // Longer than any object.
        (format!("HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Length: {}\r\n\r\n", 1_u64 << 50), ErrorKind::Io, ErrorKind::Io),
        (
            format!("HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Length: {}\r\n\r\n", (64 << 20) + 1),
            ErrorKind::Io,
            ErrorKind::Io,
        ),
        // Another part, more, less, or a part of nothing.
        (
            partial("Content-Range: bytes 11-20/100\r\nContent-Length: 10\r\n", "0123456789"),
            ErrorKind::Io,
            ErrorKind::Io,
        ),
        (partial(&format!("{range}Content-Length: 11\r\n"), "0123456789A"), ErrorKind::Io, ErrorKind::Io),
        (partial(&format!("{range}Content-Length: 9\r\n"), "012345678"), ErrorKind::Io, ErrorKind::Io),
        (partial(&format!("{range}Content-Length: 10\r\n"), "01234"), ErrorKind::Io, ErrorKind::Io),
        (partial("Content-Length: 10\r\n", "0123456789"), ErrorKind::Io, ErrorKind::Io),
        (
            "HTTP/1.1 416 Range Not Satisfiable\r\nHalfhour-Share: 1\r\nContent-Length: 0\r\n\r\n".to_owned(),
            ErrorKind::Corrupt,
            ErrorKind::Corrupt,
        ),
        // A captive portal.
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 5\r\n\r\nLogin"
                .to_owned(),
            ErrorKind::Io,
            ErrorKind::Io,
        ),
        // Not HTTP at all, or its head never ends.
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), ErrorKind::Io, ErrorKind::Io),
        (String::new(), ErrorKind::Io, ErrorKind::Io),
        (
            format!("HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\n{}", "X-More: and more\r\n".repeat(100_000)),
            ErrorKind::Io,
            ErrorKind::Io,
        ),
        ("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100_000), ErrorKind::Io, ErrorKind::Io),
    ] {
        let stub = says(raw.clone());
        let store = store(&stub.url());
        fails(get, || store.get(&name("a")));
        fails(get_range, || store.get_range(&name("a"), part(10, 10)));
    }
    let whole = says(partial(&format!("{range}Content-Length: 10\r\n"), "0123456789"));
    assert_eq!(store(&whole.url()).get_range(&name("a"), part(10, 10)).unwrap(), b"0123456789");
}

#[test]
fn a_portals_answer_is_no_answer() {
    for status in
        ["200 OK", "201 Created", "204 No Content", "403 Forbidden", "404 Not Found", "409 Conflict"]
    {
        let stub = says(format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"));
        let store = store(&stub.url());
        fails(ErrorKind::Io, || store.put(&name("a"), b"x"));
        fails(ErrorKind::Io, || store.get(&name("a")));
        fails(ErrorKind::Io, || store.len(&name("a")));
        fails(ErrorKind::Io, || store.create());
        fails(ErrorKind::Io, || store.delete(&name("a")));
        fails(ErrorKind::Io, || listed(&store, ""));
    }
}

#[test]
fn silence_ends() {
    let quiet = |connection: &mut Connection, then: &[u8]| -> std::io::Result<bool> {
        connection.write_all(then)?;
        connection.flush()?;
        std::thread::sleep(SILENCE * 4);
        Ok(false)
    };
    let head = Stub::start(move |_, connection| quiet(connection, b""));
    let within = Stub::start(move |_, connection| {
        quiet(connection, b"HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Length: 10\r\n\r\n123")
    });
    for stub in [&head, &within] {
        let store = store(&stub.url());
        fails(ErrorKind::Io, || store.get(&name("a")));
        fails(ErrorKind::Io, || listed(&store, "packs"));
    }
    // An upload that the server does not take: every buffer on the way fills, then nothing moves.
    fails(ErrorKind::Io, || store(&head.url()).put(&name("a"), &vec![7; 48 << 20]));
}

#[test]
fn a_trickle_is_silence_too() {
    let drip = |start: &'static [u8], drop: &'static [u8]| {
        Stub::start(move |_, connection: &mut Connection| {
            connection.write_all(start)?;
            loop {
                connection.write_all(drop)?;
                connection.flush()?;
                std::thread::sleep(SILENCE / 8);
            }
        })
    };
    let stub = drip(b"HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Length: 1000000\r\n\r\n", b".");
    fails(ErrorKind::Io, || store(&stub.url()).get(&name("a")));
    let stub =
        drip(b"HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n");
    fails(ErrorKind::Io, || listed(&store(&stub.url()), ""));
    let stub = drip(b"HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\n", b"X-More: x\r\n");
    fails(ErrorKind::Io, || store(&stub.url()).get(&name("a")));
}

#[test]
fn slow_is_not_silent() {
    let stub = Stub::start(|head, connection| {
        body(head, connection)?;
        write!(connection, "HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Length: {}\r\n\r\n", 12 * 4096)?;
        for _ in 0..12 {
            std::thread::sleep(SILENCE / 4);
            connection.write_all(&[1; 4096])?;
            connection.flush()?;
        }
        Ok(true)
    });
    assert_eq!(
        store(&stub.url()).get(&name("a")).unwrap(),
        vec![1; 12 * 4096],
        "longer than a silence in all"
    );
}

#[test]
fn connections_are_kept_and_an_answer_before_the_end_of_the_body_counts() {
    let stub = Stub::start(|head, connection| {
        if head.contains("/early") {
            answer(connection, "507 Insufficient Storage", "Connection: close\r\n", b"")?;
            // As a server does that wants its answer to arrive: it takes what is still on its way.
            let mut rest = vec![0; 1 << 20];
            while connection.read(&mut rest).is_ok_and(|len| len > 0) {}
            return Ok(false);
        }
        body(head, connection)?;
        answer(connection, "200 OK", "", b"abc")
    });
    let store = store(&stub.url());
    fails(ErrorKind::OutOfSpace, || store.put(&name("early"), &vec![1; 32 << 20]));
    for _ in 0..20 {
        assert_eq!(store.get(&name("a")).unwrap(), b"abc");
        assert_eq!(store.put(&name("a"), &vec![0; 200_000]).unwrap(), Put::Present);
    }
    // One that the server ended, one for the rest; another where the next request comes before the last is put away.
    assert!(stub.connections() <= 4, "{} connections for 41 requests", stub.connections());
}

#[test]
fn with_patience_what_passes_is_not_noticed_and_what_does_not_is_asked_once() {
    const SCRIPT: [&str; 7] = [
        "503 Service Unavailable",
        "500 Internal Server Error",
        "429 Too Many Requests",
        "408 Request Timeout",
        "422 Unprocessable Content",
        "",
        "200 OK",
    ];
    let number = AtomicUsize::new(0);
    let stub = Stub::start(move |head, connection| {
        body(head, connection)?;
        match SCRIPT.get(number.fetch_add(1, Ordering::SeqCst)) {
            // It was stored, but the answer is lost.
            Some(&"") => Ok(false),
            Some(status) => answer(connection, status, "", b""),
            None => answer(connection, "401 Unauthorized", "", b""),
        }
    });
    let clock = Arc::new(TestClock::new(1));
    let store = Retry::with_clock(store(&stub.url()), Duration::from_secs(600), Arc::new(Nobody), clock);
    assert_eq!(store.put(&name("a"), b"x").unwrap(), Put::Present);
    assert_eq!(stub.heads().len(), SCRIPT.len());
    fails(ErrorKind::Denied, || store.get(&name("a")));
    assert_eq!(stub.heads().len(), SCRIPT.len() + 1);
}

#[test]
fn many_threads_ask_at_once_and_from_within_a_listing() {
    let stub = Stub::start(|head, connection| {
        if head.contains("/list/") {
            let text: String = (0..50).map(|n| format!("{{\"name\":\"keys/{n}\",\"len\":3}}\n")).collect();
            return answer(
                connection,
                "200 OK",
                "",
                format!("{text}{{\"end\":true,\"count\":50}}\n").as_bytes(),
            );
        }
        body(head, connection)?;
        answer(connection, "200 OK", "", b"abc")
    });
    let store = store(&stub.url());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                store
                    .list("keys", &mut |entry| store.get(&entry.name).map(|bytes| assert_eq!(bytes, b"abc")))
                    .unwrap();
            });
        }
    });
}
