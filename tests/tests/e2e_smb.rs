//! Repositories on an SMB share: a real client (Debian's kernel in a guest) and a real server (Samba).

use halfhour_tests::Scratch;
use halfhour_tests::binary::built;
use halfhour_tests::file_server::{Export, FileServer, PASSWORD, USER};
use halfhour_tests::guest::{Guest, HOST};

#[test]
fn a_samba_share_conforms_with_two_clients() {
    let scratch = Scratch::new();
    let exports = [Export { name: "backup", folder: scratch.folder("backup"), is_writable: true }];
    let Some(builder) = Guest::builder() else { return };
    let Some(server) = FileServer::samba(&scratch, &exports, "") else { return };
    let mut guest = builder.network().module("cifs").program(built("halfhour-conformance")).boot();
    guest.set("IMAGER_SHARE_PASSWORD", PASSWORD);
    let url = format!("smb://{USER}@{HOST}:{}/backup/deep/er", server.port);
    println!("{}", guest.ok(&["halfhour-conformance", &url]));
    assert!(!guest.sh("cat /proc/mounts").contains("cifs"));
    guest.end();
}
