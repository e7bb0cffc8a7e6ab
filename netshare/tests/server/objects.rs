//! What clients in order get: objects, ranges, listings, repositories.

use crate::share::{Ask, Share, noise, pack_name};
use std::collections::BTreeSet;

#[test]
fn objects_come_back_as_they_were_put() {
    let share = Share::start();
    let admin = share.token("admin");
    let mut client = share.client();
    for (seed, len) in [(1, 0), (2, 1), (3, 65_536), (4, 262_144), (5, 262_145), (6, 5_000_001)] {
        let (name, bytes) = (format!("packs/{seed:02}/{len}"), noise(seed, len));
        assert_eq!(client.ask(&Ask { method: "HEAD", ..Ask::get(&name, &admin) }).status, 404);
        assert_eq!(client.ask(&Ask::put(&name, &admin, &bytes)).status, 201);
        assert_eq!(client.ask(&Ask::put(&name, &admin, &bytes)).status, 200, "the same bytes were there");
        let got = client.ask(&Ask::get(&name, &admin));
        assert!(got.status == 200 && got.body == bytes, "{name}");
        let head = client.ask(&Ask { method: "HEAD", ..Ask::get(&name, &admin) });
        assert_eq!((head.status, head.headers["content-length"].clone()), (200, len.to_string()));
        assert_eq!(std::fs::read(share.folder.path().join("default").join(&name)).unwrap(), bytes);
    }
    let other = client.ask(&Ask::put("packs/02/1", &admin, b"other"));
    assert_eq!((other.status, other.kind().as_str()), (409, "exists"));
    let mut client = share.client();
    let longer = client.ask(&Ask::put("packs/06/5000001", &admin, &noise(6, 5_000_002)));
    assert_eq!((longer.status, longer.kind().as_str()), (409, "exists"));
    let got = share.ask(&Ask::get("packs/02/1", &admin));
    assert_eq!(got.body, noise(2, 1), "what was there stays");
}

#[test]
fn ranges_are_exact() {
    let share = Share::start();
    let admin = share.token("admin");
    let bytes = noise(1, 1 << 20);
    assert_eq!(share.ask(&Ask::put("a", &admin, &bytes)).status, 201);
    let mut client = share.client();
    let last = bytes.len() - 1;
    for (first, end) in [(0, 0), (0, last), (last, last), (5, 70_000), (4096, 900_000)] {
        let reply = client.ask(&Ask::get("a", &admin).header(format!("Range: bytes={first}-{end}")));
        assert_eq!(reply.status, 206);
        assert!(reply.body == bytes[first..=end]);
        assert_eq!(reply.headers["content-range"], format!("bytes {first}-{end}/{}", bytes.len()));
    }
    for beyond in [format!("0-{}", bytes.len()), "9999999-9999999".to_owned()] {
        let reply = client.ask(&Ask::get("a", &admin).header(format!("Range: bytes={beyond}")));
        assert_eq!((reply.status, reply.kind().as_str()), (416, "corrupt"));
    }
    for nonsense in ["bytes=-5", "bytes=5-", "bytes=3-2", "bytes=0-1,3-4", "lines=0-1"] {
        assert_eq!(client.ask(&Ask::get("a", &admin).header(format!("Range: {nonsense}"))).status, 400);
    }
    let missing = client.ask(&Ask::get("b", &admin).header("Range: bytes=0-1"));
    assert_eq!((missing.status, missing.kind().as_str()), (404, "not_found"));
}

#[test]
fn a_listing_is_whole_and_tells_when_objects_came() {
    let share = Share::start();
    let admin = share.token("admin");
    let mut client = share.client();
    let mut wanted = BTreeSet::new();
    for number in 0..700 {
        let name = format!("packs/{:02x}/{number:064}", number % 7);
        client.ask(&Ask::put(&name, &admin, &noise(number, 3)));
        wanted.insert(name);
    }
    client.ask(&Ask::put("keys/0", &admin, b"key"));
    // A client that could set the time of a file could make an old capture look new.
    let reply = client.ask(&Ask::new("GET", "/default/list/packs", &admin));
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "application/x-ndjson"));
    let text = String::from_utf8(reply.body).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.pop().unwrap(), serde_json::json!({ "end": true, "count": 700 }));
    let now = jiff::Timestamp::now();
    for line in &lines {
        assert!(wanted.remove(line["name"].as_str().unwrap()) && line["len"] == 3, "{line}");
        let received: jiff::Timestamp = line["received"].as_str().unwrap().parse().unwrap();
        assert!(now.duration_since(received).as_secs().abs() < 120, "{line}");
    }
    assert!(wanted.is_empty());
    let folders = [("/default/list", 701), ("/default/list/packs/00", 100), ("/default/list/nothing", 0)];
    for (path, count) in folders {
        let text = String::from_utf8(client.ask(&Ask::new("GET", path, &admin)).body).unwrap();
        assert!(text.ends_with(&format!("{{\"end\":true,\"count\":{count}}}\n")), "{path}: {text}");
    }
}

