//! The whole story of a server, under real firmware: it runs, it is captured, its system is lost, it is put back, and it
//! runs again by itself.

use halfhour_tests::Scratch;
use halfhour_tests::lab::{Bus, Firmware, Hardware, Server, Start};

#[test]
fn a_server_starts_from_its_disk_by_bios() {
    starts(Firmware::SeaBios);
}

#[test]
fn a_server_starts_from_its_disk_by_uefi() {
    starts(Firmware::SecureBoot);
}

fn starts(firmware: Firmware) {
    let scratch = Scratch::new();
    let Some(hardware) = Hardware::new(&scratch, "server", firmware) else { return };
    let Some(server) = Server::build(&scratch, &["--small"]) else { return };
    let mut machine = hardware.disk(&server.disk, Bus::Virtio, "LAB0001").power_on(&Start::Disk);
    Server::expect_login(&mut machine);
    println!("{:?}", Server::health(&mut machine));
    machine.power_off();
}
