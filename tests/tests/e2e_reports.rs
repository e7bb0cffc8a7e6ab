//! Reports of restores: who may put them, what they say of success and failure, and that they decide nothing.

use halfhour_tests::{Imager, MIB, Scratch, ShareServer, recipe};
use serde_json::{Value, json};
use std::path::PathBuf;

fn client(scratch: &Scratch, state: &str, url: &str, token: &str) -> Imager {
    Imager::new(scratch.path(state), PathBuf::from(url)).with("IMAGER_TOKEN", token)
}

fn reports(imager: &Imager, of: &str) -> Vec<Value> {
    imager.json(&["reports", of])["reports"].as_array().expect("a list").clone()
}

#[test]
fn a_restore_token_reports_of_its_machines_whatever_became_of_the_restore() {
    let scratch = Scratch::new();
    let server = ShareServer::start(&scratch.path("share"));
    let token = |scope: &str| server.token(&scope.replace([':', ','], "-"), scope);
    let url = server.url("default");
    let admin = client(&scratch, "admin", &url, &token("admin"));
    let disk = recipe::machine(&scratch, "machine.img");
    admin.ok(&["init"]);
    for machine in ["web", "db"] {
        admin.ok(&["capture", &disk, "--machine", machine, "--data", "used"]);
    }
    let restorer = client(&scratch, "restorer", &url, &token("restore:web"));
    let target = scratch.copy(&disk, "target.img");
    let small = scratch.file("small.img", 4 * MIB);
    let done = restorer.json(&["restore", "web", "--to", &target, "--yes", "--report"]);
    restorer.run_json(&["restore", "web", "--to", &small, "--yes", "--report"]).expect_code(4);
    restorer
        .run_json(&["restore", "web@2001-01-01T00:00Z", "--to", &target, "--yes", "--report"])
        .expect_code(11);
    restorer.ok(&["restore", "web", "--to", &target, "--plan", "--report"]);
    let found = reports(&restorer, "web");
    // Those of one second are in no order.
    let of = |code: u64| {
        let mut with = found.iter().filter(|report| report["exit_status"] == code);
        let one = with.next().unwrap_or_else(|| panic!("no report with {code}: {found:?}"));
        assert!(with.next().is_none(), "{found:?}");
        one
    };
    assert_eq!(found.len(), 3, "a plan is no restore: {found:?}");
    assert_eq!((&of(0)["plan"], &of(0)["result"]), (&done["plan"], &done), "what was printed");
    assert_eq!(of(0)["targets"][0]["path"], json!(target));
    assert_eq!((&of(4)["error"]["kind"], &of(4)["result"]), (&json!("denied"), &Value::Null));
    assert_eq!((&of(11)["capture"], &of(11)["targets"]), (&Value::Null, &json!([{ "asked": target }])));
    let text = restorer.ok(&["reports"]).stdout;
    assert!(text.lines().count() == 4 && text.contains("no usable partition table"), "{text}");
    // One in full, by the time that the list shows.
    let ended = of(0)["ended"].as_str().expect("a time");
    let one = restorer.ok(&["reports", &format!("web@{ended}")]).stdout;
    assert!(one.contains("\"exit_status\": 0"), "{one}");
    restorer.fails(1, &["reports", "web@2001-01-01T00:00:00Z"]);
    // Of another machine nothing is told, and nothing taken.
    restorer.fails(1, &["reports", "db"]);
    let machine = client(&scratch, "machine", &url, &token("machine:web"));
    machine.json(&["restore", "web", "--to", &target, "--yes", "--report"]);
    // Who may put them need not be one who may read them.
    assert_eq!(machine.fails(1, &["reports", "web"])["kind"], "denied");
    assert_eq!(reports(&admin, "web").len(), 4);
    assert_eq!(reports(&admin, "db").len(), 0);
    assert_eq!(admin.ok(&["reports", "db"]).stdout, "there are no reports of db\n");
    assert_eq!(admin.ok(&["list", "nobody"]).stdout, "there are no captures of nobody\n");
    assert!(admin.ok(&["list"]).stdout.starts_with("MACHINE"));
}

#[test]
fn a_report_that_cannot_be_put_is_a_warning_and_no_more() {
    let scratch = Scratch::new();
    let imager = Imager::new(scratch.path("state"), scratch.path("repository"));
    let disk = recipe::machine(&scratch, "machine.img");
    imager.ok(&["init"]);
    imager.ok(&["capture", &disk, "--machine", "web", "--data", "used"]);
    let target = scratch.copy(&disk, "target.img");
    // Where the folder should be is something else.
    std::fs::write(scratch.path("repository/reports"), b"in the way").expect("a file");
    let done = imager.json(&["restore", "web", "--to", &target, "--yes", "--report"]);
    assert!(done["warnings"].to_string().contains("no report was put"), "{done}");
    let small = scratch.file("small.img", 4 * MIB);
    let failed = imager.run(&["restore", "web", "--to", &small, "--yes", "--report"]);
    failed.expect_code(4);
    assert!(failed.stderr.contains("warning: no report was put"), "{failed:?}");
    // An id tells nobody's name where it is of no capture.
    let nobody = imager.run(&["restore", "id:0123456789", "--to", &target, "--yes", "--report"]);
    nobody.expect_code(11);
    assert!(nobody.stderr.contains("which machine"), "{nobody:?}");
}

#[test]
fn in_an_encrypted_repository_reports_are_sealed() {
    let scratch = Scratch::new();
    let imager =
        Imager::new(scratch.path("state"), scratch.path("repository")).with("IMAGER_PASSWORD", "a secret");
    let disk = recipe::machine(&scratch, "machine.img");
    imager.ok(&["init", "--encrypt"]);
    imager.ok(&["capture", &disk, "--machine", "web", "--data", "used"]);
    let target = scratch.copy(&disk, "target.img");
    imager.json(&["restore", "web", "--to", &target, "--yes", "--report"]);
    assert_eq!(reports(&imager, "web").len(), 1);
    let folder = scratch.path("repository/reports/web");
    let file = std::fs::read_dir(&folder).expect("a folder").flatten().next().expect("a report").path();
    let mut bytes = std::fs::read(&file).expect("a report");
    // FORMAT.md, section 6: the cipher of a frame.
    assert_eq!(bytes[10], 1);
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).expect("a report");
    let listed = imager.run_json(&["reports"]);
    listed.expect_code(3);
    assert_eq!(listed.json()["damaged"].as_array().map(Vec::len), Some(1));
}
