//! Captures that are made by themselves: set for a system below a folder, and run as systemd would.

use halfhour_tests::{Imager, MIB, Scratch, ShareServer, judge, need, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A system below a folder, a disk and a repository.
struct Bench {
    scratch: Scratch,
    imager: Imager,
    disk: String,
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::new();
        let imager = scratch.imager();
        let disk = scratch.junk("disk.img", 4 * MIB);
        scratch.folder("root");
        Self { scratch, imager, disk }
    }

    fn schedule(&self, words: &[&str]) -> Vec<String> {
        let root = self.scratch.name("root");
        let all = [&["schedule"], words, &["--root", &root]].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    fn set(&self, more: &[&str]) -> Value {
        let fixed = ["set", "--machine", "web1", "--disk", &self.disk];
        self.imager.json(&self.schedule(&[&fixed, more].concat()))
    }

    fn run(&self) -> Value {
        self.imager.json(&self.schedule(&["run"]))
    }

    fn show(&self) -> Value {
        self.imager.json(&self.schedule(&["show"]))
    }

    fn settings(&self) -> PathBuf {
        self.scratch.path("root/etc/halfhour/schedule.toml")
    }

    /// Whatever was set, was set long ago.
    fn is_old(&self) {
        tool("touch", &["-d", "3 days ago", &self.settings().display().to_string()]);
    }

    fn captures(&self) -> Vec<Value> {
        self.imager.json(&["list", "web1"])["captures"].as_array().cloned().unwrap_or_default()
    }

    fn kinds(&self) -> Vec<String> {
        self.captures().iter().map(|row| row["kind"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn share_goes(&self) {
        fs::rename(&self.imager.repository, self.scratch.path("away")).expect("it goes");
    }

    fn share_comes_back(&self) {
        fs::rename(self.scratch.path("away"), &self.imager.repository).expect("it comes back");
    }
}

#[test]
fn a_schedule_is_set_run_shown_and_removed() {
    let bench = Bench::new();
    let more = ["--every", "1h", "--full", "monthly", "--differential", "weekly", "--keep-last", "3"];
    let set = bench.set(&more);
    assert_eq!(set["schedule"]["disks"], json!([bench.disk]));
    assert_eq!(fs::metadata(bench.settings()).unwrap().permissions().mode() & 0o777, 0o600);
    let units = bench.scratch.path("root/etc/systemd/system");
    assert!(units.join("timers.target.wants/halfhour-capture.timer").symlink_metadata().is_ok());
    let timer = fs::read_to_string(units.join("halfhour-capture.timer")).unwrap();
    assert!(timer.contains("OnCalendar=*-*-* *:00:00 UTC\n") && timer.contains("RandomizedDelaySec=120s\n"));
    let again = bench.set(&more);
    assert!(
        again["done"].as_array().unwrap()[..3]
            .iter()
            .all(|line| line.as_str().unwrap().starts_with("unchanged"))
    );

    let first = bench.run();
    assert_eq!((&first["result"], &first["kind"]), (&json!("done"), &json!("full")));
    for _ in 0..5 {
        assert_eq!(bench.run()["kind"], "incremental");
    }
    assert_eq!(
        bench.kinds(),
        ["full", "incremental", "incremental", "incremental"],
        "the last full one stays"
    );
    let newest = bench.captures().pop().unwrap();
    assert_eq!(newest["schedule"]["every_seconds"], 3600);
    assert_eq!(newest["age_against_schedule"]["overdue_seconds"], 0);
    let shown = bench.show();
    assert_eq!((&shown["last"]["result"], &shown["newest"]["id"]), (&json!("done"), &newest["id"]));
    assert_eq!(shown["next"].as_array().map(Vec::len), Some(3));
    bench.imager.ok(&["verify", "--read-data"]);

    fs::set_permissions(bench.settings(), PermissionsExt::from_mode(0o620)).unwrap();
    bench.imager.fails(4, &bench.schedule(&["run"]));
    bench.imager.ok(&bench.schedule(&["remove"]));
    bench.imager.ok(&bench.schedule(&["remove"]));
    assert!(!bench.settings().exists() && !units.join("halfhour-capture.timer").exists());
    bench.imager.fails(1, &bench.schedule(&["run"]));
    assert_eq!(bench.captures().len(), 4);
}

#[test]
fn a_period_has_one_capture_however_often_the_timer_wakes_us() {
    let bench = Bench::new();
    // A period that does not end while this runs.
    bench.set(&["--every", "1w"]);
    let due = || bench.imager.json(&bench.schedule(&["run", "--due"]))["result"].clone();
    assert_eq!(due(), "skipped", "nothing was missed before it was set");
    tool("touch", &["-d", "20 days ago", &bench.settings().display().to_string()]);
    assert_eq!((due(), due(), due()), (json!("done"), json!("skipped"), json!("skipped")));
    assert_eq!(bench.captures().len(), 1);
    bench.run();
    assert_eq!(bench.captures().len(), 2, "a person is obeyed");
}

#[test]
fn what_is_due_is_read_from_the_share_and_stands_after_a_prune_by_others() {
    let bench = Bench::new();
    bench.set(&["--every", "1h", "--full", "monthly"]);
    bench.imager.ok(&["capture", &bench.disk, "--machine", "web1"]);
    bench.imager.ok(&["capture", &bench.disk, "--machine", "web1", "--kind", "copy"]);
    assert_eq!(bench.run()["kind"], "incremental", "the full one was not made by us");
    assert_eq!(bench.run()["kind"], "incremental");
    let full = bench.captures()[0]["id"].as_str().unwrap().to_owned();
    bench.imager.ok(&["prune", "--remove", &full, "--yes"]);
    assert_eq!(bench.run()["kind"], "full", "nobody here ever made one");
    let full = bench.captures().pop().unwrap()["id"].as_str().unwrap().to_owned();
    bench.run();
    bench.imager.ok(&["prune", "--remove", &full, "--yes"]);
    assert_eq!(bench.run()["kind"], "incremental", "it is remembered");
}

#[test]
fn a_share_that_is_away_is_tried_again_and_two_runs_never_overlap() {
    let bench = Bench::new();
    bench.set(&["--every", "1h"]);
    bench.is_old();
    bench.share_goes();
    let mut command = bench.imager.command(&bench.schedule(&["run", "--json"]));
    let mut waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(waiting.stderr.take().unwrap());
    wait_for(&mut said, "trying again in 1 s");
    let refused = bench.imager.fails(4, &bench.schedule(&["run"]));
    assert!(refused["message"].as_str().unwrap().contains("another run is under way"));
    assert_eq!(bench.imager.json(&bench.schedule(&["run", "--due"]))["result"], "skipped");
    let shown = bench.show();
    assert_eq!((&shown["under_way"], &shown["last"]["result"]), (&json!(true), &json!("failed")));
    assert!(shown["share_error"]["message"].is_string());
    bench.share_comes_back();
    let output = waiting.wait_with_output().expect("it ends");
    let made: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((output.status.code(), &made["result"]), (Some(0), &json!("done")));
    assert!(made["attempts"].as_u64().unwrap() > 1, "{made}");
    assert_eq!(bench.show()["last"]["failures"], 0);
}

#[test]
fn whoever_is_asked_to_stop_stops_and_is_no_failure() {
    let bench = Bench::new();
    bench.set(&["--every", "1h", "--limit", "300K", "--after-failures", "1"]);
    for when in ["waiting", "capturing"] {
        if when == "waiting" {
            bench.share_goes();
        }
        let mut command = bench.imager.command(&bench.schedule(&["run", "--json"]));
        let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        if when == "waiting" {
            wait_for(&mut BufReader::new(running.stderr.take().unwrap()), "trying again in 2 s");
        } else {
            let begun = Instant::now();
            while !fs::read_dir(bench.imager.repository.join("leases"))
                .is_ok_and(|mut it| it.next().is_some())
            {
                assert!(begun.elapsed() < Duration::from_secs(60), "no capture begins");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let asked = Instant::now();
        kill(Pid::from_raw(running.id().try_into().unwrap()), Signal::SIGTERM).expect("it is there");
        let output = running.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(130), "{when}: {output:?}");
        assert!(asked.elapsed() < Duration::from_secs(20), "{when}: {:?}", asked.elapsed());
        if when == "waiting" {
            bench.share_comes_back();
        }
        let last = bench.show()["last"].clone();
        assert_eq!((&last["result"], &last["failures"]), (&json!("interrupted"), &json!(0)), "{when}");
        assert_eq!(last["alarm"]["standing_since"], Value::Null);
    }
    assert!(bench.captures().is_empty());
}

fn wait_for(said: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while said.read_line(&mut line).expect("it says something") > 0 {
        if line.contains(text) {
            return;
        }
        line.clear();
    }
    panic!("it ended without {text:?}");
}

/// A server that answers each request so, and hands on what was sent.
fn hook(answers: Vec<&'static str>) -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/secret-path", listener.local_addr().expect("an address"));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().expect("a request");
            let mut reader = BufReader::new(stream);
            let (mut line, mut len) = (String::new(), 0);
            while reader.read_line(&mut line).expect("a head") > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    len = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; len];
            reader.read_exact(&mut body).expect("a body");
            let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            reader.get_mut().write_all(head.as_bytes()).expect("it listens");
            sender.send(serde_json::from_slice(&body).expect("JSON")).expect("the test waits");
        }
    });
    (url, receiver)
}

#[test]
fn a_webhook_hears_of_trouble_once_and_of_its_end_and_one_that_refuses_is_asked_again() {
    let bench = Bench::new();
    let (url, heard) = hook(vec!["500 Oops", "204 No Content", "200 OK"]);
    let set = bench.set(&["--every", "1h", "--alarm-webhook", &url, "--after-failures", "2"]);
    assert!(!set.to_string().contains("secret-path"), "{set}");
    bench.run();
    fs::rename(&bench.disk, bench.scratch.path("elsewhere")).unwrap();
    let fail = || bench.imager.fails(1, &bench.schedule(&["run"]));
    let next = || heard.recv_timeout(Duration::from_secs(20)).expect("it is told");
    fail();
    assert!(heard.try_recv().is_err(), "one failure is none yet");
    fail();
    let (refused, shown) = (next(), bench.show());
    assert!(shown["last"]["alarm"]["trouble"].as_str().unwrap().contains("500"), "{shown}");
    assert!(!shown.to_string().contains("secret-path"), "{shown}");
    fail();
    let told = next();
    for (event, failures) in [(refused, 2), (told, 3)] {
        assert_eq!((&event["event"], &event["failures"]), (&json!("failed"), &json!(failures)), "{event}");
        assert_eq!((&event["machine"], &event["error"]["kind"]), (&json!("web1"), &json!("notfound")));
        assert!(event["newest_capture"]["id"].is_string() && event["text"].is_string(), "{event}");
    }
    fail();
    fs::rename(bench.scratch.path("elsewhere"), &bench.disk).unwrap();
    bench.run();
    assert_eq!(next()["event"], "recovered");
    bench.run();
    assert_eq!(bench.show()["last"]["alarm"], json!({ "standing_since": null, "trouble": null }));
}

#[test]
fn an_alarm_command_gets_the_text_without_secrets_and_a_broken_one_breaks_nothing() {
    let bench = Bench::new();
    let (secret, mail) = (bench.scratch.name("password"), bench.scratch.name("mail"));
    fs::write(&secret, "disk.img\n").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).unwrap();
    let command = format!("cat >>{mail}; env >>{mail}");
    let fixed =
        ["set", "--machine", "web1", "--disk", &bench.disk, "--every", "1h", "--alarm-command", &command];
    let with_secret = [&fixed[..], &["--password-file", &secret]].concat();
    let refused = bench.imager.fails(4, &bench.schedule(&with_secret));
    assert!(refused["message"].as_str().unwrap().contains("may be read"), "{refused}");
    let here = bench.imager.with("IMAGER_PASSWORD", "in this shell");
    here.fails(4, &bench.schedule(&fixed));
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    bench.imager.ok(&bench.schedule(&with_secret));
    fs::rename(&bench.disk, bench.scratch.path("elsewhere")).unwrap();
    let ran = here.run_json(&bench.schedule(&["run"]));
    ran.expect_code(1);
    let text = fs::read_to_string(&mail).unwrap();
    assert!(text.starts_with("Halfhour on ") && text.contains("the capture of web1 failed"), "{text}");
    assert!(
        text.contains("(secret)") && !text.contains("disk.img") && !text.contains("in this shell"),
        "{text}"
    );

    fs::rename(bench.scratch.path("elsewhere"), &bench.disk).unwrap();
    bench.set(&["--every", "1h", "--alarm-command", "exit 3"]);
    let ran = bench.imager.run_json(&bench.schedule(&["run"]));
    ran.expect_code(0);
    assert!(ran.stderr.contains("nobody was told of it") && ran.stderr.contains("exit status: 3"), "{ran:?}");
    assert_eq!(ran.json()["result"], "done");
}

