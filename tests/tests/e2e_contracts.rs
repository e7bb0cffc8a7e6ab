//! What other tools rely on: the fields of the JSON, the exit statuses, one object also on failure; and that no input
//! whatever makes the program panic or hang.

use halfhour_tests::{Imager, MIB, Ran, Scratch, judge, junk, need, recipe, tool};
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every status there is.
const STATUSES: [i32; 13] = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 64, 130, 143];

fn has(object: &Value, fields: &str, what: &str) {
    for field in fields.split(' ') {
        assert!(object.get(field).is_some(), "{what} has no {field}: {object}");
    }
}

fn each<'v>(object: &'v Value, list: &str) -> impl Iterator<Item = &'v Value> {
    let found = object[list].as_array();
    let found = found.unwrap_or_else(|| panic!("{list} is no list: {object}"));
    assert!(!found.is_empty(), "{list} is empty: {object}");
    found.iter()
}

#[test]
fn fields_are_where_other_tools_look_for_them() {
    if !need::programs(&["sfdisk", "mkfs.fat", "mke2fs", "mkswap", "mcopy"]) {
        return;
    }
    let scratch = Scratch::new();
    let disk = recipe::machine(&scratch, "machine.img");
    let imager = scratch.imager();
    inspect(&imager, &disk);
    let captured = imager.json(&["capture", &disk, "--data", "used"]);
    has(
        &captured,
        "capture machine kind parent consistency elapsed_seconds warnings problems not_captured",
        "capture",
    );
    for volume in each(&captured, "volumes") {
        has(
            volume,
            "disk key name role mode truth used_bytes read_bytes new_bytes stored_bytes freeze_ms",
            "a volume",
        );
        assert!(
            ["used", "raw", "skeleton", "signature", "none"]
                .contains(&volume["mode"].as_str().expect("a mode"))
        );
    }
    let list = imager.json(&["list"]);
    for capture in each(&list, "captures") {
        has(
            capture,
            "id machine time kind parent size_bytes used_bytes new_bytes stored_bytes consistency",
            "a capture",
        );
        has(capture, "verified age_against_schedule", "a capture");
        assert_eq!(capture["id"], captured["capture"]);
    }
    junk::over(Path::new(&disk), 9 * MIB, MIB);
    let plan = imager.json(&["restore", "machine", "--to", &disk, "--plan"]);
    let restored = imager.json(&["restore", "machine", "--to", &disk, "--yes"]);
    has(
        &restored,
        "capture plan elapsed_seconds read_bytes written_bytes matched_bytes verified warnings problems",
        "restore",
    );
    assert_eq!((&restored["plan"], &restored["capture"]), (&plan["plan"], &captured["capture"]));
    for volume in each(&restored, "volumes") {
        has(volume, "disk key name", "a volume");
    }
    for volume in each(&restored, "untouched") {
        has(volume, "key unchanged", "an untouched volume");
    }
    assert_eq!(imager.json(&["show", "machine"])["capture"], captured["capture"]);
}

fn inspect(imager: &Imager, disk: &str) {
    let seen = imager.json(&["inspect", disk, "--extents"]);
    has(&seen, "warnings", "inspect");
    for disk in each(&seen, "disks") {
        has(disk, "path size_bytes logical_sector_bytes model serial wwn table", "a disk");
        has(&disk["table"], "kind id", "a table");
    }
    for volume in each(&seen, "volumes") {
        has(
            volume,
            "disk key name number start_byte size_bytes role filesystem uuid label used_bytes block_bytes",
            "a volume",
        );
        has(volume, "clean used_extents", "a volume");
        let sum: u64 = each(volume, "used_extents").map(|extent| extent[1].as_u64().expect("a length")).sum();
        assert_eq!(volume["used_bytes"], sum);
    }
    assert!(imager.json(&["inspect", disk])["volumes"][0].get("used_extents").is_none());
}

/// A machine captured, and everything that is no disk.
struct Nonsense {
    scratch: Scratch,
    imager: Imager,
    paths: Vec<String>,
}

impl Nonsense {
    fn new() -> Self {
        let scratch = Scratch::new();
        let imager = scratch.imager();
        let disk = scratch.junk("disk.img", 300_000);
        imager.ok(&["capture", &disk, "--machine", "m"]);
        let mut paths = vec![scratch.name("absent"), scratch.folder("folder").display().to_string()];
        for size in [0, 1, 511, 512, 513, 4096, 65537] {
            paths.push(scratch.junk(&format!("file{size}"), size));
        }
        paths.push(scratch.name("fifo"));
        tool("mkfifo", &paths[paths.len() - 1..]);
        paths.push(scratch.name("loop"));
        std::os::unix::fs::symlink(scratch.path("loop"), scratch.path("loop")).expect("a link to itself");
        paths.push(scratch.name("socket"));
        std::os::unix::net::UnixListener::bind(scratch.path("socket")).expect("a socket");
        let fixed = [
            "/dev/null",
            "/dev/zero",
            "/dev/tty",
            "/proc/self/mem",
            "",
            "serial:",
            "wwn:",
            "serial:no",
            "-",
            "1=",
        ];
        paths.extend(fixed.map(str::to_owned));
        paths.push("x".repeat(5000));
        Self { scratch, imager, paths }
    }

