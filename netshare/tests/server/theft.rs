//! What a stolen token could do to everybody else: take the last room, come back after its end, or fill memory.

use crate::protocol::Tiny;
use crate::share::{Ask, Share, manifest, manifest_name, noise, pack_name};
use netshare::Tokens;
use std::fs;

#[test]
fn a_put_under_way_does_not_outlive_its_token() {
    let share = Share::start();
    let token = share.token("machine:web");
    let before = share.content();
    let small = (manifest_name("web", 1), manifest("web", 1, false));
    let pack = noise(1, 900_000);
    let large = (pack_name(&pack), pack);
    for (round, (name, body)) in [small, large].iter().enumerate() {
        let token = if round == 0 { token.clone() } else { share.token("machine:web") };
        let mut client = share.client();
        client.send(Ask::put(name, &token, body).head().as_bytes()).unwrap();
        let (first, rest) = body.split_at(body.len() - 10);
        client.send(first).unwrap();
        // That the server took some of it can be seen for the large one only.
        let begun = std::time::Instant::now();
        while round == 1 && share.content() == before && begun.elapsed() < crate::share::PATIENCE {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        Tokens::of(share.folder.path()).revoke("t0").unwrap();
        client.send(rest).unwrap();
        assert_eq!(client.reply("PUT").unwrap().status, 401, "{name}");
        assert!(client.is_hung_up());
        let begun = std::time::Instant::now();
        while share.content() != before && begun.elapsed() < crate::share::PATIENCE {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(share.content() == before, "{name} stays behind");
    }
}

#[test]
fn while_the_disk_is_away_tokens_are_not_called_unknown() {
    let share = Share::start();
    let token = share.token("admin");
    let (here, away) = (share.folder.path().to_owned(), share.folder.path().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    let reply = share.ask(&Ask::get("a", &token));
    fs::rename(&away, &here).unwrap();
    assert_eq!((reply.status, reply.kind().as_str()), (500, "io"));
    assert_eq!(share.ask(&Ask::get("a", &token)).status, 404);
    assert_eq!(share.ask(&Ask::get("a", "unknown")).status, 401);
}

#[test]
fn made_up_names_are_not_remembered() {
    let share = Share::start();
    let token = share.token("machine:web");
    let mut client = share.client();
    for number in 0..50 {
        let path = format!("/made-up-{number}/objects/halfhour.json");
        assert_eq!(client.ask(&Ask::new("GET", path, &token)).status, 404);
    }
    assert_eq!(client.ask(&Ask::get("halfhour.json", &token)).status, 404);
    assert_eq!(client.ask(&Ask::new("GET", "/default/list/packs", &token)).status, 403);
    let figures = share.figures();
    assert!(!figures.contains("made-up"), "{figures}");
    assert!(figures.contains("netshare_errors_total{repository=\"default\",machine=\"web\"} "), "{figures}");
}

#[test]
fn a_machine_leaves_the_room_that_an_admin_needs() {
    let Some(tiny) = Tiny::mount("size=16m") else { return };
    let share = tiny.0.as_ref().unwrap();
    let (machine, admin) = (share.token("machine:web"), share.token("admin"));
    let mut client = share.client();
    let filled = (0..80).find(|seed| {
        let pack = noise(*seed, 300_000);
        let reply = client.ask(&Ask::put(&pack_name(&pack), &machine, &pack));
        assert!([201, 507].contains(&reply.status), "{reply:?}");
        reply.status == 507
    });
    assert!(filled.is_some_and(|count| count > 40), "{filled:?}");
    let report = noise(0, 100);
    let small: Vec<u16> = (0..20)
        .map(|number| {
            share
                .ask(&Ask::put(&format!("reports/web/20261121T031500Z-{number:08x}"), &machine, &report))
                .status
        })
        .collect();
    assert!(small.iter().all(|status| [201, 507].contains(status)), "{small:?}");
    assert_eq!(share.ask(&Ask::put("trash/x", &admin, &noise(1, 500_000))).status, 201);
    Tokens::of(share.folder.path()).revoke("t0").unwrap();
    assert_eq!(share.ask(&Ask::put("reports/web/20261121T031500Z-ffffffff", &machine, &report)).status, 401);
}

#[test]
fn a_snapshot_that_cannot_be_written_is_served_for_reading() {
    let Some(tiny) = Tiny::mount("size=1m") else { return };
    let share = tiny.0.as_ref().unwrap();
    let admin = share.token("admin");
    assert_eq!(share.ask(&Ask::put("keys/1", &admin, b"key")).status, 201);
    let first = netshare::Identity::self_signed(share.folder.path()).unwrap();
    let mount = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(&tiny.1).status().unwrap();
    assert!(mount.success());
    let again = netshare::Identity::self_signed(share.folder.path()).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    assert_eq!(share.ask(&Ask::get("keys/1", &admin)).body, b"key");
    let put = share.ask(&Ask::put("keys/2", &admin, b"key"));
    assert_eq!((put.status, put.kind().as_str()), (500, "io"));
}
