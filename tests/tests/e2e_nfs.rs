//! Repositories on an NFS export: a real client (Debian's kernel in a guest) and a real server (nfs-ganesha).

mod mounted;

use halfhour_tests::file_server::{Export, FileServer};
use halfhour_tests::guest::{Guest, HOST};
use halfhour_tests::{Scratch, binary, need};
use mounted::{Setting, export, full};

fn setting(scratch: Scratch, exports: &[Export], more: &str) -> Option<Setting> {
    let server = FileServer::ganesha(&scratch, exports, more)?;
    let url = format!("nfs://{HOST}:{}/backup", server.port);
    let connections = "grep -q ^v4 /proc/fs/nfsfs/servers && echo connected || true";
    Some(Setting { scratch, server, url, module: "nfsv4", variables: &[], connections })
}

#[test]
fn an_nfs_export_conforms_with_two_clients() {
    let scratch = Scratch::new();
    let exports = [export(&scratch, "backup")];
    let Some(setting) = setting(scratch, &exports, "") else { return };
    setting.conforms();
}

#[test]
fn a_server_is_imaged_over_nfs_while_ganesha_dies_and_comes_back() {
    let scratch = Scratch::new();
    let exports = [export(&scratch, "backup")];
    let Some(mut setting) = setting(scratch, &exports, "") else { return };
    setting.survives();
}

#[test]
fn a_server_that_has_only_an_older_version_is_taken() {
    for (versions, older) in [("0, 1", "4.1"), ("0", "4.0")] {
        let scratch = Scratch::new();
        let exports = [export(&scratch, "backup")];
        let limit = format!("Minor_Versions = {versions};");
        let Some(setting) = setting(scratch, &exports, &limit) else { return };
        if need::full() {
            setting.conforms();
        }
        let Some(builder) = Guest::builder() else { return };
        let mut guest = setting.boot(builder.program(binary::imager()));
        guest.imager(0, &["init", "--repo", &setting.url]);
        guest.imager(0, &["list", "--repo", &setting.url]);
        // What the server has indeed, asked with one version at a time.
        let port = setting.server.port;
        for version in ["4.2", "4.1", "4.0"] {
            let options = format!("vers={version},addr={HOST},clientaddr=10.0.2.15,port={port},softerr");
            let from = format!("{HOST}:/backup");
            guest.sh("mkdir -p /tmp/at");
            let ran = guest.run(&["mount", "-i", "-t", "nfs4", "-o", &options, &from, "/tmp/at"]);
            println!("{versions}: {version}: {}", ran.text());
            assert_eq!(ran.code == 0, version <= older, "{versions}: {version}: {ran:?}");
            if ran.code == 0 {
                guest.ok(&["umount", "/tmp/at"]);
            }
        }
        guest.end();
    }
}

#[test]
fn what_is_wrong_with_an_nfs_export_is_told() {
    let Some(builder) = Guest::builder() else { return };
    let scratch = Scratch::new();
    // Not in the scratch folder: that one goes before this is unmounted.
    let place = Scratch::new();
    let (full, _mounted) = full(&place);
    let readonly = Export { is_writable: false, ..export(&scratch, "readonly") };
    let exports = [export(&scratch, "backup"), readonly, full];
    let Some(setting) = setting(scratch, &exports, "") else { return };
    let mut guest = setting.boot(builder.program(binary::imager()));
    let port = setting.server.port;
    let url = |place: &str| format!("nfs://{HOST}:{port}/{place}");
    setting.says(&mut guest, "nfs://no-such-host/backup", 5, "no address");
    setting.says(&mut guest, &format!("nfs://{HOST}:1/backup"), 5, "nobody answers");
    setting.says(&mut guest, &url("nothing/a"), 10, "no such share");
    setting.says(&mut guest, &url("readonly/a"), 1, "may not be written");
    setting.says(&mut guest, &url("full/a"), 1, "is full");
    setting.says(&mut guest, &format!("smb://{HOST}:{port}/backup"), 1, "no cifs filesystem");
    guest.imager(10, &["list", "--repo", &url("backup/nowhere")]);
    guest.end();
}
