//! UEFI starts the rescue medium by HTTP: it fetches the ISO from `netshare serve --boot` and starts from that as from a CD
//! (UEFI 2.10, 24.7.2). The files for TFTP are no way here: Debian's signed GRUB, loaded by HTTP, sets up no network.

use halfhour_tests::lab::{Firmware, HOST, Hardware, Start};
use halfhour_tests::{Scratch, ShareServer, medium, need};

#[test]
fn uefi_starts_it_by_http() {
    if !need::full() {
        println!("skipped: HALFHOUR_FULL runs it");
        return;
    }
    let scratch = Scratch::new();
    let Some(hardware) = Hardware::new(&scratch, "http", Firmware::SecureBoot) else { return };
    let folder = scratch.folder("boot");
    let Some(iso) = medium::iso(&scratch, "rescue", "", &[]) else { return };
    std::fs::rename(iso, folder.join("rescue.iso")).expect("one filesystem");
    let mut server = ShareServer::start(&scratch.path("share"));
    let url = format!("http://{HOST}:{}/rescue.iso", server.boot_from(&folder).port());
    // Nobody waits for what answers nothing here.
    let no = |what: &str| format!("name=opt/org.tianocore/{what}Support,string=n");
    let hardware = hardware.option("-fw_cfg", &no("IPv4PXE")).option("-fw_cfg", &no("IPv6PXE"));
    let mut machine = hardware.power_on(&Start::Network(scratch.folder("tftp"), url));
    machine.expect("halfhour: started");
    machine.expect("halfhour: network eth0 10.0.2.15");
    assert!(server.log().contains("object=\"boot/rescue.iso\" status=200"), "{}", server.log());
    machine.cut_power();
}
