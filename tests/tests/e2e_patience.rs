//! A share that goes away while it is used: for a while, for good, and while somebody loses patience with it.

use halfhour_tests::junk::Junk;
use halfhour_tests::{Imager, MIB, Scratch, judge, junk};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const DISK_MIB: u64 = 40;

/// A repository and a disk of bytes that do not compress.
struct Bench {
    scratch: Scratch,
    imager: Imager,
    disk: String,
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::new();
        let imager = scratch.imager();
        let disk = scratch.file("disk.img", DISK_MIB * MIB);
        let (mut junk, mut piece) = (Junk::new(5), vec![0; 1 << 20]);
        for number in 0..DISK_MIB {
            junk.fill(&mut piece);
            junk::poke(Path::new(&disk), number * MIB, &piece);
        }
        Self { scratch, imager, disk }
    }

    fn share(&self) -> &Path {
        &self.imager.repository
    }

    fn away(&self) -> PathBuf {
        self.scratch.path("away")
    }

    fn goes(&self) {
        fs::rename(self.share(), self.away()).expect("it goes");
    }

    fn comes_back(&self) {
        fs::rename(self.away(), self.share()).expect("it comes back");
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.imager.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }

    fn has_packs(&self) -> bool {
        fs::read_dir(self.share().join("packs")).is_ok_and(|mut packs| packs.next().is_some())
    }

    fn assert_restores(&self) {
        let target = self.scratch.file("again.img", DISK_MIB * MIB);
        self.imager.ok(&["restore", "m", "--bare-metal", "--to", &target, "--yes"]);
        assert_eq!(judge::whole(&target), judge::whole(&self.disk));
    }
}

/// Code, stdout and stderr of a process that ends by itself.
fn end(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_share_that_comes_back_in_time_costs_time_only_and_whoever_watches_is_told() {
    for (progress, expected) in [
        ("plain", ["the share does not answer, trying again for", "the share answers again"]),
        ("json", ["\"phase\":\"waiting for the share\"", "\"phase\":\"the share answers again\""]),
    ] {
        let bench = Bench::new();
        let capture = ["capture", &bench.disk, "--machine", "m", "--limit", "8M", "--patience", "1m"];
        let running = bench.start(&[&capture[..], &["--progress", progress, "--json"]].concat());
        wait_until(|| bench.has_packs());
        bench.goes();
        std::thread::sleep(Duration::from_secs(8));
        bench.comes_back();
        let (code, stdout, stderr) = end(running);
        assert_eq!(code, 0, "{stdout}{stderr}");
        for line in expected {
            assert!(stderr.contains(line), "{stderr}");
        }
        bench.assert_restores();
        bench.imager.ok(&["verify", "--read-data"]);
    }
}

#[test]
fn when_the_patience_is_over_it_is_exit_5_and_the_next_run_continues() {
    let bench = Bench::new();
    let capture = ["capture", &bench.disk, "--machine", "m"];
    let slowly = ["--limit", "8M", "--patience", "2s", "--json"];
    let running = bench.start(&[&capture[..], &slowly].concat());
    wait_until(|| bench.has_packs());
    bench.goes();
    let (code, stdout, stderr) = end(running);
    assert_eq!(code, 5, "{stdout}{stderr}");
    let said: serde_json::Value = serde_json::from_str(&stdout).expect("one object");
    assert_eq!(said["error"]["kind"], "lost");
    let message = said["error"]["message"].as_str().expect("a message");
    assert!(message.contains("did not answer for 2 s"), "{message}");
    assert!(said["error"]["advice"].as_str().is_some_and(|advice| advice.contains("run it again")), "{said}");
    bench.comes_back();
    assert_eq!(bench.imager.json(&["list"])["captures"].as_array().map(Vec::len), Some(0));
    bench.imager.ok(&capture);

    let target = bench.scratch.file("target.img", DISK_MIB * MIB);
    let restore = ["restore", "m", "--bare-metal", "--to", &target, "--yes"];
    let verify = ["verify", "--read-data"];
    for command in [&restore[..], &verify] {
        // At this rate it lasts for seconds.
        let running = bench.start(&[command, &slowly].concat());
        std::thread::sleep(Duration::from_millis(1500));
        bench.goes();
        let (code, stdout, stderr) = end(running);
        assert_eq!(code, 5, "{command:?}: {stdout}{stderr}");
        bench.comes_back();
        bench.imager.ok(command);
    }
    assert_eq!(judge::whole(&target), judge::whole(&bench.disk));
    bench.assert_restores();
}

#[test]
fn an_interruption_while_waiting_ends_it_within_a_second() {
    let bench = Bench::new();
    let running =
        bench.start(&["capture", &bench.disk, "--machine", "m", "--limit", "8M", "--patience", "10m"]);
    wait_until(|| bench.has_packs());
    bench.goes();
    std::thread::sleep(Duration::from_secs(3));
    let start = Instant::now();
    kill(Pid::from_raw(running.id().try_into().expect("a pid")), Signal::SIGINT).expect("it is there");
    let (code, stdout, stderr) = end(running);
    assert_eq!(code, 130, "{stdout}{stderr}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    bench.comes_back();
    bench.imager.ok(&["capture", &bench.disk, "--machine", "m"]);
    bench.assert_restores();
}

#[test]
fn a_limit_is_kept_in_both_directions() {
    let bench = Bench::new();
    let slowest = Duration::from_secs_f64(DISK_MIB as f64 / 20.0 * 0.95);
    let start = Instant::now();
    bench.imager.ok(&["capture", &bench.disk, "--machine", "m", "--limit", "20M"]);
    let captured = start.elapsed();
    let target = bench.scratch.file("target.img", DISK_MIB * MIB);
    let start = Instant::now();
    bench.imager.ok(&["restore", "m", "--bare-metal", "--to", &target, "--yes", "--limit", "20MiB/s"]);
    let restored = start.elapsed();
    println!("{DISK_MIB} MiB at 20 MiB/s: captured in {captured:?}, restored in {restored:?}");
    assert!(captured >= slowest && restored >= slowest, "{captured:?} {restored:?}");
    for (option, value) in [("--limit", "fast"), ("--limit", "0"), ("--patience", "10"), ("--patience", "x")]
    {
        bench.imager.fails(64, &["list", option, value]);
    }
}
