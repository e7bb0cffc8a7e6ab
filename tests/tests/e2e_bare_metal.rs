//! New hardware and bad luck, under real firmware: a server goes onto an empty larger disk, over the network without a
//! medium, and back onto its own disk although the power fails in the middle. `HALFHOUR_FULL` runs all of it.

use halfhour_tests::junk::Junk;
use halfhour_tests::lab::{Bus, Firmware, Hardware, Machine, Server, Share, Start};
use halfhour_tests::{MIB, Scratch, judge, medium, need, table};

const SERIAL: &str = "LAB0002";
const LARGER_BYTES: u64 = 4 << 30;

#[test]
fn a_server_moves_to_a_larger_disk_by_bios() {
    let Some(lab) = Lab::new("HALFHOUR_FULL") else { return };
    lab.moves(Firmware::SeaBios, Bus::Virtio, |lab| {
        medium::iso(&lab.scratch, "rescue", &lab.settings(), &[]).map(Start::Usb)
    });
}

#[test]
fn a_server_moves_to_a_larger_disk_by_uefi_that_knows_nothing_of_it() {
    let Some(lab) = Lab::new("HALFHOUR_FULL") else { return };
    lab.moves(Firmware::Ovmf, Bus::Nvme, |lab| {
        medium::iso(&lab.scratch, "rescue", &lab.settings(), &[]).map(Start::Cd)
    });
}

#[test]
fn a_server_comes_over_the_network_by_bios_and_http() {
    let Some(mut lab) = Lab::new("HALFHOUR_FULL") else { return };
    let folder = lab.scratch.folder("tftp");
    let Some(files) = medium::boot_files(&lab.scratch, "boot", &lab.settings(), &[]) else { return };
    let place = lab.share.server.boot_from(&files);
    let script = format!("http://10.0.2.2:{}/boot.ipxe", place.port());
    lab.moves(Firmware::SeaBios, Bus::Virtio, |_| Some(Start::Network(folder, script)));
}

#[test]
fn a_server_comes_over_the_network_by_uefi_and_tftp() {
    let Some(lab) = Lab::new("HALFHOUR_FULL") else { return };
    lab.moves(Firmware::SecureBoot, Bus::Virtio, |lab| {
        let files = medium::boot_files(&lab.scratch, "boot", &lab.settings(), &[])?;
        Some(Start::Network(files, "bootx64.efi".to_owned()))
    });
}

#[test]
fn a_restore_that_loses_its_power_is_run_again() {
    let Some(lab) = Lab::new("HALFHOUR_CUTS") else { return };
    let lost = lab.server.on(&lab.scratch.copy(&lab.server.disk, "lost.img"));
    lost.lose();
    let settings = lab.share.restore_settings("server", &format!("serial:{SERIAL}"), "");
    let Some(iso) = medium::iso(&lab.scratch, "rescue", &settings, &[]) else { return };
    let start = Start::Cd(iso);
    let all = lab.written_by_a_whole_restore(&lost, &start);
    let given = std::env::var("HALFHOUR_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    let seed = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("the power fails at moments of HALFHOUR_SEED={seed}");
    let mut junk = Junk::new(seed);
    for cut in 0..given.unwrap_or(10_u32) {
        lab.survives_a_cut(&lost, &start, cut, junk.number() % all);
    }
}

/// A captured server that never ran.
struct Lab {
    scratch: Scratch,
    server: Server,
    share: Share,
}

impl Lab {
    /// `None`, with the reason printed, where it cannot run, or is not asked for by this variable or in full.
    fn new(variable: &str) -> Option<Self> {
        if !need::full() && std::env::var_os(variable).is_none() {
            println!("skipped: HALFHOUR_FULL runs it");
            return None;
        }
        let scratch = Scratch::new();
        let server = Server::build(&scratch, &["--small"])?;
        let share = Share::new(&scratch);
        share.admin.ok(&["capture", &server.disk, "--machine", "server"]);
        Some(Self { scratch, server, share })
    }

    fn settings(&self) -> String {
        self.share.restore_settings("server", &format!("serial:{SERIAL}"), "bare_metal = true\n")
    }

    /// Onto an empty larger disk, from what `start` makes.
    fn moves(&self, firmware: Firmware, bus: Bus, start: impl FnOnce(&Self) -> Option<Start>) {
        let disk = self.scratch.file("larger.img", LARGER_BYTES);
        let Some(hardware) = Hardware::new(&self.scratch, "new", firmware) else { return };
        let Some(start) = start(self) else { return };
        let hardware = hardware.disk(&disk, bus, SERIAL);
        let mut machine = hardware.power_on(&start);
        machine.expect("halfhour: share open");
        machine.expect("halfhour: restore complete");
        machine.expect_restart();
        assert!(table::is_sound_gpt(&disk), "sgdisk's verdict");
        let moved = self.server.on(&disk);
        self.server.assert_same_system(&moved, &self.scratch);
        assert_runs(&mut machine);
        machine.power_off();
    }

    /// The bytes that a restore writes that nothing happens to.
    fn written_by_a_whole_restore(&self, lost: &Server, start: &Start) -> u64 {
        let (_, mut machine) = self.restores(lost, start, "whole");
        machine.expect("halfhour: restore complete");
        let written = machine.written_bytes(0);
        println!("a whole restore writes {} MiB", written / MIB);
        written
    }

    /// A copy of the lost server's disk, and a machine that begins to restore it.
    fn restores(&self, lost: &Server, start: &Start, name: &str) -> (Hardware, Machine) {
        let disk = self.scratch.copy(&lost.disk, "cut.img");
        let hardware = Hardware::new(&self.scratch, name, Firmware::SeaBios).expect("it was there before");
        let hardware = hardware.disk(&disk, Bus::Virtio, SERIAL);
        let mut machine = hardware.power_on(start);
        machine.expect("halfhour: running imager restore");
        (hardware, machine)
    }

    fn survives_a_cut(&self, lost: &Server, start: &Start, number: u32, bytes: u64) {
        let (hardware, mut machine) = self.restores(lost, start, &format!("cut{number}"));
        machine.wait_written(0, bytes);
        println!("cut {number}: after {} KiB", bytes >> 10);
        machine.cut_power();
        let target = lost.on(&self.scratch.name("cut.img"));
        let data = lost.digest("/srv");
        assert_eq!(target.digest("/srv"), data, "the data volume");
        // The system's volume is put back before those it starts from, so it may be whole already.
        let root = target.at("/");
        if judge::identity_at(&target.disk, root.start, root.len).is_empty() {
            println!("cut {number}: no system is recognised");
        } else {
            let disks = (self.server.disk.as_str(), target.disk.as_str());
            let what = "a system that is recognised is whole";
            judge::assert_same_bytes((disks.0, root.start), (disks.1, root.start), &root.used, what);
        }
        hardware.power_on(&Start::Disk).expect_no_start();

        let mut machine = hardware.power_on(start);
        machine.expect("halfhour: restore complete");
        machine.expect_restart();
        assert_eq!(target.digest("/srv"), data, "the data volume");
        self.server.assert_same_system(&target, &self.scratch);
        assert_runs(&mut machine);
        machine.power_off();
    }
}

/// The restored server starts by itself, and nothing fails.
fn assert_runs(machine: &mut Machine) {
    machine.restart_from_disk();
    Server::expect_login(machine);
    println!("{:?}", Server::health(machine));
}
