//! The whole story of a server, under real firmware: it runs, the rescue medium captures it, its system is lost, the
//! medium puts it back, and it runs again by itself. Nobody touches a key.

use halfhour_tests::lab::{Bus, Firmware, Hardware, Machine, Moment, Server, Share, Start};
use halfhour_tests::{Scratch, medium, need};
use serde_json::json;

const SERIAL: &str = "LAB0001";
/// What stays as it is: all that the server does not need to start.
const DATA: &str = "/srv";

#[test]
fn a_server_comes_back_under_secure_boot() {
    comes_back(Firmware::SecureBoot, Bus::Virtio);
}

#[test]
fn a_server_comes_back_by_bios() {
    if need::full() {
        comes_back(Firmware::SeaBios, Bus::Nvme);
    } else {
        println!("skipped: HALFHOUR_FULL runs it");
    }
}

fn comes_back(firmware: Firmware, bus: Bus) {
    let scratch = Scratch::new();
    let Some(hardware) = Hardware::new(&scratch, "server", firmware) else { return };
    let Some(server) = Server::build(&scratch, &["--small"]) else { return };
    let hardware = hardware.disk(&server.disk, bus, SERIAL);
    let share = Share::new(&scratch);

    let mut machine = hardware.power_on(&Start::Disk);
    Server::expect_login(&mut machine);
    let before = Server::health(&mut machine);
    machine.power_off();

    let capture = share.capture_settings("server", &format!("serial:{SERIAL}"));
    let Some(iso) = medium::iso(&scratch, "capture", &capture, &[]) else { return };
    let mut machine = hardware.power_on(&Start::Cd(iso));
    machine.expect("halfhour: share open");
    machine.expect("halfhour: capture complete");
    machine.expect_power_off();
    drop(machine);

    let original = server.on(&scratch.copy(&server.disk, "original.img"));
    server.lose();
    let data = server.digest(DATA);
    let restore = share.restore_settings("server", &format!("serial:{SERIAL}"), "");
    let Some(iso) = medium::iso(&scratch, "restore", &restore, &[]) else { return };
    let mut machine = hardware.power_on(&Start::Cd(iso));
    let started = machine.expect("halfhour: started");
    let network = machine.expect("halfhour: network");
    let open = machine.expect("halfhour: share open");
    let restored = machine.expect("halfhour: restore complete");
    let rebooting = machine.expect_restart();
    assert_eq!(server.digest(DATA), data, "the data volume is not written");
    original.assert_same_system(&server, &scratch);
    machine.restart_from_disk();
    let login = Server::expect_login(&mut machine);
    assert_eq!(Server::health(&mut machine), before, "the server runs as it did");
    tell_times(firmware, &machine, &[started, network, open, restored, rebooting, login]);
    machine.power_off();
}

/// One line of JSON: the seconds that each stage took, by the clock, and the processor time of all.
fn tell_times(firmware: Firmware, machine: &Machine, moments: &[Moment; 6]) {
    let at = |moment: &Moment| moment.clock.as_secs_f64();
    let [started, network, open, restored, rebooting, login] = moments;
    // The kernel's clock starts when the firmware and GRUB are done.
    let console = machine.console();
    let uptime = console.split("] halfhour: started").next().and_then(|text| text.rsplit('[').next());
    let kernel = at(started) - uptime.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(0.0);
    let stage = |from: f64, to: f64| (10.0 * (to - from)).round() / 10.0;
    let stages = json!({
        "firmware and GRUB": stage(0.0, kernel),
        "rescue kernel and devices": stage(kernel, at(network)),
        "share open": stage(at(network), at(open)),
        "restore": stage(at(open), at(restored)),
        "reboot": stage(at(restored), at(rebooting)),
        "server to login": stage(at(rebooting), at(login)),
    });
    let cpu = login.cpu.as_secs();
    println!(
        "story: {}",
        json!({
            "firmware": format!("{firmware:?}"), "seconds": stages, "total": stage(0.0, at(login)), "qemu_cpu_seconds": cpu,
        })
    );
}
