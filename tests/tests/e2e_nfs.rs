//! Repositories on an NFS export: a real client (Debian's kernel in a guest) and a real server (nfs-ganesha).

use halfhour_tests::Scratch;
use halfhour_tests::binary::built;
use halfhour_tests::file_server::{Export, FileServer};
use halfhour_tests::guest::{Guest, HOST};

#[test]
fn an_nfs_export_conforms_with_two_clients() {
    let scratch = Scratch::new();
    let exports = [Export { name: "backup", folder: scratch.folder("backup"), is_writable: true }];
    let Some(builder) = Guest::builder() else { return };
    let Some(server) = FileServer::ganesha(&scratch, &exports, "") else { return };
    let mut guest = builder.network().module("nfsv4").program(built("halfhour-conformance")).boot();
    let url = format!("nfs://{HOST}:{}/backup/deep/er", server.port);
    println!("{}", guest.ok(&["halfhour-conformance", &url]));
    guest.end();
}