    /// Runs it with a limit on its time; the status has to be one of those documented, and a failure has to explain
    /// itself.
    fn survive(&self, imager: &Imager, arguments: &[&str]) -> Ran {
        let with_json = [arguments, &["--json"]].concat();
        let inner = imager.command(&with_json);
        let mut command = Command::new("timeout");
        // A relative name is a file of ours.
        command.current_dir(self.scratch.folder("here"));
        command.args(["-k", "1", "30"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.stdin(Stdio::null()).output().expect("it starts");
        let shown: String = arguments.join(" ").chars().take(300).collect();
        let ran = Ran::new(shown, &output);
        assert_ne!(ran.code, 124, "it hangs: {ran:?}");
        assert!(STATUSES.contains(&ran.code), "{ran:?}");
        if ![0, 2, 3].contains(&ran.code) {
            let error = &ran.json()["error"];
            has(error, "kind message advice", &ran.command);
            assert_ne!(error["message"], "", "{ran:?}");
        }
        ran
    }
}

#[test]
fn no_disk_is_too_odd() {
    let nonsense = Nonsense::new();
    let pack = format!("{}/halfhour.json", nonsense.imager.repository.display());
    for path in nonsense.paths.iter().chain([&pack]) {
        for command in [
            &["inspect", path][..],
            &["inspect", "--extents", "--sector-bytes", "4096", path],
            &["capture", path, "--machine", "odd"],
            &["restore", "m", "--to", path],
            &["restore", "m", "--to", path, "--plan"],
            &["restore", "m", "--to", path, "--bare-metal", "--plan"],
            &["restore", "m", "--to", path, "--tables", "--yes"],
            &["export", "m", path, "--format", "raw"],
        ] {
            if path.starts_with("/dev") && command[0] == "export" {
                continue;
            }
            let ran = nonsense.survive(&nonsense.imager, command);
            if path.contains("absent") && command[0] != "export" {
                assert_eq!(ran.code, 1, "{ran:?}");
            }
        }
    }
    println!("{} odd paths", nonsense.paths.len());
}

#[test]
fn no_argument_is_too_odd() {
    let nonsense = Nonsense::new();
    let disk = nonsense.scratch.name("disk.img");
    let captures = [
        "",
        "@",
        "a@b",
        "id:",
        "id:zz",
        "id:0123456",
        "ID:00000000",
        "A",
        "../x",
        "x/y",
        "@latest",
        "m@",
        "m@99999-01-01",
        "m@-1",
        "m@2026-13-45",
        "m@2026-02-30T25:61",
        "m@latest@latest",
        "é",
        "m\n",
        "m@9999-12-31T23:59:60Z",
        "id:é1234567",
        "m@-009999-01-01T00:00:00Z",
        "🦀",
    ];
    for capture in captures {
        for command in [
            &["show", capture][..],
            &["diff", capture, "m"],
            &["verify", capture],
            &["list", capture],
            &["capture", &disk, "--machine", capture],
            &["restore", capture, "--to", &disk, "--plan"],
            &["nbd", capture, "--listen", "127.0.0.1:1"],
        ] {
            if command[0] == "nbd" && (capture == "m@latest" || capture.starts_with("m@9999-12")) {
                continue;
            }
            let ran = nonsense.survive(&nonsense.imager, command);
            assert!(ran.code != 0 || command[0] == "list" || capture.contains("9999-12"), "{ran:?}");
        }
    }
    let numbers = ["", "0", "1", "511", "513", "4294967295", "4294967296", "-1", "x", "1e3"];
    for number in numbers {
        nonsense.survive(&nonsense.imager, &["inspect", &disk, "--sector-bytes", number]);
        nonsense.survive(
            &nonsense.imager,
            &["export", "m", &nonsense.scratch.name("out"), "--format", "raw", "--disk", number],
        );
        let to = format!("{number}={disk}");
        nonsense.survive(&nonsense.imager, &["restore", "m", "--to", &to, "--plan"]);
    }
    for role in ["", "=", "1=", "=os", "0=os=os", "0=king", "9=os", "0", "é=os"] {
        let ran = nonsense.survive(&nonsense.imager, &["capture", &disk, "--machine", "m", "--role", role]);
        assert_eq!(ran.code, 64, "{ran:?}");
    }
    usage(&nonsense, &disk);
}

/// Mistakes in how it is called, all of them with the status for that.
fn usage(nonsense: &Nonsense, disk: &str) {
    for command in [
        &[][..],
        &["frobnicate"],
        &["restore"],
        &["restore", "m"],
        &["restore", "m", "--to"],
        &["restore", "m", "--to", disk, "--erase", "x"],
        &["restore", "m", "--to", disk, "--tables", "--bare-metal"],
        &["restore", "m", "--to", disk, "--tables", "--volume", "0"],
        &["restore", "m", "--to", disk, "--volume", ""],
        &["restore", "m", "--to", disk, "--volume", "17"],
        &["restore", "m", "--to", disk, disk],
        &["capture"],
        &["capture", disk, "--kind", "nightly"],
        &["capture", disk, "--data", "skeletons"],
        &["capture", disk, disk, "--machine", "m"],
        &["inspect"],
        &["list", "a", "b"],
        &["show"],
        &["key"],
        &["key", "list"],
        &["key", "remove", "zz"],
        &["completions", "klingon"],
        &["--progress", "loud", "list"],
    ] {
        let ran = nonsense.survive(&nonsense.imager, command);
        assert_eq!(ran.code, 64, "{ran:?}");
    }
}

#[test]
fn no_repository_is_too_odd() {
    let nonsense = Nonsense::new();
    let target = nonsense.scratch.name("disk.img");
    let mut places = nonsense.paths.clone();
    let urls = [
        "s3://bucket/x",
        "smb://host/share",
        "nfs://h/e",
        "https://h:1/x#00",
        "file://",
        "file:///nonexistent",
        "://",
        "file:x",
    ];
    places.extend(urls.map(str::to_owned));
    for (index, content) in ["", "{}", "[]", "null", "{\"format\":1}", "\u{0}\u{1}"].iter().enumerate() {
        let folder = nonsense.scratch.folder(&format!("garbled{index}"));
        std::fs::write(folder.join("halfhour.json"), content).expect("a file");
        places.push(folder.display().to_string());
    }
    let folder = nonsense.scratch.folder("nested");
    std::fs::create_dir(folder.join("halfhour.json")).expect("a folder");
    places.push(folder.display().to_string());
    for place in &places {
        let imager = nonsense.imager.with_repository(Path::new(place));
        for command in [
            &["list"][..],
            &["restore", "m", "--to", &target, "--yes"],
            &["verify", "--all"],
            &["key", "list"],
        ] {
            let before = judge::whole(&target);
            let ran = nonsense.survive(&imager, command);
            assert_ne!(ran.code, 0, "{place}: {ran:?}");
            assert_eq!(judge::whole(&target), before);
        }
    }
    for (name, value) in [
        ("IMAGER_LOG", "=[,=x"),
        ("IMAGER_PASSWORD_COMMAND", "exit 7"),
        ("IMAGER_PASSWORD_FILE", "/nonexistent"),
        ("HOME", ""),
        ("LANG", "klingon"),
        ("COLUMNS", "0"),
        ("NO_COLOR", "1"),
    ] {
        let ran = nonsense.survive(&nonsense.imager.with(name, value), &["list"]);
        assert_eq!(ran.code, 0, "{name}={value}: {ran:?}");
    }
    // What was known of repositories cannot be read: then none is believed.
    let blind = nonsense.imager.with("IMAGER_STATE_DIR", "/dev/null/x");
    assert_eq!(nonsense.survive(&blind, &["list"]).code, 4);
}

#[test]
fn words_that_are_not_text_are_a_usage_error() {
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let word = || OsString::from_vec(vec![b'm', 0xFF, 0xFE]);
    for command in ["list", "show", "inspect", "capture", "verify"] {
        let mut command = imager.command(&[command, "--json"]);
        let ran = Ran::new(format!("{command:?}"), &command.arg(word()).output().expect("it starts"));
        assert_eq!(ran.code, 64, "{ran:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scratch = Scratch::new();
    let imager = scratch.imager();
    for arguments in [&["--help"][..], &["list"], &["list", "--json"], &["completions", "bash"]] {
        let mut command = imager.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let ran = Ran::new(arguments.join(" "), &child.wait_with_output().expect("it ends"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn a_terminal_that_goes_away_ends_nothing() {
    let scratch = Scratch::new();
    let imager = scratch.imager();
    let disk = scratch.junk("disk.img", 8 << 20);
    for progress in ["plain", "json"] {
        // Slow enough for a line of progress, and a failure that has to be told.
        let slow =
            ["capture", &disk, "--machine", "m", "--kind", "full", "--limit", "2M", "--progress", progress];
        for (arguments, code) in [(&slow[..], 0), (&["show", "nobody", "--progress", progress][..], 11)] {
            let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
            let output = imager.command(arguments).stderr(full).output().expect("it starts");
            assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn help_tells_every_command_and_status() {
    let scratch = Scratch::new();
    let imager = scratch.imager_without_repository();
    let help = imager.ok(&["--help"]).stdout;
    for word in
        ["init", "inspect", "capture", "list", "show", "restore", "key", "130", "64", "IMAGER_PASSWORD"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
    imager.ok(&["--version"]);
    imager.ok(&["man", &scratch.name("man")]);
    assert!(scratch.path("man/imager.1").is_file());
}
