//! Each scope tries everything, what it may and what it must not, by every method on every kind of name.

use crate::share::{Ask, Client, Share, lease, manifest, manifest_name, pack_name};
use netshare::Tokens;
use std::fs;

/// Ids of captures that are there: of `web` and of `db`.
const WEB: u8 = 1;
const DB: u8 = 2;
/// One of `db` that is complete.
const DONE: u8 = 6;

fn id(byte: u8) -> String {
    hex::encode([byte; 16])
}

/// A kind of name: an object that is there, a free name, and what machine `web`, `restore` and `restore:web` may do
/// with it: g get, p put, l list the folder it lies in.
struct Kind {
    there: String,
    free: String,
    machine: &'static str,
    restore: &'static str,
    restore_web: &'static str,
}

fn kind(folder: &str, may: [&'static str; 3]) -> Kind {
    let [machine, restore, restore_web] = may;
    let (there, free) = (format!("{folder}{}", id(0x70)), format!("{folder}{}", id(0x71)));
    Kind { there, free, machine, restore, restore_web }
}

fn kinds() -> Vec<Kind> {
    let manifests = |machine: &str, byte, free, may: [&'static str; 3]| Kind {
        there: manifest_name(machine, byte),
        free: manifest_name(machine, free),
        ..kind("", may)
    };
    let reports = |machine: &str, may: [&'static str; 3]| Kind {
        there: format!("reports/{machine}/20261121T031500Z-00000070"),
        free: format!("reports/{machine}/20261121T031500Z-00000071"),
        ..kind("", may)
    };
    let checks = |byte, may| kind(&format!("checks/{}/", id(byte)), may);
    vec![
        Kind { there: "halfhour.json".into(), free: "other.json".into(), ..kind("", ["g", "g", "g"]) },
        Kind { there: "RESTORE.txt".into(), free: "README.txt".into(), ..kind("", ["g", "g", "g"]) },
        kind("keys/", ["gl", "gl", "gl"]),
        Kind { free: pack_name(b"document"), ..kind("packs/70/", ["gp", "g", "g"]) },
        kind("packs/71/", ["g", "g", "g"]),
        kind("index/", ["gpl", "gl", "gl"]),
        Kind { free: format!("leases/{}", id(9)), ..kind("leases/", ["gpl", "gl", "gl"]) },
        kind("trash/", ["gl", "gl", "gl"]),
        kind("moved/", ["gl", "gl", "gl"]),
        kind("damaged/", ["gl", "gl", "gl"]),
        kind("holds/", ["gl", "gl", "gl"]),
        manifests("web", WEB, 3, ["gpl", "gl", "gl"]),
        manifests("db", DB, 4, ["", "gl", ""]),
        checks(WEB, ["g", "gpl", "gpl"]),
        checks(DB, ["", "gpl", "gpl"]),
        reports("web", ["pl", "gpl", "gpl"]),
        reports("db", ["", "gpl", ""]),
        // What is no report's name is nobody's to put.
        kind("reports/web/", ["l", "gl", "gl"]),
        kind("console/", ["", "gl", "gl"]),
        kind("captures/", ["", "gl", "l"]),
        kind("packs/", ["", "g", "g"]),
    ]
}

/// What would be put at a name by machine `web`.
fn document(name: &str) -> Vec<u8> {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["leases", _] => lease("web", 9),
        ["captures", machine, _] => manifest(machine, 3, false),
        _ => b"document".to_vec(),
    }
}

fn filled() -> Share {
    let share = Share::start();
    for kind in kinds() {
        let path = share.folder.path().join("default").join(&kind.there);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"there").unwrap();
    }
    share
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn list_path(folder: &str) -> String {
    if folder.is_empty() { "/default/list".to_owned() } else { format!("/default/list/{folder}") }
}

