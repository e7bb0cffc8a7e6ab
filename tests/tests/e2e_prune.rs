//! `imager prune` and `imager hold` as a person or a script runs them: over a folder and over the share server, with damage,
//! and read by the stand-alone reader afterwards.

use halfhour_tests::junk::{Junk, poke};
use halfhour_tests::{Imager, MIB, Scratch, ShareServer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK_MIB: u64 = 8;

/// A disk without a table, full of junk.
fn disk(scratch: &Scratch) -> String {
    let path = scratch.file("disk.img", DISK_MIB * MIB);
    change(&path, 1, 0..DISK_MIB);
    path
}

fn change(disk: &str, seed: u64, mebibytes: std::ops::Range<u64>) {
    let mut piece = vec![0; 1 << 20];
    for number in mebibytes {
        Junk::new(seed * 1000 + number).fill(&mut piece);
        poke(Path::new(disk), number * MIB, &piece);
    }
}

fn capture(imager: &Imager, disk: &str) -> String {
    let report = imager.json(&["capture", disk, "--machine", "m", "--role", "0=os"]);
    report["capture"].as_str().expect("an id").to_owned()
}

fn ids(imager: &Imager) -> Vec<String> {
    let list = imager.json(&["list"]);
    let captures = list["captures"].as_array().expect("a list").iter();
    captures.map(|capture| capture["id"].as_str().expect("an id").to_owned()).collect()
}

fn bytes(plan: &Value, field: &str) -> u64 {
    plan[field].as_u64().expect("a number")
}

/// The whole story, wherever the repository lies.
fn story(imager: &Imager, disk: &str) {
    let mut captures = Vec::new();
    for number in 1..=4 {
        change(disk, number, 0..6);
        captures.push(capture(imager, disk));
    }
    // A share that tells when it received captures would take those of one hour for one: the machine's word counts.
    // Nothing is done without a word.
    let plan = imager.json(&["prune", "--keep-last", "2", "--times", "claimed", "--plan"]);
    let removed: Vec<_> =
        plan["captures"].as_array().expect("captures").iter().filter(|c| c["action"] == "remove").collect();
    assert_eq!(removed.len(), 2, "{plan}");
    assert!(bytes(&plan, "bytes_later") >= 12 * MIB && bytes(&plan, "bytes_now") == 0, "{plan}");
    let told = imager.ok(&["prune", "--keep-last", "2", "--times", "claimed", "--plan"]).stdout;
    assert!(told.contains("REMOVE") && told.contains("one of the last 2"), "{told}");
    let refused = imager.fails(4, &["prune", "--keep-last", "2", "--times", "claimed"]);
    assert!(refused["advice"].as_str().expect("advice").contains("--yes"));
    let refused = imager.fails(4, &["prune", "--keep-last", "1", "--times", "claimed", "--yes"]);
    assert!(refused["message"].as_str().expect("a message").contains("more than half"), "{refused}");
    assert_eq!(ids(imager), captures);
    // What is held stays.
    imager.ok(&["hold", &format!("id:{}", captures[0])]);
    imager.ok(&["prune", "--keep-last", "2", "--times", "claimed", "--yes"]);
    assert_eq!(ids(imager), [&captures[0..1], &captures[2..]].concat());
    imager.ok(&["hold", &format!("id:{}", captures[0]), "--release"]);
    let report = imager.json(&["prune", "--keep-last", "2", "--times", "claimed", "--yes"]);
    assert_eq!(report["removed"], serde_json::json!([captures[0]]));
    imager.ok(&["verify", "--read-data"]);
    // Without rules only space comes back.
    imager.ok(&["prune", "--yes"]);
    let plan = imager.json(&["prune", "--plan"]);
    assert_eq!(bytes(&plan, "bytes_later"), 0, "{plan}");
    assert_eq!(ids(imager), captures[2..]);
    imager.ok(&["verify", "--read-data"]);
    imager.fails(11, &["prune", "--break-lease", "0123456789abcdef", "--yes"]);
    imager.fails(64, &["prune", "--machine", "No Such", "--yes"]);
}

#[test]
fn captures_go_by_rules_and_space_comes_back() {
    let scratch = Scratch::new();
    let (disk, imager) = (disk(&scratch), scratch.imager());
    story(&imager, &disk);
    let size: u64 = packs(&imager.repository).iter().map(|pack| pack.metadata().expect("a file").len()).sum();
    // Two captures, of which two mebibytes are the same; a frame moves whole.
    assert!(size < (6 + 8 + 1) * MIB, "{size} bytes");
}

#[test]
fn the_same_over_the_share_server_where_only_an_admin_may() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let url = server.url("default");
    let client = |name: &str, scope: &str| {
        let token = server.token(name, scope);
        Imager::new(scratch.path(name), PathBuf::from(&url)).with("IMAGER_TOKEN", &token)
    };
    let (admin, machine) = (client("boss", "admin"), client("alpha", "machine:m"));
    admin.ok(&["init"]);
    let disk = disk(&scratch);
    story(&admin, &disk);
    capture(&machine, &disk);
    let refused = machine.run_json(&["prune", "--keep-last", "1", "--force", "--yes"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    admin.ok(&["verify", "--read-data"]);
}

fn packs(repository: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(repository.join("packs")).expect("packs");
    let files =
        folders.flat_map(|folder| std::fs::read_dir(folder.expect("a folder").path()).expect("a folder"));
    files.map(|file| file.expect("a file").path()).filter(|path| path.is_file()).collect()
}

#[test]
fn damage_is_healed_and_older_captures_read_again() {
    let scratch = Scratch::new();
    let (disk, imager) = (disk(&scratch), scratch.imager());
    let first = scratch.copy(&disk, "first.img");
    let id = capture(&imager, &disk);
    let data: Vec<_> = packs(&imager.repository)
        .into_iter()
        .filter(|pack| pack.metadata().expect("a file").len() > MIB)
        .collect();
    for pack in &data {
        for at in (5000..pack.metadata().expect("a file").len()).step_by(700_000) {
            let mut byte = [0];
            std::os::unix::fs::FileExt::read_exact_at(
                &std::fs::File::open(pack).expect("it opens"),
                &mut byte,
                at,
            )
            .expect("a byte");
            poke(pack, at, &[!byte[0]]);
        }
    }
    imager.run(&["verify", "--read-data", "--mark"]).expect_code(3);
    capture(&imager, &disk);
    let report = imager.json(&["prune", "--yes"]);
    assert!(bytes(&report, "healed_frames") > 0, "{report}");
    imager.ok(&["verify", "--read-data"]);
    (0..3).for_each(|_| drop(imager.ok(&["prune", "--yes"])));
    assert!(data.iter().all(|pack| !pack.exists()), "the damaged packs are gone");
    imager.ok(&["verify", "--read-data"]);
    imager.ok(&["verify"]);
    let target = scratch.file("target.img", DISK_MIB * MIB);
    imager.ok(&["restore", &format!("id:{id}"), "--bare-metal", "--to", &target, "--yes"]);
    let read = |path: &str| std::fs::read(path).expect("a file");
    assert!(read(&target) == read(&first));
    let exported = scratch.name("exported.img");
    imager.ok(&["export", &format!("id:{id}"), &exported, "--format", "raw"]);
    assert!(read(&exported) == read(&first));
    stand_alone(&imager.repository, &id, &scratch.name("alone.img"), &first);
}

/// The reader that lies in the repository finds what moved, too.
fn stand_alone(repository: &Path, id: &str, target: &str, expected: &str) {
    let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let has_zstd =
        Command::new(python).args(["-c", "import zstandard"]).output().is_ok_and(|o| o.status.success());
    if !has_zstd {
        return halfhour_tests::skip("python3 has no module zstandard");
    }
    let reader = repository.join("restore.py");
    let mut command = Command::new(python);
    command.arg("-B").arg(reader).arg(repository).args(["restore", &format!("id:{id}"), "--disk", "1"]);
    let output = command.args(["--output", target]).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(target).expect("a file") == std::fs::read(expected).expect("a file"));
}

#[test]
fn while_a_manifest_is_damaged_no_space_comes_back_and_it_says_how_to_go_on() {
    let scratch = Scratch::new();
    let (disk, imager) = (disk(&scratch), scratch.imager());
    let first = capture(&imager, &disk);
    change(&disk, 2, 0..8);
    capture(&imager, &disk);
    change(&disk, 3, 0..8);
    capture(&imager, &disk);
    let folder = imager.repository.join("captures/m");
    let manifests = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let damaged = manifests
        .into_iter()
        .find(|path| path.display().to_string().ends_with(&first))
        .expect("its manifest");
    poke(&damaged, 60, b"???");
    let said = imager.run(&["prune", "--keep-last", "1", "--yes"]);
    said.expect_code(3);
    assert!(said.stdout.contains("CANNOT BE READ") && said.stdout.contains("--remove"), "{said:?}");
    let before = packs(&imager.repository).len();
    imager.run(&["prune", "--yes"]).expect_code(3);
    assert_eq!(packs(&imager.repository).len(), before);
    imager.ok(&["prune", "--remove", &format!("id:{}", &first[..12]), "--yes"]);
    imager.ok(&["prune", "--yes"]);
    assert!(packs(&imager.repository).len() < before);
    imager.ok(&["verify", "--read-data"]);
}
