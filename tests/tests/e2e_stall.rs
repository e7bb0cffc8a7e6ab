//! A server that says nothing any more, and a person who loses patience with it: Ctrl-C acts at once. And one that is
//! not there yet when it is asked for the first time.

use halfhour_tests::junk::Junk;
use halfhour_tests::{Fault, Imager, MIB, Proxy, Scratch, ShareServer, judge, junk};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const DISK_MIB: u64 = 40;

fn disk(scratch: &Scratch) -> String {
    let path = scratch.file("disk.img", DISK_MIB * MIB);
    let (mut junk, mut piece) = (Junk::new(5), vec![0; 1 << 20]);
    for number in 0..DISK_MIB {
        junk.fill(&mut piece);
        junk::poke(Path::new(&path), number * MIB, &piece);
    }
    path
}

/// Runs it, interrupts it when it hangs, and says how long it took to end.
fn interrupted(imager: &Imager, arguments: &[&str], hangs: impl Fn() -> bool) -> Duration {
    let mut command = imager.command(arguments);
    command.args(["--patience", "10m"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().expect("it starts");
    let start = Instant::now();
    while !hangs() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come that far");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    kill(Pid::from_raw(running.id().try_into().expect("a pid")), Signal::SIGINT).expect("it is there");
    let output = running.wait_with_output().expect("it ends");
    let took = start.elapsed();
    let stderr = String::from_utf8_lossy(&output.stderr);
    println!("{arguments:?}: ended {took:?} after the signal: {}", stderr.trim());
    assert_eq!(output.status.code(), Some(130), "{arguments:?}: {stderr}");
    took
}

#[test]
fn an_interruption_ends_requests_that_hang_and_nothing_is_published() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let proxy = Proxy::start(server.address());
    let url = server.url_through(proxy.address(), "default");
    let imager = Imager::new(scratch.path("state"), PathBuf::from(url));
    let imager = imager.with("IMAGER_TOKEN", &server.token("boss", "admin"));
    let (disk, target) = (disk(&scratch), scratch.file("target.img", DISK_MIB * MIB));
    imager.ok(&["init"]);
    let capture = ["capture", &disk, "--machine", "m"];
    // In the hello, amid the packs, and near the end.
    for after in [200, 12 * MIB, 38 * MIB] {
        proxy.order(after, Fault::Stall);
        let took = interrupted(&imager, &capture, || proxy.has_fired());
        assert!(took < Duration::from_secs(2), "{took:?}");
        proxy.heal();
        assert_eq!(imager.json(&["list"])["captures"].as_array().map(Vec::len), Some(0));
    }
    imager.ok(&capture);
    for command in
        [&["verify", "--read-data"][..], &["restore", "m", "--bare-metal", "--to", &target, "--yes"]]
    {
        proxy.order(9 * MIB, Fault::Stall);
        let took = interrupted(&imager, command, || proxy.has_fired());
        assert!(took < Duration::from_secs(2), "{took:?}");
        proxy.heal();
        imager.ok(command);
    }
    assert_eq!(judge::whole(&target), judge::whole(&disk));
}

#[test]
fn an_interruption_ends_a_request_to_a_bucket_whose_service_says_nothing() {
    let scratch = Scratch::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("it is bound"));
    let imager = Imager::new(scratch.path("state"), PathBuf::from("s3://bucket/x"))
        .with("AWS_ENDPOINT_URL", &endpoint)
        .with("AWS_ACCESS_KEY_ID", "KEY")
        .with("AWS_SECRET_ACCESS_KEY", "SECRET");
    let took = interrupted(&imager, &["verify"], || silent.accept().is_ok());
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_server_that_starts_later_is_waited_for_and_one_that_refuses_is_not() {
    let scratch = Scratch::new();
    let mut server = ShareServer::start(&scratch.path("share"));
    let (url, token) = (server.url("default"), server.token("boss", "admin"));
    let imager = Imager::new(scratch.path("state"), PathBuf::from(url)).with("IMAGER_TOKEN", &token);
    let patient = imager.with("IMAGER_PATIENCE", "1m");
    for command in [&["init"][..], &["list"], &["verify"]] {
        server.kill();
        imager.fails(5, command);
        let mut running = patient.command(command);
        let running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_secs(2));
        server.restart();
        let output = running.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let start = Instant::now();
    let elsewhere = |url: &str| patient.with_repository(Path::new(url));
    elsewhere(&server.url("another")).fails(10, &["list"]);
    elsewhere(&scratch.name("nowhere")).fails(10, &["list"]);
    patient.with("IMAGER_TOKEN", "nonsense").fails(12, &["init"]);
    let other = format!("https://{}/default#{}", server.address(), "0".repeat(64));
    elsewhere(&other).fails(4, &["init"]);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