#[test]
fn a_schedule_that_was_broken_by_hand_is_told_of_once_and_so_is_its_end() {
    let bench = Bench::new();
    let mail = bench.scratch.name("mail");
    bench.set(&["--every", "1h", "--alarm-command", &format!("cat >>{mail}")]);
    bench.is_old();
    bench.run();
    let right = fs::read_to_string(bench.settings()).unwrap();
    fs::write(bench.settings(), right.replace("every", "evry")).unwrap();
    for _ in 0..2 {
        bench.imager.fails(64, &bench.schedule(&["run", "--due"]));
    }
    let told = fs::read_to_string(&mail).unwrap();
    assert!(told.contains("the capture of web1 failed") && told.contains("evry"), "{told}");
    assert_eq!(told.matches("Halfhour on ").count(), 1, "{told}");
    fs::write(bench.settings(), right).unwrap();
    bench.run();
    let told = fs::read_to_string(&mail).unwrap();
    assert_eq!(told.matches("Halfhour on ").count(), 2, "{told}");
    // What others may have written is not run.
    fs::write(bench.settings(), "every = 3\n[alarm]\ncommand = 'touch /tmp/of-others'\n").unwrap();
    fs::set_permissions(bench.settings(), PermissionsExt::from_mode(0o666)).unwrap();
    bench.imager.fails(4, &bench.schedule(&["run", "--due"]));
    assert_eq!(fs::read_to_string(&mail).unwrap(), told);
}

