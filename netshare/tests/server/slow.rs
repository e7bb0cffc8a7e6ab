//! Clients that are slow, stall, or take more than their share.

use crate::share::{Ask, Client, PATIENCE, Share, noise};
use netshare::Limits;
use std::io::Read;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(400);

fn impatient() -> Share {
    Share::with(Limits { handshake: SHORT, head: SHORT, stall: SHORT, linger: SHORT, ..Limits::default() })
}

#[test]
fn a_handshake_that_does_not_come_is_cut_off() {
    let share = impatient();
    let mut socket = TcpStream::connect(share.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(socket.read(&mut [0; 10]), Ok(0) | Err(_)));
    assert!(share.figures().contains("netshare_refused_total{reason=\"handshake_timeout\"} 1"));
}

#[test]
fn a_head_that_drips_is_cut_off() {
    let share = impatient();
    let token = share.token("admin");
    let begun = Instant::now();
    let mut client = share.client();
    for byte in Ask::get("a", &token).head().bytes() {
        if client.send(&[byte]).is_err() {
            break;
        }
        sleep(Duration::from_millis(20));
    }
    assert!(client.reply("GET").is_none_or(|reply| reply.status == 408));
    assert!(begun.elapsed() < PATIENCE);
    let mut idle = share.client();
    assert_eq!(idle.ask(&Ask::new("GET", "/healthz", "")).status, 200);
    assert!(idle.is_hung_up(), "an idle connection is kept for ever");
}

#[test]
fn a_body_that_stalls_or_drips_is_cut_off_and_leaves_nothing() {
    let share = impatient();
    let token = share.token("admin");
    let body = noise(1, 2_000_000);
    let before = share.content();
    for (first, drip) in [(0, false), (1_000_000, false), (1_000_000, true)] {
        let mut client = share.client();
        client.send(Ask::put("packs/00/slow", &token, &body).head().as_bytes()).unwrap();
        client.send(&body[..first]).unwrap();
        for byte in body[first..].chunks(1).take(if drip { 100 } else { 0 }) {
            if client.send(byte).is_err() {
                break;
            }
            sleep(Duration::from_millis(10));
        }
        let reply = client.reply("PUT").expect("an answer");
        assert_eq!((reply.status, reply.kind().as_str()), (408, "io"));
        assert!(share.content() == before);
    }
}

#[test]
fn a_slow_body_that_gets_on_is_taken() {
    let share = Share::with(Limits { stall: SHORT, least_bytes: 1000, ..Limits::default() });
    let token = share.token("admin");
    let body = noise(1, 40_000);
    let mut client = share.client();
    client.send(Ask::put("packs/00/slow", &token, &body).head().as_bytes()).unwrap();
    for piece in body.chunks(1000) {
        client.send(piece).unwrap();
        sleep(Duration::from_millis(30));
    }
    assert_eq!(client.reply("PUT").unwrap().status, 201);
}

#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    let share = impatient();
    let token = share.token("admin");
    assert_eq!(share.ask(&Ask::put("packs/00/large", &token, &noise(1, 64 << 20))).status, 201);
    let mut client = share.client();
    client.send(Ask::get("packs/00/large", &token).head().as_bytes()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !share.figures().contains("netshare_in_flight 0") {
        assert!(Instant::now() < deadline, "the server waits for ever");
        sleep(Duration::from_millis(50));
    }
    let mut got = Vec::new();
    assert!(client.stream.read_to_end(&mut got).is_err() || got.len() < 64 << 20);
}

#[test]
fn connections_and_requests_are_limited() {
    let share = Share::with(Limits { connections_per_peer: 4, requests_per_token: 2, ..Limits::default() });
    let token = share.token("admin");
    let mut open: Vec<Client> = (0..4).map(|_| share.client()).collect();
    for client in &mut open {
        assert_eq!(client.ask(&Ask::new("GET", "/healthz", "")).status, 200);
    }
    assert!(share.client().send(b"GET ").is_err(), "a fifth connection");
    let body = noise(1, 1000);
    let [one, two, three, four] = &mut open[..] else { panic!() };
    for (number, client) in [&mut *one, &mut *two].into_iter().enumerate() {
        client.send(Ask::put(&format!("packs/00/{number}"), &token, &body).head().as_bytes()).unwrap();
    }
    sleep(SHORT);
    let reply = three.ask(&Ask::get("a", &token));
    assert_eq!((reply.status, reply.kind().as_str()), (429, "busy"));
    assert!(reply.headers.contains_key("retry-after"));
    let other = share.token("restore");
    assert_eq!(four.ask(&Ask::get("a", &other)).status, 404, "another token has its own limit");
    for client in [one, two] {
        client.send(&body).unwrap();
        assert_eq!(client.reply("PUT").unwrap().status, 201);
    }
    assert_eq!(three.ask(&Ask::get("a", &token)).status, 404);
}

