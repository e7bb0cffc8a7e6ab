//! The network block device, judged by libnbd's and QEMU's clients, and by one of our own that misbehaves.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a small disk, and what fails has failed"
)]

mod captured;
mod nbd_client;

use captured::{Fixture, MAKERS, PARTITIONS, command, have, noise, run, text};
use imager::export::{self, Format, Subject};
use imager::monitor::Silent;
use imager::nbd::{self, Address, Listener, ServeReport};
use imager_disk::ReadAt;
use imager_image::manifest::Manifest;
use imager_image::names;
use imager_units::{ErrorKind, Extent};
use nbd_client::{Client, INVAL, IO, OVERFLOW, PERM};
use proptest::test_runner::{Config, TestRunner};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Stops the server however the test ends.
struct Stop<'m>(&'m Silent);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Serves a capture at a socket while `work` runs.
fn serving(fixture: &Fixture, manifest: &Manifest, work: impl FnOnce(&Listener, &Path)) -> ServeReport {
    let socket = fixture.path("nbd.sock");
    let listener = Listener::bind(&Address::Unix(socket.clone())).unwrap();
    let exports = nbd::exports(&fixture.repository, manifest).unwrap();
    let monitor = Silent::default();
    let report = std::thread::scope(|scope| {
        let server = scope.spawn(|| nbd::serve(&listener, &exports, &monitor).unwrap());
        let stop = Stop(&monitor);
        work(&listener, &socket);
        drop(stop);
        server.join().unwrap()
    });
    drop(listener);
    assert!(!socket.exists());
    report
}

/// The disk as exports give it.
fn raw(fixture: &Fixture, manifest: &Manifest, subject: &Subject, name: &str) -> PathBuf {
    let file = fixture.path(name);
    export::run(&fixture.repository, manifest, subject, &file, Format::Raw, &Silent::default()).unwrap();
    file
}

#[test]
fn libnbd_lists_maps_and_copies() {
    if !have(&MAKERS) || !have(&["nbdinfo", "nbdcopy"]) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let disk = raw(&fixture, &manifest, &Subject::Disk(1), "disk");
    let volume = raw(&fixture, &manifest, &Subject::Volume("2".to_owned()), "volume");
    let exports = nbd::exports(&fixture.repository, &manifest).unwrap();
    let report = serving(&fixture, &manifest, |listener, _| {
        let info: serde_json::Value =
            serde_json::from_str(&run("nbdinfo", &["--list", "--json", &listener.uri("")])).unwrap();
        let names: Vec<_> = info["exports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["export-name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["disk1", "volume-1", "volume-2", "volume-3", "volume-4"]);
        assert_eq!(info["protocol"], "newstyle-fixed");
        for (export, shown) in exports.iter().zip(info["exports"].as_array().unwrap()) {
            assert_eq!(shown["export-size"], export.view.geometry().size.get());
            assert_eq!(
                (&shown["is_read_only"], &shown["can_multi_conn"], &shown["can_df"]),
                (&true.into(), &true.into(), &true.into())
            );
            assert_eq!(shown["description"], export.description.as_str());
            assert_eq!(
                (&shown["block_size_minimum"], &shown["block_size_maximum"]),
                (&1.into(), &(32 << 20).into())
            );
            assert_eq!(shown["contexts"], serde_json::json!(["base:allocation"]));
        }
        let one: serde_json::Value =
            serde_json::from_str(&run("nbdinfo", &["--json", &listener.uri("volume-3")])).unwrap();
        assert_eq!(one["exports"][0]["export-size"], PARTITIONS[2].1 << 20);
        assert!(!command("nbdinfo").arg(listener.uri("volume-9")).output().unwrap().status.success());

        // The map is the view's: data where it says data, holes that read as zeros elsewhere.
        for (name, export) in [("disk1", &exports[0]), ("volume-2", &exports[2])] {
            let map: serde_json::Value =
                serde_json::from_str(&run("nbdinfo", &["--map", "--json", &listener.uri(name)])).unwrap();
            let number = |entry: &serde_json::Value, key: &str| entry[key].as_u64().unwrap();
            let mut end = 0;
            let mut data = imager_units::ExtentSet::new();
            for entry in map.as_array().unwrap() {
                assert_eq!(number(entry, "offset"), end);
                let extent = Extent::between(
                    imager_units::ByteOffset::new(end),
                    imager_units::ByteOffset::new(end + number(entry, "length")),
                );
                end += number(entry, "length");
                match number(entry, "type") {
                    0 => data.insert(extent),
                    kind => assert_eq!(kind, 3),
                }
            }
            assert_eq!(end, export.view.geometry().size.get());
            assert_eq!(data, export.view.data(export.view.geometry().extent()).unwrap());
        }

        for (name, original, options) in [
            ("", &disk, &["--connections=4", "--threads=4"][..]),
            ("disk1", &disk, &["--synchronous", "--request-size=65536"]),
            ("disk1", &disk, &["--no-extents", "--request-size=33554432"]),
            ("volume-2", &volume, &["--requests=8"]),
        ] {
            let copy = fixture.path("copy");
            let uri = listener.uri(name);
            let arguments: Vec<&str> = options.iter().copied().chain([uri.as_str(), text(&copy)]).collect();
            run("nbdcopy", &arguments);
            assert!(fs::read(&copy).unwrap() == fs::read(original).unwrap(), "{name} {options:?}");
            fs::remove_file(copy).unwrap();
        }
    });
    assert!(report.clients > 10 && report.read_bytes > 100 << 20, "{report:?}");
}

