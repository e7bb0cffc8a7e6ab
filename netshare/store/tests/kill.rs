//! A process that puts objects is killed at any instant: whatever is listed afterwards is complete.

use netshare_store::{DirStore, ObjectName, Store};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const FOLDER: &str = "KILL_TEST_FOLDER";
const ROUNDS: u64 = 20;

/// The bytes of an object follow from its name.
fn content(name: &ObjectName) -> Vec<u8> {
    let seed = name.as_str().bytes().fold(17_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let len = usize::try_from(seed % 400_000).expect("small");
    (0..len).map(|at| seed.wrapping_mul(at as u64 | 1).to_be_bytes()[2]).collect()
}

/// The process that is killed; does nothing when run as a test among others.
#[test]
fn child_puts_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = DirStore::open(Path::new(&folder)).unwrap();
    for number in 0_u64.. {
        let name =
            ObjectName::new(format!("packs/{:02}/{}-{number}", number % 7, std::process::id())).unwrap();
        store.put(&name, &content(&name)).unwrap();
        println!("put {name}");
    }
}

#[test]
fn whatever_is_listed_after_a_kill_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::open(folder.path()).unwrap();
    let mut reported = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_puts_until_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let first = lines.find(|line| line.contains("put packs")).expect("the child puts");
        std::thread::sleep(Duration::from_micros(round * round * 97 % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut puts: Vec<_> = std::iter::once(first).chain(lines).collect();
        // The last line of a killed process may be cut off.
        puts.pop();
        reported.extend(puts.iter().filter_map(|line| line.split("put ").nth(1)).map(str::to_owned));
    }
    let mut found = std::collections::BTreeSet::new();
    let mut check = |entry: netshare_store::Entry| {
        let bytes = store.get(&entry.name)?;
        assert!(bytes == content(&entry.name), "{} is not complete", entry.name);
        assert_eq!(entry.len.get(), bytes.len() as u64);
        found.insert(entry.name.to_string());
        Ok(())
    };
    store.list("", &mut check).unwrap();
    assert!(found.len() >= usize::try_from(ROUNDS).unwrap());
    for name in reported {
        assert!(found.contains(&name), "{name} was reported and is gone");
    }
}
