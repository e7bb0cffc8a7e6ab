//! Many clients at once: what they put comes back, and the server's memory stays bounded.

use crate::command::{Serving, token};
use crate::share::{Ask, Client, noise};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

const CLIENTS: u64 = 32;
const MEMORY_MAX_KIB: u64 = 128 << 10;
/// Bytes in which each client's object differs from the others'.
const OWN_BYTES: usize = 32;

/// 32 MiB where `HALFHOUR_FULL` is set, else a sample of that.
fn object_bytes() -> usize {
    if std::env::var_os("HALFHOUR_FULL").is_some() { 32 << 20 } else { 6 << 20 }
}

/// Puts an object and gets it back; every client's is another, and all are the same but for their beginning.
fn up_and_down(address: SocketAddr, admin: &str, number: u64, rest: &[u8]) {
    let own = noise(number, OWN_BYTES);
    let digest = blake3::Hasher::new().update(&own).update(rest).finalize();
    let name = format!("packs/{number:02x}/{digest}");
    let mut client = Client::connect(address);
    let put = Ask::new("PUT", format!("/default/objects/{name}"), admin)
        .header(format!("Content-Length: {}", OWN_BYTES + rest.len()))
        .header(format!("Halfhour-Blake3: {digest}"));
    client.send(put.head().as_bytes()).unwrap();
    client.stream.write_all(&own).unwrap();
    client.send(rest).unwrap();
    assert_eq!(client.reply("PUT").unwrap().status, 201);
    client.send(Ask::get(&name, admin).head().as_bytes()).unwrap();
    let (mut hasher, mut left) = (blake3::Hasher::new(), OWN_BYTES + rest.len());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "));
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let len = client.stream.read(&mut buffer).unwrap();
        assert!(len > 0 && len <= left);
        hasher.update(&buffer[..len]);
        left -= len;
    }
    assert_eq!(hasher.finalize(), digest);
}

fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_is_bounded_while_many_send_and_fetch() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("default")).unwrap();
    let admin = token(folder.path(), "root", "admin");
    let serving = Serving::start(folder.path(), &[]);
    let rest = noise(0, object_bytes() - OWN_BYTES);
    let address = serving.address();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 1..=CLIENTS {
            let (admin, rest) = (&admin, &rest);
            scope.spawn(move || up_and_down(address, admin, number, rest));
        }
    });
    let (seconds, peak) = (begun.elapsed().as_secs_f64(), peak_kib(serving.pid()));
    println!(
        "{CLIENTS} clients, {} MiB each up and down in {seconds:.1} s; the server's peak is {} MiB",
        object_bytes() >> 20,
        peak >> 10
    );
    assert!(peak <= MEMORY_MAX_KIB, "{peak} KiB");
}

#[test]
fn memory_is_bounded_while_as_many_as_may_stall() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("default")).unwrap();
    let tokens = [token(folder.path(), "one", "admin"), token(folder.path(), "two", "admin")];
    let serving = Serving::start(folder.path(), &[]);
    let body = noise(0, 8 << 20);
    let mut client = Client::connect(serving.address());
    assert_eq!(client.ask(&Ask::put("packs/00/large", &tokens[0], &body)).status, 201);
    let mut stalled = Vec::new();
    for number in 0..90 {
        let token = &tokens[number % 2];
        let mut client = Client::connect(serving.address());
        if number % 3 == 0 {
            client.send(Ask::get("packs/00/large", token).head().as_bytes()).unwrap();
        } else {
            client.send(Ask::put(&format!("packs/00/{number}"), token, &body).head().as_bytes()).unwrap();
            client.send(&body[..(1 << 20) - 1]).unwrap();
        }
        stalled.push(client);
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let peak = peak_kib(serving.pid());
    println!("90 stalled clients; the server's peak is {} MiB", peak >> 10);
    assert!(peak <= MEMORY_MAX_KIB, "{peak} KiB");
}
