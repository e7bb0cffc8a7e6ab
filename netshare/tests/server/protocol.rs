//! openapi.yaml and the server say the same: every route and status of one is found in the other.

use crate::share::{Ask, Share};
use netshare::Limits;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

/// A route, a method and a status.
type Seen = BTreeSet<(&'static str, String, u16)>;

const HEALTH: &str = "/healthz";
const REPOSITORY: &str = "/{repository}";
const OBJECT: &str = "/{repository}/objects/{name}";
const LIST_ALL: &str = "/{repository}/list";
const LIST: &str = "/{repository}/list/{folder}";

/// What the document says, read by its layout: two spaces a level.
fn documented() -> Seen {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml")).unwrap();
    let paths = text.split("\npaths:\n").nth(1).unwrap().split("\ncomponents:\n").next().unwrap();
    let (mut seen, mut route, mut method) = (Seen::new(), "", String::new());
    for line in paths.lines() {
        let depth = line.len() - line.trim_start().len();
        let key = line.trim().trim_end_matches(':').trim_matches('"');
        if depth == 2 {
            let known = [HEALTH, REPOSITORY, OBJECT, LIST_ALL, LIST];
            route = known
                .into_iter()
                .find(|route| *route == key)
                .unwrap_or_else(|| panic!("{key} is not served"));
        } else if depth == 4 {
            method = key.to_uppercase();
        } else if let (8, Ok(status)) = (depth, key.parse()) {
            assert!(seen.insert((route, method.clone(), status)), "{route} {method} {status} is there twice");
        }
    }
    seen
}

/// The routes and their methods with a path of each in `repository`.
fn routes(repository: &str) -> Vec<(&'static str, &'static str, String)> {
    let mut all = vec![(HEALTH, "GET", HEALTH.to_owned())];
    for method in ["GET", "PUT"] {
        all.push((REPOSITORY, method, format!("/{repository}")));
    }
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        all.push((OBJECT, method, format!("/{repository}/objects/keys/there")));
    }
    all.push((LIST_ALL, "GET", format!("/{repository}/list")));
    all.push((LIST, "GET", format!("/{repository}/list/keys")));
    all
}

fn ask<'a>(method: &'a str, path: &str, token: &'a str) -> Ask<'a> {
    let is_object = method == "PUT" && path.contains("/objects/");
    Ask { body: is_object.then_some(b"there"), ..Ask::new(method, path, token) }
}

fn note(seen: &mut Seen, share: &Share, route: &'static str, ask: &Ask<'_>) -> u16 {
    let reply = share.ask(ask);
    assert_eq!(reply.headers.get("halfhour-share").map(String::as_str), Some("1"), "{route}");
    if reply.status >= 400 && ask.method != "HEAD" {
        assert!(reply.json()["error"]["message"].is_string(), "{route} {}", reply.status);
    }
    seen.insert((route, ask.method.to_owned(), reply.status));
    reply.status
}

/// What happens on every route.
fn try_everywhere(seen: &mut Seen) {
    let share = Share::start();
    let (admin, elsewhere) = (share.token("admin"), share.token_for("admin", &["elsewhere"]));
    note(seen, &share, OBJECT, &ask("PUT", "/default/objects/keys/there", &admin));
    for (route, method, path) in routes("default") {
        note(seen, &share, route, &ask(method, &path, &admin));
        assert_eq!(note(seen, &share, route, &ask(method, &format!("{path}?x"), &admin)), 400);
        if route != HEALTH {
            assert_eq!(note(seen, &share, route, &ask(method, &path, "")), 401, "{method} {route}");
            assert_eq!(note(seen, &share, route, &ask(method, &path, &elsewhere)), 403, "{method} {route}");
        }
        for other in METHODS {
            let known = routes("default").iter().any(|it| it.0 == route && it.1 == other);
            assert!(
                known || share.ask(&Ask::new(other, path.as_str(), &admin)).status == 405,
                "{other} {route}"
            );
        }
    }
    for (route, method, path) in routes("absent").into_iter().filter(|it| (it.0, it.1) != (REPOSITORY, "PUT"))
    {
        let status = note(seen, &share, route, &ask(method, &path, &admin));
        assert!(route == HEALTH || status == 404, "{method} {route}");
    }
    assert_eq!(note(seen, &share, REPOSITORY, &ask("PUT", "/new", &admin)), 201);
    fs::write(share.folder.path().join("file"), b"").unwrap();
    assert_eq!(note(seen, &share, REPOSITORY, &ask("PUT", "/file", &admin)), 409);
    fs::write(share.folder.path().join(".netshare/tokens.json"), b"damaged").unwrap();
    for (route, method, path) in routes("default") {
        let status = note(seen, &share, route, &ask(method, &path, &admin));
        assert!(route == HEALTH || status == 500, "{method} {route}");
    }
    for (limits, wanted) in [
        (Limits { requests: 0, ..Limits::default() }, 503),
        (Limits { requests_per_token: 0, ..Limits::default() }, 429),
    ] {
        let share = Share::with(limits);
        let admin = share.token("admin");
        for (route, method, path) in routes("default") {
            let status = note(seen, &share, route, &ask(method, &path, &admin));
            assert!(route == HEALTH || status == wanted, "{method} {route}");
        }
    }
}