/// Tries everything on one kind of name with a token that may do what the letters say.
fn try_all(share: &Share, token: &str, kind: &Kind, may: &str, scope: &str) {
    let mut client = share.client();
    let mut status = |ask: &Ask<'_>, name: &str| {
        let before = share.content();
        let reply = client.ask(ask);
        if reply.status >= 400 {
            assert_eq!(reply.status, 403, "{scope}: {} {name}", ask.method);
            assert!(ask.method == "HEAD" || reply.kind() == "denied");
            assert!(
                share.content() == before,
                "{scope}: {} {name} was refused and changed something",
                ask.method
            );
        }
        if reply.headers.get("connection").is_some_and(|it| it == "close") {
            client = share.client();
        }
        reply.status < 400
    };
    let there = &kind.there;
    for method in ["GET", "HEAD"] {
        let got = status(&Ask { method, ..Ask::get(there, token) }, there);
        assert_eq!(got, may.contains('g'), "{scope}: {method} {there}");
    }
    assert!(!status(&Ask { method: "DELETE", ..Ask::get(there, token) }, there), "{scope}: DELETE {there}");
    let listed = status(&Ask::new("GET", list_path(folder_of(there)), token), folder_of(there));
    assert_eq!(listed, may.contains('l'), "{scope}: list {}", folder_of(there));
    let body = document(&kind.free);
    let put = status(&Ask::put(&kind.free, token, &body), &kind.free);
    assert_eq!(put, may.contains('p'), "{scope}: PUT {}", kind.free);
    if put {
        fs::remove_file(share.folder.path().join("default").join(&kind.free)).unwrap();
    }
    for (method, path) in [("PUT", "/default"), ("PUT", "/third")] {
        assert!(!status(&Ask::new(method, path, token), path), "{scope}: {method} {path}");
    }
    assert!(status(&Ask::new("GET", "/default", token), "/default"));
}

#[test]
fn a_machine_does_what_a_capture_needs_and_nothing_else() {
    let share = filled();
    let token = share.token("machine:web");
    kinds().iter().for_each(|kind| try_all(&share, &token, kind, kind.machine, "machine:web"));
}

#[test]
fn a_restore_token_reads_and_reports() {
    let share = filled();
    let (all, web) = (share.token("restore"), share.token("restore:web"));
    for kind in &kinds() {
        try_all(&share, &all, kind, kind.restore, "restore");
        try_all(&share, &web, kind, kind.restore_web, "restore:web");
    }
    let text =
        |token| String::from_utf8(share.ask(&Ask::new("GET", "/default/list/captures", token)).body).unwrap();
    assert!(text(&all).contains("captures/db/") && text(&all).contains("captures/web/"));
    assert!(!text(&web).contains("captures/db/") && text(&web).contains("captures/web/"));
    let reports = share.ask(&Ask::new("GET", "/default/list/reports", &web));
    assert!(!String::from_utf8(reports.body).unwrap().contains("reports/db/"));
}

