//! The hooks for databases that come with the program: against clients that only write down what they are asked, and for
//! a full run against the servers themselves.

use halfhour_tests::tool::{command, judge, tool};
use halfhour_tests::{Scratch, binary, need};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A hook with settings and clients of its own.
struct Hook {
    scratch: Scratch,
    name: &'static str,
}

impl Hook {
    fn new(name: &'static str, settings: &str) -> Self {
        let scratch = Scratch::new();
        scratch.folder("bin");
        scratch.folder("run");
        fs::write(scratch.folder("etc").join(format!("{name}.conf")), settings).expect("settings");
        Self { scratch, name }
    }

    /// A client that is a script.
    fn client(&self, name: &str, text: &str) {
        let path = self.scratch.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", self.scratch.name(""))).expect("a client");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
    }

    /// Runs it for a phase: the status, and what it said.
    fn run(&self, phase: &str) -> (Option<i32>, String) {
        let hook = binary::repository().join("imager/hooks").join(self.name);
        let path = format!("{}:{}", self.scratch.name("bin"), std::env::var("PATH").unwrap_or_default());
        let mut command = command(&hook.display().to_string());
        command.arg(phase).env("PATH", path).env("HALFHOUR_ETC", self.scratch.path("etc"));
        command.env("HALFHOUR_RUN", self.scratch.path("run")).stdin(Stdio::null()).stdout(Stdio::null());
        // As the program does, nobody waits for what holds the other end of standard error.
        let said = fs::File::create(self.scratch.path("stderr")).expect("a file");
        let status = command.stderr(said).status().expect("it runs");
        (status.code(), fs::read_to_string(self.scratch.path("stderr")).expect("what it said"))
    }

    fn ok(&self, phase: &str) {
        let (status, said) = self.run(phase);
        assert_eq!(status, Some(0), "{} {phase}: {said}", self.name);
    }

    fn exists(&self, name: &str) -> bool {
        self.scratch.path(name).exists()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(15), "{}: {what}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn user() -> String {
    tool("id", &["-un"]).trim().to_owned()
}

#[test]
fn every_running_postgresql_makes_a_checkpoint() {
    let hook = Hook::new("postgresql", "");
    let settings = format!("SOCKETS={}\nRUN_AS={}\n", hook.scratch.name("sockets"), user());
    fs::write(hook.scratch.path("etc/postgresql.conf"), settings).expect("settings");
    hook.ok("before-freeze");
    let sockets = hook.scratch.folder("sockets");
    hook.client("psql", "echo \"$@\" >>asked; [ ! -e down ] || { echo it is starting up >&2; exit 2; }");
    let _servers = [".s.PGSQL.5432", ".s.PGSQL.5433"].map(|name| UnixListener::bind(sockets.join(name)));
    fs::write(sockets.join(".s.PGSQL.5432.lock"), "").expect("a lock");
    hook.ok("before-freeze");
    let asked = fs::read_to_string(hook.scratch.path("asked")).expect("it was asked");
    let asked: Vec<_> = asked.lines().collect();
    assert!(asked.len() == 2 && asked.iter().all(|line| line.ends_with("-c CHECKPOINT")), "{asked:?}");
    assert!(asked[0].contains("-p 5432 ") && asked[1].contains("-p 5433 "), "{asked:?}");
    hook.ok("after-thaw");
    fs::write(hook.scratch.path("down"), "").expect("a file");
    let (status, said) = hook.run("before-freeze");
    assert!(status != Some(0) && said.contains("it is starting up"), "{said}");
}

/// A client of a server that gives its lock, but not while `busy` exists, nor anything while `down` does.
const MARIADB: &str = "\
if [ -e down ]; then echo \"ERROR 2002 (HY000): Can't connect to local server\" >&2; exit 1; fi
if [ -e denied ]; then echo 'ERROR 1045 (28000): Access denied' >&2; exit 1; fi
case \"$*\" in *'-e '*) exit 0 ;; esac
while read -r line; do
    while [ -e busy ]; do sleep 0.1; done
    case $line in FLUSH*) touch held; echo locked ;; esac
done
rm -f held";

#[test]
fn mariadb_is_locked_from_before_the_freeze_until_after_the_thaw() {
    let hook = Hook::new("mariadb", "WAIT=2\nLIMIT=30\n");
    hook.client("mariadb", MARIADB);
    for _ in 0..2 {
        hook.ok("before-freeze");
        assert!(hook.exists("held"));
        hook.ok("after-thaw");
        assert!(!hook.exists("held") && !hook.exists("run/mariadb"));
    }
    // Nothing was locked.
    hook.ok("after-thaw");
    // A capture that was killed in between, and the next.
    hook.ok("before-freeze");
    hook.ok("before-freeze");
    assert!(hook.exists("held"));
    hook.ok("after-thaw");
    assert!(!hook.exists("held"));
}

#[test]
fn mariadb_is_not_locked_for_good() {
    let hook = Hook::new("mariadb", "WAIT=2\nLIMIT=2\n");
    hook.client("mariadb", MARIADB);
    hook.ok("before-freeze");
    hook.wait_until("the lock ends by itself", || !hook.exists("held"));
    std::thread::sleep(Duration::from_millis(200));
    let (status, said) = hook.run("after-thaw");
    assert!(status != Some(0) && said.contains("the lock was lost"), "{said}");
    assert!(!hook.exists("run/mariadb"));
}