#[test]
fn qemu_reads_the_same_over_either_kind_of_socket() {
    if !have(&MAKERS) || !have(&["qemu-img"]) {
        return;
    }
    let fixture = Fixture::with_secret(Some(b"secret"));
    let manifest = fixture.capture();
    let disk = raw(&fixture, &manifest, &Subject::Disk(1), "disk");
    let same = |uri: &str| {
        let compared = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&disk), uri]);
        assert!(compared.contains("identical"), "{compared}");
    };
    serving(&fixture, &manifest, |listener, _| {
        same(&listener.uri("disk1"));
        let copy = fixture.path("copy");
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &listener.uri(""), text(&copy)]);
        assert!(fs::read(copy).unwrap() == fs::read(&disk).unwrap());
        let map = |uri: &str| run("qemu-img", &["map", "-f", "raw", "--output=json", uri]);
        assert!(map(&listener.uri("disk1")).contains("\"zero\": true"));
    });
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let exports = nbd::exports(&fixture.repository, &manifest).unwrap();
    let monitor = Silent::default();
    std::thread::scope(|scope| {
        scope.spawn(|| nbd::serve(&listener, &exports, &monitor).unwrap());
        let _stop = Stop(&monitor);
        same(&listener.uri("disk1"));
    });
}

fn still_serves(socket: &Path, original: &[u8]) {
    let (mut client, size) = Client::simple(socket, "disk1");
    assert_eq!(size, original.len() as u64);
    assert!(client.read_simple(0, 4096).unwrap() == original[..4096]);
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_client_goes_on() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let original = fs::read(raw(&fixture, &manifest, &Subject::Disk(1), "disk")).unwrap();
    let end = original.len() as u64;
    serving(&fixture, &manifest, |_, socket| {
        // The oldest way, with 124 zeros.
        let mut client = Client::connect(socket).greet(0);
        client.option(1, b"");
        assert_eq!((client.u64(), client.u16()), (end, 1 | 2 | 1 << 8));
        assert_eq!(client.bytes::<124>(), [0; 124]);
        assert!(client.read_simple(512, 512).unwrap() == original[512..1024]);

        let (mut client, _) = Client::simple(socket, "");
        for (offset, len, expected) in [
            (end - 1, 2, INVAL),
            (end, 1, INVAL),
            (u64::MAX, 1, INVAL),
            (u64::MAX - 3, u32::MAX, INVAL),
            (0, u32::MAX, INVAL),
            (0, (32 << 20) + 1, OVERFLOW),
        ] {
            assert_eq!(client.read_simple(offset, len), Err(expected), "{len} at {offset}");
        }
        assert!(client.read_simple(0, 32 << 20).unwrap() == original[..32 << 20]);
        assert!(client.read_simple(end - 1, 1).unwrap() == original[original.len() - 1..]);
        assert!(client.read_simple(end, 0).unwrap().is_empty());
        for (kind, flags, expected) in [
            (3, 0, INVAL),
            (4, 0, PERM),
            (5, 0, INVAL),
            (6, 0, PERM),
            (7, 0, INVAL),
            (8, 0, INVAL),
            (999, 0, INVAL),
            (0, 1 << 2, INVAL),
            (0, 0x8000, INVAL),
        ] {
            client.request(kind, flags, 0, 512);
            assert_eq!(client.simple_reply(), expected, "request {kind}");
        }
        for len in [0, 1, 512, 3_000_000] {
            client.request(1, 0, 0, len);
            client.stream.write_all(&vec![1; len as usize]).unwrap();
            assert_eq!(client.simple_reply(), PERM);
        }
        assert!(client.read_simple(0, 512).unwrap() == original[..512]);
        client.request(2, 0, 0, 0);
        assert!(client.is_ended());

        let mut client = Client::structured(socket, "disk1");
        for (kind, flags, offset, len, expected) in [
            (0, 0, end, 1, INVAL),
            (0, 4, 0, (1 << 20) + 1, OVERFLOW),
            (0, 8, 0, 1, INVAL),
            (7, 4, 0, 1, INVAL),
            (7, 0, end, 1, INVAL),
            (7, 0, 0, 0, INVAL),
            (4, 0, 0, 1, PERM),
            (77, 0, 0, 1, INVAL),
        ] {
            client.request(kind, flags, offset, len);
            assert_eq!(client.error(), expected, "request {kind} {flags} {offset} {len}");
        }
        // Unfragmented: one chunk, zeros and all.
        client.request(0, 4, 0, 1 << 20);
        let chunks = client.chunks();
        assert!(chunks.len() == 1 && chunks[0].0 == 1 && chunks[0].1[8..] == original[..1 << 20]);
        // Fragmented: together the same, and there are holes.
        let (mut copy, mut holes) = (vec![0xaa_u8; 32 << 20], 0);
        client.request(0, 0, 0, 32 << 20);
        for (kind, payload) in client.chunks() {
            let at = u64::from_be_bytes(payload[..8].try_into().unwrap()) as usize;
            if kind == 1 {
                copy[at..at + payload.len() - 8].copy_from_slice(&payload[8..]);
            } else {
                assert_eq!(kind, 2);
                let len = u32::from_be_bytes(payload[8..12].try_into().unwrap()) as usize;
                copy[at..at + len].fill(0);
                holes += 1;
            }
        }
        assert!(copy == original[..32 << 20] && holes > 0);
        client.request(0, 0, 100, 0);
        assert_eq!(client.chunks(), [(0, Vec::new())]);
        client.request(7, 8, 0, 100 << 20);
        let chunks = client.chunks();
        assert_eq!((chunks[0].0, chunks[0].1.len()), (5, 12));
    });
}