#[test]
fn no_answer_loses_its_end() {
    let share = Share::start();
    let admin = share.token("admin");
    let bytes = noise(1, 300_000);
    assert_eq!(share.ask(&Ask::put("packs/00/1", &admin, &bytes)).status, 201);
    let rounds = if std::env::var_os("HALFHOUR_FULL").is_some() { 5000 } else { 500 };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (mut client, admin, bytes) = (share.client(), &admin, &bytes);
            scope.spawn(move || {
                for _ in 0..rounds {
                    let list = client.ask(&Ask::new("GET", "/default/list/packs", admin)).body;
                    assert!(list.ends_with(b"{\"end\":true,\"count\":1}\n"), "{}", list.len());
                    assert!(&client.ask(&Ask::get("packs/00/1", admin)).body == bytes);
                }
            });
        }
    });
}

#[test]
fn no_client_changes_when_an_object_came() {
    let share = Share::start();
    let (token, name) = (share.token("machine:web"), pack_name(b"bytes"));
    let put =
        || share.ask(&Ask::put(&name, &token, b"bytes").header("Date: Thu, 01 Jan 1970 00:00:00 GMT")).status;
    let came = || {
        let path = share.folder.path().join("default").join(&name);
        std::fs::metadata(path).unwrap().modified().unwrap()
    };
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(2);
    assert_eq!(put(), 201);
    let first = came();
    assert!(first > before);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(put(), 200);
    assert_eq!(came(), first, "putting the same again makes it newer");
}

#[test]
fn an_admin_makes_repositories_and_deletes_objects() {
    let share = Share::start();
    let admin = share.token("admin");
    let mut client = share.client();
    assert_eq!(client.ask(&Ask::new("GET", "/second", &admin)).status, 404);
    assert_eq!(client.ask(&Ask::new("GET", "/second/objects/a", &admin)).status, 404);
    assert_eq!(client.ask(&Ask::new("GET", "/second/list", &admin)).status, 404);
    assert_eq!(client.ask(&Ask::new("PUT", "/second", &admin)).status, 201);
    assert_eq!(client.ask(&Ask::new("PUT", "/second", &admin)).status, 200);
    let look = client.ask(&Ask::new("GET", "/second", &admin)).json();
    assert_eq!(look, serde_json::json!({ "repository": "second", "scope": "admin", "machine": null }));
    let object = "/second/objects/trash/x";
    let put = Ask { body: Some(b""), ..Ask::new("PUT", object, &admin) };
    assert_eq!(client.ask(&put).status, 201);
    for _ in 0..2 {
        assert_eq!(client.ask(&Ask::new("DELETE", object, &admin)).status, 204);
    }
    assert_eq!(client.ask(&Ask::new("GET", object, &admin)).status, 404);
    let machine = share.token("machine:web");
    let look = client.ask(&Ask::new("GET", "/second", &machine)).json();
    assert_eq!(look, serde_json::json!({ "repository": "second", "scope": "machine", "machine": "web" }));
    let health = share.ask(&Ask::new("GET", "/healthz", ""));
    assert_eq!(health.status, 200);
}

#[test]
fn of_clients_at_once_with_different_bytes_one_wins() {
    let share = Share::start();
    let admin = share.token("admin");
    for (round, name) in ["index/one", "captures/m/one", "packs/00/one"].into_iter().enumerate() {
        let statuses: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..6)
                .map(|seed| {
                    let (share, admin) = (&share, &admin);
                    let len = if round == 0 { 10 } else { 600_000 };
                    scope.spawn(move || share.ask(&Ask::put(name, admin, &noise(seed, len))).status)
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 5, "{statuses:?}");
        let got = share.ask(&Ask::get(name, &admin)).body;
        assert!((0..6).any(|seed| noise(seed, got.len()) == got));
    }
}

#[test]
fn figures_tell_how_old_a_machines_last_capture_is() {
    let share = Share::start();
    let machine = share.token("machine:web");
    assert_eq!(
        share
            .ask(&Ask::put(
                &crate::share::manifest_name("web", 1),
                &machine,
                &crate::share::manifest("web", 1, false)
            ))
            .status,
        201
    );
    assert_eq!(share.ask(&Ask::new("DELETE", "/default/objects/keys/1", &machine)).status, 403);
    let restore = share.token("restore");
    let check = format!("checks/{}/1", hex::encode([1; 16]));
    assert_eq!(share.ask(&Ask::put(&check, &restore, b"{}")).status, 201);
    let text = share.figures();
    let value = |start: &str| {
        let line =
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let labels = "{repository=\"default\",machine=\"web\"}";
    assert!(value(&format!("netshare_seconds_since_capture{labels}")) < 120);
    assert!(value(&format!("netshare_seconds_since_check{labels}")) < 120);
    assert_eq!(value(&format!("netshare_errors_total{labels}")), 1);
    assert_eq!(value("netshare_requests_total{method=\"DELETE\",status=\"403\"}"), 1);
    assert_eq!(value("netshare_requests_total{method=\"PUT\",status=\"201\"}"), 2);
    assert!(!text.contains(&machine) && !text.contains(&restore));
}