#[test]
fn slow_readers_of_listings_keep_nobody_from_the_disk() {
    let share = Share::with(Limits { disk_calls: 1, listings_per_token: 1, ..Limits::default() });
    let (restore, admin) = (share.token("restore"), share.token("admin"));
    // More than the system's buffers take.
    let long = share.folder.path().join(format!("default/holds/{}", "x".repeat(100)));
    std::fs::create_dir_all(&long).unwrap();
    for number in 0..40_000 {
        std::fs::write(long.join(format!("{number:0100}")), b"").unwrap();
    }
    let mut slow = share.client();
    slow.send(Ask::new("GET", "/default/list/holds", &restore).head().as_bytes()).unwrap();
    sleep(SHORT);
    let again = share.ask(&Ask::new("GET", "/default/list/holds", &restore));
    assert_eq!((again.status, again.kind().as_str()), (429, "busy"), "the listing is under way");
    assert_eq!(share.ask(&Ask::put("packs/00/1", &admin, b"bytes")).status, 201);
    assert_eq!(share.ask(&Ask::get("packs/00/1", &restore)).status, 200);
    assert_eq!(share.ask(&Ask::new("GET", "/default/list/packs", &admin)).status, 200);
    let text = String::from_utf8(slow.reply("GET").unwrap().body).unwrap();
    assert!(text.ends_with("{\"end\":true,\"count\":40000}\n"));
}

#[test]
fn too_many_requests_of_all_are_asked_to_come_back() {
    let share = Share::with(Limits { requests: 1, ..Limits::default() });
    let token = share.token("admin");
    let mut busy = share.client();
    busy.send(Ask::put("packs/00/1", &token, b"abc").head().as_bytes()).unwrap();
    sleep(SHORT);
    let reply = share.ask(&Ask::get("a", &token));
    assert_eq!((reply.status, reply.kind().as_str()), (503, "busy"));
    assert!(reply.headers.contains_key("retry-after"));
    busy.send(b"abc").unwrap();
    assert_eq!(busy.reply("PUT").unwrap().status, 201);
}

#[test]
fn requests_under_way_finish_when_the_server_stops() {
    let mut share = Share::with(Limits { shutdown: Duration::from_secs(10), ..Limits::default() });
    let token = share.token("admin");
    let body = noise(1, 1_000_000);
    let mut idle = share.client();
    assert_eq!(idle.ask(&Ask::new("GET", "/healthz", "")).status, 200);
    let mut client = share.client();
    client.send(Ask::put("packs/00/1", &token, &body).head().as_bytes()).unwrap();
    client.send(&body[..500_000]).unwrap();
    sleep(SHORT);
    let sender = std::thread::spawn(move || {
        sleep(SHORT);
        client.send(&body[500_000..]).unwrap();
        client.reply("PUT").unwrap().status
    });
    let begun = Instant::now();
    share.stop();
    assert!(begun.elapsed() < Duration::from_secs(9), "an idle connection kept the server");
    assert_eq!(sender.join().unwrap(), 201);
    assert!(idle.is_hung_up());
    assert!(TcpStream::connect(share.address).is_err());
}

#[test]
fn a_request_that_does_not_end_does_not_keep_the_server() {
    let mut share = Share::with(Limits { shutdown: SHORT, ..Limits::default() });
    let token = share.token("admin");
    let before = share.content();
    let mut client = share.client();
    client.send(Ask::put("packs/00/1", &token, b"abc").head().as_bytes()).unwrap();
    sleep(SHORT);
    let begun = Instant::now();
    share.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(share.content() == before);
}
