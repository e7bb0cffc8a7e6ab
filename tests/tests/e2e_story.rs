//! The whole story of a server, under real firmware: it runs, the rescue medium captures it, its system is lost, the
//! medium puts it back, and it runs again by itself. Nobody touches a key.

use halfhour_tests::file_server::{Export, FileServer, PASSWORD, USER};
use halfhour_tests::lab::{Bus, Firmware, HOST, Hardware, Machine, Moment, Server, Share, Start, share};
use halfhour_tests::{Imager, Scratch, medium, need, tool};
use serde_json::json;

const SERIAL: &str = "LAB0001";
/// What stays as it is: all that the server does not need to start.
const DATA: &str = "/srv";

#[test]
fn a_server_comes_back_under_secure_boot() {
    comes_back_over_https(Firmware::SecureBoot, Bus::Virtio);
}

#[test]
fn a_server_comes_back_by_bios() {
    if is_full() {
        comes_back_over_https(Firmware::SeaBios, Bus::Nvme);
    }
}

#[test]
fn a_server_comes_back_over_smb() {
    if !is_full() {
        return;
    }
    let scratch = Scratch::new();
    let folder = scratch.folder("smb");
    let imager = Imager::new(scratch.path("admin"), folder.join("images"));
    imager.ok(&["init"]);
    let export = Export { name: "backup", folder, is_writable: true };
    let Some(samba) = FileServer::samba(&scratch, &[export], "") else { return };
    let url = format!("smb://{USER}@{HOST}:{}/backup/images", samba.port);
    let settings = format!("repo = '{url}'\nshare_password = '{PASSWORD}'\n");
    comes_back(&scratch, Firmware::Ovmf, Bus::Virtio, [&settings, &settings]);
    tool("chown", &["-R", "root", &scratch.name("smb")]);
    imager.ok(&["verify", "--all", "--read-data"]);
}

fn is_full() -> bool {
    if !need::full() {
        println!("skipped: HALFHOUR_FULL runs it");
    }
    need::full()
}

fn comes_back_over_https(firmware: Firmware, bus: Bus) {
    let scratch = Scratch::new();
    let there = Share::new(&scratch);
    let settings =
        ["machine:server", "restore"].map(|scope| there.share_settings(&scope.replace(':', "-"), scope));
    comes_back(&scratch, firmware, bus, settings.each_ref().map(String::as_str));
}

/// The whole story; `shares` are the settings that say where the share is, for the capture and for the restore.
fn comes_back(scratch: &Scratch, firmware: Firmware, bus: Bus, shares: [&str; 2]) {
    let Some(hardware) = Hardware::new(scratch, "server", firmware) else { return };
    let Some(server) = Server::build(scratch, &["--small"]) else { return };
    let hardware = hardware.disk(&server.disk, bus, SERIAL);
    let disk = format!("serial:{SERIAL}");

    let mut machine = hardware.power_on(&Start::Disk);
    Server::expect_login(&mut machine);
    let before = Server::health(&mut machine);
    machine.power_off();

    let capture = share::capture_settings(shares[0], "server", &disk);
    let Some(iso) = medium::iso(scratch, "capture", &capture, &[]) else { return };
    let mut machine = hardware.power_on(&Start::Cd(iso));
    machine.expect("halfhour: share open");
    machine.expect("halfhour: capture complete");
    machine.expect_power_off();
    drop(machine);

    let original = server.on(&scratch.copy(&server.disk, "original.img"));
    server.lose();
    let data = server.digest(DATA);
    let restore = share::restore_settings(shares[1], "server", &disk, "");
    let Some(iso) = medium::iso(scratch, "restore", &restore, &[]) else { return };
    let mut machine = hardware.power_on(&Start::Cd(iso));
    let started = machine.expect("halfhour: started");
    let network = machine.expect("halfhour: network");
    let open = machine.expect("halfhour: share open");
    let restored = machine.expect("halfhour: restore complete");
    let rebooting = machine.expect_restart();
    assert_eq!(server.digest(DATA), data, "the data volume is not written");
    original.assert_same_system(&server, scratch);
    machine.restart_from_disk();
    let login = Server::expect_login(&mut machine);
    assert_eq!(Server::health(&mut machine), before, "the server runs as it did");
    let share =
        shares[1].split_once("://").and_then(|(before, _)| before.rsplit('\'').next()).unwrap_or_default();
    tell_times((firmware, share), &machine, &[started, network, open, restored, rebooting, login]);
    machine.power_off();
}

/// One line of JSON: the seconds that each stage took, by the clock, and the processor time of all.
fn tell_times((firmware, share): (Firmware, &str), machine: &Machine, moments: &[Moment; 6]) {
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
            "firmware": format!("{firmware:?}"), "share": share, "seconds": stages, "total": stage(0.0, at(login)), "qemu_cpu_seconds": cpu,
        })
    );
}
