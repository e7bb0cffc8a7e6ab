//! Listings that do not end, are cut off, or lead elsewhere.

use super::stub::Stub;
use super::{fails, listed, says, store};
use imager_units::ErrorKind;
use netshare_store::Store;
use std::io::Write;

#[test]
fn an_endless_listing_ends() {
    let number = std::sync::atomic::AtomicU64::new(0);
    let stub = Stub::start(move |_, connection| {
        connection.write_all(
            b"HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        loop {
            let from = number.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
            let lines: String = (from..from + 1000)
                .map(|number| format!("{{\"name\":\"packs/{number}\",\"len\":1}}\n"))
                .collect();
            write!(connection, "{:x}\r\n{lines}\r\n", lines.len())?;
        }
    });
    let mut count = 0_u64;
    let error = store(&stub.url()).list("packs", &mut |_| {
        count += 1;
        Ok(())
    });
    assert_eq!((error.unwrap_err().kind(), count), (ErrorKind::Corrupt, 4 << 20));
}

#[test]
fn listings_are_whole_or_errors() {
    let line = r#"{"name":"packs/a","len":1,"received":"2026-11-22T00:00:00Z"}"#;
    let listing = |text: String| {
        says(format!(
            "HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n",
            text.len()
        ))
    };
    let whole = listing(format!("{line}\n{{\"end\":true,\"count\":1}}\n"));
    let entries = listed(&store(&whole.url()), "packs").unwrap();
    assert_eq!(
        (entries.len(), entries[0].name.as_str(), entries[0].received.is_some()),
        (1, "packs/a", true)
    );
    let cut = listing(format!("{line}\n"));
    fails(ErrorKind::Io, || listed(&store(&cut.url()), "packs"));
    let elsewhere = listing(format!("{line}\n{{\"end\":true,\"count\":1}}\n"));
    fails(ErrorKind::Corrupt, || listed(&store(&elsewhere.url()), "captures"));
    let long = listing("x".repeat(3 << 20));
    fails(ErrorKind::Corrupt, || listed(&store(&long.url()), "packs"));
}
