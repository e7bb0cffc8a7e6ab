//! Repositories on an SMB share: a real client (Debian's kernel in a guest) and a real server (Samba).

mod mounted;

use halfhour_tests::file_server::{Export, FileServer, PASSWORD, USER};
use halfhour_tests::guest::{Guest, HOST};
use halfhour_tests::{Scratch, binary};
use mounted::{Setting, export, full};

fn setting(scratch: Scratch, exports: &[Export], more: &str) -> Option<Setting> {
    let server = FileServer::samba(&scratch, exports, more)?;
    let url = format!("smb://{USER}@{HOST}:{}/backup", server.port);
    let variables = &[("IMAGER_SHARE_PASSWORD", PASSWORD)];
    let connections = "grep -q TCP.status /proc/fs/cifs/DebugData && echo connected || true";
    Some(Setting { scratch, server, url, module: "cifs", variables, connections })
}

#[test]
fn a_samba_share_conforms_with_two_clients() {
    let scratch = Scratch::new();
    let exports = [export(&scratch, "backup")];
    let Some(setting) = setting(scratch, &exports, "") else { return };
    setting.conforms();
}

#[test]
fn a_server_is_imaged_over_smb_while_samba_dies_and_comes_back() {
    let scratch = Scratch::new();
    let exports = [export(&scratch, "backup")];
    let Some(mut setting) = setting(scratch, &exports, "") else { return };
    setting.survives();
}

#[test]
fn the_password_comes_from_a_file_or_a_command() {
    let Some(builder) = Guest::builder() else { return };
    let scratch = Scratch::new();
    let exports = [export(&scratch, "backup")];
    let Some(setting) = setting(scratch, &exports, "") else { return };
    let setting = Setting { variables: &[], ..setting };
    let mut guest = setting.boot(builder.program(binary::imager()));
    // The first line counts, whatever shells would make of it.
    guest.sh(&format!("cat > /tmp/right <<'END'\n{PASSWORD}\nwrong\nEND\necho wrong > /tmp/wrong"));
    let mut told = |code: i32, verb: &str, variables: &[&str], words: &str| {
        let command = ["imager", verb, "--json", "--patience", "0", "--repo", &setting.url];
        let ran = guest.run(&[&["env"], variables, &command].concat());
        ran.expect_code(code);
        let error = ran.json()["error"].clone();
        println!("{variables:?}: {error}");
        assert!(error["message"].to_string().contains(words), "{words:?} is not in {error}");
        assert!(code == 0 || error["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{error}");
    };
    told(12, "init", &[], "no password for the share");
    told(0, "init", &["IMAGER_SHARE_PASSWORD_FILE=/tmp/right"], "null");
    told(0, "list", &["IMAGER_SHARE_PASSWORD_COMMAND=cat /tmp/right"], "null");
    // What is said first counts: itself, a file, a command.
    let all = ["IMAGER_SHARE_PASSWORD_COMMAND=false", "IMAGER_SHARE_PASSWORD_FILE=/tmp/right"];
    told(0, "list", &all, "null");
    told(12, "list", &[all[1], "IMAGER_SHARE_PASSWORD=wrong"], "this password");
    for command in ["cat /tmp/wrong", "true", "echo"] {
        told(12, "list", &[&format!("IMAGER_SHARE_PASSWORD_COMMAND={command}")], "this password");
    }
    told(12, "list", &["IMAGER_SHARE_PASSWORD_FILE=/tmp/wrong"], "this password");
    told(12, "list", &["IMAGER_SHARE_PASSWORD_COMMAND=exit 3"], "IMAGER_SHARE_PASSWORD_COMMAND ended with");
    told(1, "list", &["IMAGER_SHARE_PASSWORD_FILE=/tmp/nowhere"], "password from /tmp/nowhere");
    guest.end();
}

#[test]
fn what_is_wrong_with_an_smb_share_is_told() {
    let Some(builder) = Guest::builder() else { return };
    let (scratch, old) = (Scratch::new(), Scratch::new());
    // Not in the scratch folder: that one goes before this is unmounted.
    let place = Scratch::new();
    let (full, _mounted) = full(&place);
    let readonly = Export { is_writable: false, ..export(&scratch, "readonly") };
    let private = export(&scratch, "private");
    let exports = [export(&scratch, "backup"), readonly, full, private];
    let more = "[private]\nvalid users = root";
    let Some(setting) = setting(scratch, &exports, more) else { return };
    let Some(smb1) = FileServer::samba(&old, &[export(&old, "backup")], "server max protocol = NT1") else {
        return;
    };
    let mut guest = setting.boot(builder.program(binary::imager()).program("setpriv"));
    let port = setting.server.port;
    let url = |place: &str| format!("smb://{USER}@{HOST}:{port}/{place}");
    setting.says(&mut guest, &format!("smb://{USER}@no-such-host/backup"), 5, "no address");
    setting.says(&mut guest, &format!("smb://{USER}@{HOST}:1/backup"), 5, "nobody answers");
    setting.says(&mut guest, &format!("smb://{USER}@{HOST}:{}/backup", smb1.port), 1, "no version");
    setting.says(&mut guest, &format!("smb://somebody@{HOST}:{port}/backup"), 12, "this user");
    setting.says(&mut guest, &url("nothing"), 10, "no such share");
    setting.says(&mut guest, &url("private/a"), 1, "let us into");
    setting.says(&mut guest, &url("readonly/a"), 1, "may not be written");
    setting.says(&mut guest, &url("full/a"), 1, "is full");
    setting.says(&mut guest, &format!("nfs://{HOST}:{port}/backup"), 1, "no nfs4 filesystem");
    let error = guest.imager(10, &["list", "--repo", &url("backup/nowhere")])["error"].clone();
    assert!(error["message"].to_string().contains("folder in it is not"), "{error}");
    let unprivileged = ["setpriv", "--reuid", "65534", "imager", "list", "--json", "--repo", &url("backup")];
    let ran = guest.run(&unprivileged);
    assert!(ran.expect_code(1).stdout.contains("only root may mount"), "{ran:?}");
    guest.set("IMAGER_SHARE_PASSWORD", "wrong");
    setting.says(&mut guest, &url("backup"), 12, "this password");
    guest.end();
}
