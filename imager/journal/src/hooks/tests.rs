use super::{Hooks, Outcome};
use serde_json::{Map, Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

fn hook(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    // Written by another process would do; a script that is open for writing cannot be run.
    fs::write(&path, format!("#!/bin/sh\nL={}\n{text}\n", folder.join("log.txt").display())).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

fn facts() -> Map<String, Value> {
    json!({ "machine": "web1", "volumes": [{ "key": "2" }] }).as_object().unwrap().clone()
}

fn log(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("log.txt")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn they_run_in_order_before_and_in_reverse_after_and_are_told_what_happens() {
    let folder = folder();
    for name in ["20-b", "10-a", ".hidden", "10-a~", "30-c.dpkg-old"] {
        hook(folder.path(), name, "echo \"${0##*/} $1 $(cat)\" >>$L");
    }
    fs::write(folder.path().join("README"), "not a program").unwrap();
    let hooks = Hooks::open(folder.path()).unwrap();
    let ran = hooks.before(facts()).unwrap();
    assert_eq!(log(folder.path()).len(), 2);
    assert!(ran.after(Outcome::Frozen).is_empty());
    let before = r#"{"machine":"web1","phase":"before-freeze","volumes":[{"key":"2"}]}"#;
    let after = r#"{"machine":"web1","outcome":"frozen","phase":"after-thaw","volumes":[{"key":"2"}]}"#;
    let expected = [("10-a before-freeze", before), ("20-b before-freeze", before)];
    let expected = expected.into_iter().chain([("20-b after-thaw", after), ("10-a after-thaw", after)]);
    assert_eq!(log(folder.path()), expected.map(|(who, told)| format!("{who} {told}")).collect::<Vec<_>>());
}

#[test]
fn one_that_fails_ends_the_capture_with_its_last_words_and_those_that_ran_run_after() {
    let folder = folder();
    hook(folder.path(), "1", "echo 1 $1 >>$L");
    hook(
        folder.path(),
        "2",
        "echo 2 $1 >>$L; echo first >&2; echo the database is down >&2; [ $1 = after-thaw ]",
    );
    hook(folder.path(), "3", "echo 3 $1 >>$L");
    let error = Hooks::open(folder.path()).unwrap().before(facts()).unwrap_err();
    let words = super::chain(&error);
    assert!(
        words.contains("/2 before-freeze failed") && words.ends_with("first; the database is down"),
        "{words}"
    );
    assert_eq!(log(folder.path()), ["1 before-freeze", "2 before-freeze", "2 after-thaw", "1 after-thaw"]);
}

#[test]
fn they_run_after_also_when_nobody_says_so_and_trouble_then_is_told() {
    let folder = folder();
    hook(folder.path(), "1", "echo 1 $1 $(cat) >>$L; [ $1 = before-freeze ]");
    let hooks = Hooks::open(folder.path()).unwrap();
    drop(hooks.before(facts()).unwrap());
    let log = log(folder.path());
    assert!(log.len() == 2 && log[1].contains("\"outcome\":\"failed\""), "{log:?}");
    let problems = hooks.before(facts()).unwrap().after(Outcome::Frozen);
    assert!(problems.len() == 1 && problems[0].contains("after-thaw failed"), "{problems:?}");
}

#[test]
fn one_that_hangs_is_killed_with_all_that_it_started() {
    let folder = folder();
    hook(folder.path(), "1", "[ $1 = before-freeze ] || exit 0\necho waiting >&2\nsleep 9713 & sleep 9714");
    let start = Instant::now();
    let hooks = Hooks::open(folder.path()).unwrap().with_timeout(Duration::from_millis(500));
    let error = super::chain(&hooks.before(facts()).unwrap_err());
    assert!(
        start.elapsed() < Duration::from_secs(20) && error.ends_with("took longer than 0 s: waiting"),
        "{error}"
    );
    let running = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    assert!(running.into_iter().all(|line| line != b"sleep\x009713\0" && line != b"sleep\x009714\0"));
}

#[test]
fn what_one_leaves_running_on_purpose_is_not_waited_for() {
    let folder = folder();
    hook(folder.path(), "1", "sleep 5 & echo said >&2; exit 0");
    let start = Instant::now();
    let hooks = Hooks::open(folder.path()).unwrap();
    assert!(hooks.before(facts()).unwrap().after(Outcome::Frozen).is_empty());
    assert!(start.elapsed() < Duration::from_millis(4900), "{:?}", start.elapsed());
}

#[test]
fn what_others_may_change_is_refused() {
    let folder = folder();
    hook(folder.path(), "1", "exit 0");
    let refused = || Hooks::open(folder.path()).unwrap_err().kind() == imager_units::ErrorKind::Denied;
    for (path, bad, good) in
        [(folder.path().join("1"), 0o775, 0o755), (folder.path().to_owned(), 0o757, 0o755)]
    {
        fs::set_permissions(&path, Permissions::from_mode(bad)).unwrap();
        assert!(refused(), "{}", path.display());
        fs::set_permissions(&path, Permissions::from_mode(good)).unwrap();
    }
    assert!(!Hooks::open(folder.path()).unwrap().is_empty());
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(folder.path().join("1"), Some(65_534), None).unwrap();
        assert!(refused(), "it belongs to somebody else");
    }
    assert!(Hooks::open(&folder.path().join("none")).unwrap().is_empty());
}
