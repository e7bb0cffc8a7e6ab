//! Shares whose servers are known by an address of version 6 alone.

use halfhour_tests::file_server::{Export, FileServer, PASSWORD, USER};
use halfhour_tests::guest::{Guest, HOST6};
use halfhour_tests::{Imager, MIB, Scratch, ShareServer, binary, junk};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn a_share_server_is_reached_by_its_address() {
    let scratch = Scratch::new();
    let server = ShareServer::start_at(&scratch.path("share"), LOOPBACK);
    let url = server.url("r");
    assert!(url.starts_with("https://[::1]:"), "{url}");
    let token = server.token("boss", "admin");
    let imager = Imager::new(scratch.path("state"), url.into()).with("IMAGER_TOKEN", &token);
    let disk = scratch.file("disk", MIB);
    junk::over(Path::new(&disk), 0, 1000);
    imager.ok(&["init"]);
    imager.ok(&["capture", &disk, "--machine", "m"]);
    let copy = scratch.file("copy", MIB);
    imager.ok(&["restore", "m", "--to", &copy, "--bare-metal", "--yes"]);
    assert!(std::fs::read(&disk).expect("a file") == std::fs::read(&copy).expect("a file"));
}

/// Waits until the guest has an address besides that of its link.
const ADDRESS: &str = "for n in $(seq 300); do ip -6 addr show dev eth0 scope site | grep -v tentative | grep -q inet6 \
     && exit 0; sleep 0.1; done; ip -6 addr; exit 1";

#[test]
fn file_servers_are_reached_by_their_addresses() {
    let Some(builder) = Guest::builder() else { return };
    let scratch = Scratch::new();
    let export = |name| Export { name, folder: scratch.folder(name), is_writable: true };
    let exports = [export("backup")];
    let Some(samba) = FileServer::samba(&scratch, &exports, "") else { return };
    let exports = [export("images")];
    let Some(ganesha) = FileServer::ganesha_at(LOOPBACK, &scratch, &exports, "") else { return };
    let builder = builder.network6().module("cifs").module("nfsv4").program(binary::imager());
    let mut guest = builder.boot();
    guest.set("IMAGER_SHARE_PASSWORD", PASSWORD);
    guest.sh(ADDRESS);
    for url in [
        format!("smb://{USER}@[{HOST6}]:{}/backup/a", samba.port),
        format!("nfs://[{HOST6}]:{}/images/a", ganesha.port),
    ] {
        guest.imager(0, &["init", "--repo", &url]);
        let listed = guest.imager(0, &["list", "--repo", &url]);
        assert!(listed["captures"].as_array().is_some_and(Vec::is_empty), "{listed}");
    }
    guest.end();
}