#[test]
fn a_mariadb_that_does_not_give_its_lock_ends_the_capture_and_one_that_is_down_does_not() {
    let hook = Hook::new("mariadb", "WAIT=1\nLIMIT=30\n");
    hook.client("mariadb", MARIADB);
    let flag = |name: &str| fs::write(hook.scratch.path(name), "").expect("a flag");
    let unflag = |name: &str| fs::remove_file(hook.scratch.path(name)).expect("a flag");
    flag("busy");
    let (status, said) = hook.run("before-freeze");
    unflag("busy");
    assert!(status != Some(0) && said.contains("no lock within 1 s"), "{said}");
    hook.wait_until("the session ends", || !hook.exists("held"));
    flag("denied");
    let (status, said) = hook.run("before-freeze");
    unflag("denied");
    assert!(status != Some(0) && said.contains("Access denied"), "{said}");
    flag("down");
    hook.ok("before-freeze");
    hook.ok("after-thaw");
}

/// For a full run, where the servers are installed.
#[test]
fn the_real_servers_do_what_the_hooks_ask() {
    if !need::full() {
        return;
    }
    let found = glob("/usr/lib/postgresql", "bin/initdb");
    match found {
        Some(initdb) => real_postgresql(&initdb),
        None => println!("no PostgreSQL server is installed"),
    }
    if Path::new("/usr/sbin/mariadbd").exists() {
        real_mariadb();
    } else {
        println!("no MariaDB server is installed");
    }
}

fn glob(folder: &str, below: &str) -> Option<std::path::PathBuf> {
    let versions = fs::read_dir(folder).into_iter().flatten().flatten();
    versions.map(|version| version.path().join(below)).find(|path| path.exists())
}

/// Ends a server.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let process = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a process"));
        let _gone = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGQUIT);
        let _reaped = self.0.wait();
    }
}

fn real_postgresql(initdb: &Path) {
    let hook = Hook::new("postgresql", "");
    let (data, sockets) = (hook.scratch.folder("data"), hook.scratch.folder("sockets"));
    for folder in [hook.scratch.path(""), data.clone(), sockets.clone()] {
        tool("chown", &["postgres", &folder.display().to_string()]);
    }
    fs::set_permissions(hook.scratch.path(""), Permissions::from_mode(0o755)).expect("a mode");
    let [data, sockets] = [data, sockets].map(|path| path.display().to_string());
    tool("runuser", &["-u", "postgres", "--", &initdb.display().to_string(), "-D", &data, "-A", "trust"]);
    let server = initdb.with_file_name("postgres").display().to_string();
    let log = fs::File::create(hook.scratch.path("log")).expect("a log");
    let mut run = command("setpriv");
    run.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        &server,
        "-D",
        &data,
        "-k",
        &sockets,
    ]);
    run.args(["-h", "", "-c", "log_checkpoints=on"]).stdin(Stdio::null()).stderr(log).stdout(Stdio::null());
    let _server = Server(run.spawn().expect("it starts"));
    hook.wait_until("it accepts connections", || {
        judge("psql", &["-h", &sockets, "-U", "postgres", "-c", ""]).0 == Some(0)
    });
    fs::write(hook.scratch.path("etc/postgresql.conf"), format!("SOCKETS={sockets}\n")).expect("settings");
    hook.ok("before-freeze");
    let log = fs::read_to_string(hook.scratch.path("log")).expect("a log");
    assert!(log.contains("checkpoint starting: immediate force wait"), "{log}");
    hook.ok("after-thaw");
}

fn real_mariadb() {
    let hook = Hook::new("mariadb", "");
    let (data, socket) = (hook.scratch.folder("data").display().to_string(), hook.scratch.name("socket"));
    let user = format!("--user={}", user());
    tool("mariadb-install-db", &["--no-defaults", &user, &format!("--datadir={data}")]);
    let log = fs::File::create(hook.scratch.path("log")).expect("a log");
    let mut run = command("mariadbd");
    run.args(["--no-defaults", &user, "--skip-networking"]);
    run.args([format!("--datadir={data}"), format!("--socket={socket}")]);
    let _server =
        Server(run.stdin(Stdio::null()).stderr(log).stdout(Stdio::null()).spawn().expect("it starts"));
    let client = ["--no-defaults", "--socket", &socket, "--batch", "-e"];
    let ask = |words: &str| judge("mariadb", &[&client[..], &[words]].concat());
    hook.wait_until("it accepts connections", || ask("select 1").0 == Some(0));
    fs::write(
        hook.scratch.path("etc/mariadb.conf"),
        format!("CLIENT='mariadb --no-defaults --socket {socket}'\nWAIT=3\n"),
    )
    .expect("settings");
    let made = ask("create database d; create table d.t (n int) engine=myisam; insert into d.t values (1)");
    assert_eq!(made.0, Some(0), "{}", made.1);
    hook.ok("before-freeze");
    let refused = ask("set lock_wait_timeout=1; insert into d.t values (2)");
    assert!(refused.0 != Some(0) && refused.1.contains("1205"), "{}", refused.1);
    hook.ok("after-thaw");
    assert_eq!(ask("insert into d.t values (3)").0, Some(0));
}