#[test]
fn options_are_answered_or_refused() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let original = fs::read(raw(&fixture, &manifest, &Subject::Disk(1), "disk")).unwrap();
    const ERR_UNSUPPORTED: u32 = 0x8000_0001;
    const ERR_INVALID: u32 = 0x8000_0003;
    const ERR_UNKNOWN: u32 = 0x8000_0006;
    serving(&fixture, &manifest, |_, socket| {
        let mut client = Client::connect(socket).greet(1);
        for (option, data, expected) in [
            (3, &b"x"[..], ERR_INVALID),
            (5, b"", ERR_UNSUPPORTED),
            (11, b"", ERR_UNSUPPORTED),
            (12345, b"whatever", ERR_UNSUPPORTED),
            (6, b"", ERR_INVALID),
            (6, b"\0\0\0\x01x\0\0", ERR_UNKNOWN),
            (7, b"\0\0\0\x01x\0\0", ERR_UNKNOWN),
            (7, b"\xff\xff\xff\xffx\0\0", ERR_INVALID),
            (7, b"\0\0\0\0\0\x02\0\0", ERR_INVALID),
            (10, b"\0\0\0\0\0\0\0\0", ERR_INVALID),
            (8, b"x", ERR_INVALID),
            (8, b"", 1),
            (9, b"\0\0\0\0\0\0\0\x01", ERR_INVALID),
            (9, b"\0\0\0\x01x\0\0\0\0", ERR_UNKNOWN),
            (10, b"\0\0\0\0\xff\xff\xff\xff", ERR_INVALID),
            (10, b"\0\0\0\0\0\0\0\x01\0\0\0\x01y", 1),
        ] {
            assert_eq!(client.ask(option, data), expected, "option {option} {data:?}");
        }
        // Listing without a query, and with one that ends at the colon.
        for query in [&b"\0\0\0\0\0\0\0\0"[..], b"\0\0\0\x05disk1\0\0\0\x01\0\0\0\x05base:"] {
            client.option(9, query);
            assert_eq!(client.reply(9), (4, b"\0\0\0\0base:allocation".to_vec()));
            assert_eq!(client.reply(9).0, 1);
        }
        // A context chosen for one export is not another's.
        client.option(10, b"\0\0\0\x08volume-2\0\0\0\x01\0\0\0\x0fbase:allocation");
        assert_eq!((client.reply(10).0, client.reply(10).0), (4, 1));
        client.option(7, b"\0\0\0\x05disk1\0\0");
        while client.reply(7).0 != 1 {}
        client.request(7, 0, 0, 512);
        assert_eq!(client.error(), INVAL);

        let mut client = Client::connect(socket).greet(1);
        assert_eq!(client.ask(2, b""), 1);
        assert!(client.is_ended());
        // What cannot be refused politely.
        let flags = Client::connect(socket).greet(4);
        let mut name = Client::connect(socket).greet(1);
        name.option(1, b"no such");
        let mut long = Client::connect(socket).greet(1);
        long.stream.write_all(b"IHAVEOPT\0\0\0\x03\xff\xff\xff\xff").unwrap();
        let mut magic = Client::connect(socket).greet(1);
        magic.stream.write_all(b"IHAVENOT\0\0\0\x03\0\0\0\0").unwrap();
        let (mut request, _) = Client::simple(socket, "");
        request.stream.write_all(&[0; 28]).unwrap();
        let (mut write, _) = Client::simple(socket, "");
        write.request(1, 0, 0, u32::MAX);
        for mut client in [flags, name, long, magic, request, write] {
            assert!(client.is_ended());
        }
        still_serves(socket, &original);
    });
}