#[test]
fn without_a_good_token_nothing_is_told() {
    let share = filled();
    let revoked = share.token("admin");
    Tokens::of(share.folder.path()).revoke("t0").unwrap();
    let unknown = format!("{}0", &revoked[..revoked.len() - 1]);
    let before = share.content();
    let mut answers = Vec::new();
    for token in ["", "x", &unknown, &revoked] {
        let mut client = Client::connect(share.address);
        for kind in kinds() {
            for method in ["GET", "PUT", "DELETE", "HEAD", "POST"] {
                let path = format!("/default/objects/{}", kind.there);
                let reply = client.ask(&Ask::new(method, path, token));
                assert_eq!(reply.status, 401, "{method} {}", kind.there);
                if method == "GET" {
                    answers.push((reply.body, reply.headers.get("www-authenticate").cloned()));
                }
            }
        }
        for (method, path) in
            [("GET", "/default"), ("PUT", "/new"), ("GET", "/default/list"), ("GET", "/absent")]
        {
            assert_eq!(client.ask(&Ask::new(method, path, token)).status, 401, "{method} {path}");
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "the answer tells an unknown token from a revoked one");
    assert!(share.content() == before);
    let twice = Ask::get("halfhour.json", &revoked).header(format!("Authorization: Bearer {revoked}"));
    assert_eq!(share.ask(&twice).status, 401);
}

#[test]
fn a_revoked_token_ends_with_the_next_request_of_an_open_connection() {
    let share = filled();
    let token = share.token("restore");
    let mut client = share.client();
    assert_eq!(client.ask(&Ask::get("halfhour.json", &token)).status, 200);
    Tokens::of(share.folder.path()).revoke("t0").unwrap();
    assert_eq!(client.ask(&Ask::get("halfhour.json", &token)).status, 401);
}

#[test]
fn a_token_for_one_repository_sees_no_other() {
    let share = filled();
    fs::create_dir(share.folder.path().join("second")).unwrap();
    for scope in ["machine:web", "restore", "admin"] {
        let token = share.token_for(scope, &["default"]);
        assert_eq!(share.ask(&Ask::new("GET", "/default", &token)).status, 200);
        for path in
            ["/second", "/absent", "/second/objects/halfhour.json", "/absent/list", "/second/list/keys"]
        {
            assert_eq!(share.ask(&Ask::new("GET", path, &token)).status, 403, "{scope} {path}");
        }
        assert_eq!(share.ask(&Ask::new("PUT", "/absent", &token)).status, 403);
    }
}

#[test]
fn a_machine_cannot_take_the_names_of_another() {
    let share = Share::start();
    let (web, admin) = (share.token("machine:web"), share.token("admin"));
    assert_eq!(share.ask(&Ask::put(&format!("leases/{}", id(DB)), &admin, &lease("db", DB))).status, 201);
    let lease_of = |byte| format!("leases/{}", id(byte));
    let (mine, long) = (manifest_name("web", 3), vec![b' '; 100_000]);
    let (lease_3, lease_5) = (lease_of(3), lease_of(5));
    let index = format!("index/{}", id(DB));
    // A capture of `db` whose lease is over and gone: its id is still its own.
    assert_eq!(
        share.ask(&Ask::put(&manifest_name("db", DONE), &admin, &manifest("db", DONE, false))).status,
        201
    );
    let (done_lease, done_index) = (lease_of(DONE), format!("index/{}", id(DONE)));
    let (done_manifest, under_way) = (manifest_name("web", DONE), manifest_name("web", DB));
    // What a prune moved away is not put again with other bytes.
    let other_pack = pack_name(b"what was there");
    let before = share.content();
    let tries: Vec<(&str, Vec<u8>)> = vec![
        (&lease_3, lease("db", 3)),
        (&lease_5, lease("web", 3)),
        (&lease_3, b"{}".to_vec()),
        (&lease_3, b"".to_vec()),
        (&lease_3, [lease("web", 3), long].concat()),
        (&mine, manifest("db", 3, false)),
        (&mine, manifest("web", 4, false)),
        (&mine, manifest("web", 3, true)),
        (&mine, b"nothing".to_vec()),
        ("captures/web/notes", manifest("web", 3, false)),
        (&index, b"index".to_vec()),
        ("index/notes", b"index".to_vec()),
        ("packs/notes/x", b"pack".to_vec()),
        (&other_pack, b"pack".to_vec()),
        (&done_lease, lease("web", DONE)),
        (&done_index, b"index".to_vec()),
        (&done_manifest, manifest("web", DONE, false)),
        (&under_way, manifest("web", DB, false)),
    ];
    for (name, body) in &tries {
        let reply = share.ask(&Ask::put(name, &web, body));
        assert_eq!((reply.status, reply.kind().as_str()), (403, "denied"), "{name}");
        assert!(share.content() == before, "{name}");
    }
    assert_eq!(share.ask(&Ask::put(&lease_3, &web, &lease("web", 3))).status, 201);
    assert_eq!(share.ask(&Ask::put(&format!("index/{}", id(3)), &web, b"index")).status, 201);
    assert_eq!(share.ask(&Ask::put(&mine, &web, &manifest("web", 3, false))).status, 201);
    assert_eq!(share.ask(&Ask::put(&manifest_name("web", 8), &admin, &manifest("web", 8, true))).status, 201);
}
