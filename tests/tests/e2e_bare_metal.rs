//! New hardware and bad luck, under real firmware: a server goes onto an empty larger disk, over the network without a
//! medium, and back onto its own disk although the power fails in the middle: a lost one, and one that runs and goes back
//! to what it was. `HALFHOUR_FULL` runs all of it.

use halfhour_tests::lab::{Bus, Firmware, Hardware, Machine, Server, Share, Start};
use halfhour_tests::{LoopDisk, MIB, Scratch, device, judge, junk, medium, need, table};
use std::fs;
use std::path::Path;

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
    lab.survives_cuts(&lost);
}

#[test]
fn a_rollback_that_loses_its_power_is_run_again() {
    let Some(lab) = Lab::new("HALFHOUR_CUTS") else { return };
    let Some(newer) = lab.newer() else { return };
    let Some(hardware) = Hardware::new(&lab.scratch, "newer", Firmware::SeaBios) else { return };
    let hardware = hardware.disk(&lab.scratch.copy(&newer.disk, "started.img"), Bus::Virtio, SERIAL);
    let mut machine = hardware.power_on(&Start::Disk);
    Server::expect_login(&mut machine);
    machine.power_off();
    lab.survives_cuts(&newer);
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
        share.admin.ok(&["capture", &server.disk, "--machine", "server", "--data", "used"]);
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

    /// A copy of the server that was used since: it starts, and its system and its boot volume are other ones.
    fn newer(&self) -> Option<Server> {
        if !need::root() {
            return None;
        }
        let newer = self.server.on(&self.scratch.copy(&self.server.disk, "newer.img"));
        let disk = LoopDisk::attach(&newer.disk, 512)?;
        // Nothing of it is needed to start: drivers of cards that the machine does not have, and a kernel's settings.
        for (at, folder, what) in
            [("/", "usr/lib/modules", "/drivers/net/ethernet/"), ("/boot", "", "/config-")]
        {
            let place = self.scratch.path("mounted");
            let number = newer.at(at).key.parse().expect("a partition's number");
            let mounted = device::mount(&disk.partition(number), &place, "rw");
            let written = use_files(&place.join(folder), what, 24 * MIB);
            fs::write(place.join("newer"), "newer").expect("it is mounted to be written");
            println!("newer: {} KiB of files below {at}{folder} are other ones", written >> 10);
            assert!(written > 0, "there is something to use");
            drop(mounted);
        }
        Some(newer)
    }

    /// Restores what is on the disk of `before`, while the power fails at random moments.
    fn survives_cuts(&self, before: &Server) {
        let settings = self.share.restore_settings("server", &format!("serial:{SERIAL}"), "");
        let Some(iso) = medium::iso(&self.scratch, "rescue", &settings, &[]) else { return };
        let start = Start::Cd(iso);
        let all = self.written_by_a_whole_restore(before, &start);
        let given = std::env::var("HALFHOUR_CUTS").ok().and_then(|cuts| cuts.parse().ok());
        let seed = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        println!("the power fails at moments of HALFHOUR_SEED={seed}");
        let mut random = junk::Junk::new(seed);
        for cut in 0..given.unwrap_or(10_u32) {
            self.survives_a_cut(before, &start, cut, 1 + random.number() % (all - 1));
        }
    }

    /// The bytes that a restore writes that nothing happens to.
    fn written_by_a_whole_restore(&self, before: &Server, start: &Start) -> u64 {
        let (_, mut machine) = self.restores(before, start, "whole");
        machine.expect("halfhour: restore complete");
        let written = machine.written_bytes(0);
        println!("a whole restore writes {} KiB", written >> 10);
        written
    }

    /// A copy of the disk of `before`, and a machine that begins to restore it.
    fn restores(&self, before: &Server, start: &Start, name: &str) -> (Hardware, Machine) {
        let disk = self.scratch.copy(&before.disk, "cut.img");
        let hardware = Hardware::new(&self.scratch, name, Firmware::SeaBios).expect("it was there before");
        let hardware = hardware.disk(&disk, Bus::Virtio, SERIAL);
        let mut machine = hardware.power_on(start);
        machine.expect("halfhour: running imager restore");
        (hardware, machine)
    }

    fn survives_a_cut(&self, before: &Server, start: &Start, number: u32, bytes: u64) {
        let (hardware, mut machine) = self.restores(before, start, &format!("cut{number}"));
        machine.wait_written(0, bytes);
        println!("cut {number}: after {} KiB", bytes >> 10);
        machine.cut_power();
        let target = before.on(&self.scratch.name("cut.img"));
        let data = before.digest("/srv");
        assert_eq!(target.digest("/srv"), data, "the data volume");
        let mut systems = target.volumes.iter().filter(|volume| volume.role == "os");
        if systems.all(|volume| judge::identity_at(&target.disk, volume.start, volume.len).is_empty()) {
            println!("cut {number}: no system is recognised");
            hardware.power_on(&Start::Disk).expect_no_start();
        } else {
            println!("cut {number}: a system is recognised: nothing may be missing");
            self.server.assert_same_system(&target, &self.scratch);
        }
        let mut machine = hardware.power_on(start);
        machine.expect("halfhour: restore complete");
        machine.expect_restart();
        assert_eq!(target.digest("/srv"), data, "the data volume");
        self.server.assert_same_system(&target, &self.scratch);
        assert_runs(&mut machine);
        machine.power_off();
    }
}

/// Gives files whose path contains `what` another content in the same place, `most` bytes of them; says how many.
fn use_files(folder: &Path, what: &str, most: u64) -> u64 {
    let mut written = 0;
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (kind, path) = (entry.file_type().expect("a kind"), entry.path());
        if written >= most {
            break;
        } else if kind.is_dir() {
            written += use_files(&path, what, most - written);
        } else if kind.is_file() && path.to_string_lossy().contains(what) {
            let len = entry.metadata().expect("a file").len();
            junk::over(&path, 0, len);
            written += len;
        }
    }
    written
}

/// The restored server starts by itself, and nothing fails.
fn assert_runs(machine: &mut Machine) {
    machine.restart_from_disk();
    Server::expect_login(machine);
    println!("{:?}", Server::health(machine));
}