#[test]
fn noise_neither_stops_nor_fills_the_server() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let original = fs::read(raw(&fixture, &manifest, &Subject::Disk(1), "disk")).unwrap();
    serving(&fixture, &manifest, |_, socket| {
        let strategy = (0..3_u8, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200));
        let mut runner =
            TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        runner
            .run(&strategy, |(stage, bytes)| {
                let mut client = match stage {
                    0 => Client::connect(socket),
                    1 => Client::connect(socket).greet(3),
                    _ => Client::structured(socket, "disk1"),
                };
                if stage > 0 && bytes.len() % 2 == 0 {
                    // With the right magic it gets further in.
                    let magic = if stage == 1 { &b"IHAVEOPT"[..] } else { b"\x25\x60\x95\x13" };
                    let _ = client.stream.write_all(magic);
                }
                let _ = client.stream.write_all(&bytes);
                Ok(())
            })
            .unwrap();
        still_serves(socket, &original);
        // As many as there may be, all silent; when they are gone there is room again.
        let crowd: Vec<_> = (0..70).map(|_| Client::connect(socket)).collect();
        std::thread::sleep(Duration::from_millis(500));
        drop(crowd);
        std::thread::sleep(Duration::from_millis(500));
        still_serves(socket, &original);
    });
}

#[test]
fn many_clients_read_at_once_and_damage_is_an_error_where_it_is() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let original = fs::read(raw(&fixture, &manifest, &Subject::Disk(1), "disk")).unwrap();
    serving(&fixture, &manifest, |_, socket| {
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let original = &original;
                scope.spawn(move || {
                    let (mut client, size) = Client::simple(socket, "disk1");
                    for place in noise(thread, 16 * 60).chunks_exact(16) {
                        let number = |at: usize| u64::from_le_bytes(place[at..at + 8].try_into().unwrap());
                        let at = number(0) % size;
                        let len = (number(8) % 2_000_000).min(size - at);
                        let data = client.read_simple(at, len as u32).unwrap();
                        assert!(data == original[at as usize..(at + len) as usize], "{len} at {at}");
                    }
                });
            }
        });
    });

    let packs = fixture.object(names::PACKS);
    let folders = fs::read_dir(packs).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let pack = files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    serving(&fixture, &manifest, |_, socket| {
        let (mut simple, size) = Client::simple(socket, "disk1");
        let mut structured = Client::structured(socket, "disk1");
        let mut failed = 0;
        for at in (0..size).step_by(1 << 20) {
            let len = (size - at).min(1 << 20) as u32;
            match simple.read_simple(at, len) {
                Ok(data) => assert!(data == original[at as usize..at as usize + len as usize]),
                Err(error) => {
                    assert_eq!(error, IO);
                    failed += 1;
                    structured.request(0, 0, at, len);
                    assert_eq!(structured.error(), IO);
                }
            }
        }
        assert!((1..=2).contains(&failed), "{failed} mebibytes of one frame");
    });
}

#[test]
fn stopping_ends_idle_connections_and_what_is_there_is_not_replaced() {
    if !have(&MAKERS) {
        return;
    }
    let fixture = Fixture::new();
    let manifest = fixture.capture();
    let mut idle = None;
    let started = std::time::Instant::now();
    let report = serving(&fixture, &manifest, |listener, socket| {
        let again = Listener::bind(&Address::Unix(socket.to_owned())).err().unwrap();
        assert_eq!(again.kind(), ErrorKind::Exists);
        assert!(listener.uri("disk1").starts_with("nbd+unix:///disk1?socket=/"));
        idle = Some((Client::simple(socket, "").0, Client::connect(socket)));
        let deadline = std::time::Instant::now() + Duration::from_millis(300);
        std::thread::sleep(deadline - std::time::Instant::now());
    });
    assert_eq!(report, ServeReport { clients: 2, read_bytes: 0 });
    assert!(started.elapsed() < Duration::from_secs(10));
    let (mut chosen, mut silent) = idle.unwrap();
    assert!(chosen.is_ended() && silent.is_ended());
}