/// What happens to objects only.
fn try_objects(seen: &mut Seen) {
    let share = Share::with(Limits { stall: Duration::from_millis(300), ..Limits::default() });
    let admin = share.token("admin");
    let put = |body: Option<&'static [u8]>| Ask { body, ..Ask::put("a", &admin, b"") };
    let mut wanted = |ask: &Ask<'_>, status| assert_eq!(note(seen, &share, OBJECT, ask), status);
    wanted(&put(Some(b"bytes")), 201);
    wanted(&put(Some(b"bytes")), 200);
    wanted(&put(Some(b"other")), 409);
    wanted(&put(Some(b"other")).header(format!("Halfhour-Blake3: {}", "0".repeat(64))), 422);
    wanted(&put(None), 411);
    let promise = |len: u32| {
        put(None)
            .header(format!("Content-Length: {len}"))
            .header(format!("Halfhour-Blake3: {}", "0".repeat(64)))
    };
    wanted(&promise(5), 408);
    wanted(&promise(u32::MAX), 413);
    wanted(&Ask::get("a", &admin).header("Range: bytes=1-2"), 206);
    wanted(&Ask::get("a", &admin).header("Range: bytes=1-5"), 416);
}

/// A share on a file system with room for almost nothing, unmounted when dropped.
pub(crate) struct Tiny(pub(crate) Option<Share>, pub(crate) std::path::PathBuf);

impl Tiny {
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "none"]).arg(&path);
        if mount.status().is_ok_and(|status| status.success()) {
            fs::create_dir(path.join("default")).unwrap();
            return Some(Self(Some(Share::at(folder, Limits::default())), path));
        }
        assert!(std::env::var_os("CI").is_none(), "no file system can be mounted here");
        println!("skipped: no file system can be mounted here (needs root)");
        None
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        if let Some(mut share) = self.0.take() {
            share.stop();
            drop(Command::new("umount").arg("-l").arg(&self.1).status());
        }
    }
}

/// What happens when the disk is full; whether it could be tried.
fn try_a_full_disk(seen: &mut Seen) -> bool {
    let Some(tiny) = Tiny::mount("size=256k,nr_inodes=24") else { return false };
    let share = tiny.0.as_ref().unwrap();
    let admin = share.token("admin");
    let before = share.content();
    let large = vec![1; 1 << 20];
    assert_eq!(note(seen, share, OBJECT, &Ask::put("packs/00/large", &admin, &large)), 507);
    assert!(share.content() == before, "a part stays behind");
    let full = (0..40).map(|n| note(seen, share, REPOSITORY, &ask("PUT", &format!("/r{n}"), &admin)));
    assert_eq!(full.last(), Some(507));
    true
}

#[test]
fn the_document_and_the_server_say_the_same() {
    let mut seen = Seen::new();
    try_everywhere(&mut seen);
    try_objects(&mut seen);
    let tried_full = try_a_full_disk(&mut seen);
    let documented: Seen =
        documented().into_iter().filter(|(_, _, status)| tried_full || *status != 507).collect();
    let missing: Vec<_> = seen.difference(&documented).collect();
    let never: Vec<_> = documented.difference(&seen).collect();
    assert!(missing.is_empty(), "seen, but not in openapi.yaml: {missing:?}");
    assert!(never.is_empty(), "in openapi.yaml, but never seen: {never:?}");
}