#[test]
fn over_https_with_secrets_from_files_an_encrypted_repository_is_filled_and_restored() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let private = |name: &str, text: &str| {
        fs::write(scratch.path(name), text).unwrap();
        fs::set_permissions(scratch.path(name), PermissionsExt::from_mode(0o600)).unwrap();
        scratch.name(name)
    };
    let admin = Imager::new(scratch.path("state"), server.url("default").into());
    let admin =
        admin.with("IMAGER_TOKEN", &server.token("admin", "admin")).with("IMAGER_PASSWORD", "a pass phrase");
    admin.ok(&["init", "--encrypt"]);
    let token = private("token", &server.token("web1", "machine:web1"));
    let password = private("password", "a pass phrase");
    let (disk, root) = (scratch.junk("disk.img", 4 * MIB), scratch.name("root"));
    let agent = Imager::new(scratch.path("agent"), server.url("default").into());
    let set = [
        "schedule",
        "set",
        "--root",
        &root,
        "--every",
        "1d",
        "--disk",
        &disk,
        "--machine",
        "web1",
        "--keep-last",
        "2",
    ];
    agent.ok(&[&set[..], &["--token-file", &token, "--password-file", &password]].concat());
    // What runs at night has nothing of this shell.
    let night = Imager::new(scratch.path("agent"), "".into());
    let made = night.json(&["schedule", "run", "--root", &root]);
    assert_eq!(made["result"], "done");
    assert!(made["prune"]["error"].is_object(), "a machine's token may not remove: {made}");
    let target = scratch.file("target.img", 4 * MIB);
    admin.ok(&["restore", "web1", "--bare-metal", "--to", &target, "--yes"]);
    assert_eq!(judge::whole(&target), judge::whole(&disk));
}

#[test]
fn the_next_captures_are_when_systemd_wakes_us() {
    if !need::programs(&["systemd-analyze"]) {
        return;
    }
    let bench = Bench::new();
    for every in ["15m", "6h", "1d", "1w"] {
        bench.set(&["--every", every]);
        let timer =
            fs::read_to_string(bench.scratch.path("root/etc/systemd/system/halfhour-capture.timer")).unwrap();
        let calendar = timer.lines().find_map(|line| line.strip_prefix("OnCalendar=")).expect("a calendar");
        let said = tool("systemd-analyze", &["calendar", "--iterations=3", calendar]);
        for next in bench.show()["next"].as_array().unwrap() {
            let next = next.as_str().unwrap().trim_end_matches('Z').replace('T', " ");
            assert!(said.contains(&format!("{next} UTC")), "{every}: {next} is not in\n{said}");
        }
    }
}
