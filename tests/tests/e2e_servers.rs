//! Servers whose system does not lie in a partition of ext4, under real firmware: each runs, is captured from the files of
//! its disks, loses its system, and comes back by the rescue medium. Nobody touches a key.

use halfhour_tests::lab::{Bus, Firmware, Hardware, Machine, Server, Share, Start, group, mirror};
use halfhour_tests::{Scratch, junk, medium, need, recipe};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;

const SERIALS: [&str; 2] = ["LAB0003", "LAB0004"];

#[test]
fn a_server_with_a_root_of_xfs_comes_back() {
    if !need::root() || !need::programs(&["mkfs.xfs", "xfs_repair"]) {
        return;
    }
    for how in need::sample("servers with a root of XFS", &["UEFI", "BIOS"], 1) {
        match how {
            "UEFI" => xfs_comes_back(Firmware::Ovmf, &["--small", "--root", "xfs"]),
            _ => xfs_comes_back(Firmware::SeaBios, &["--small", "--root", "xfs", "--mbr"]),
        }
    }
}

/// Its fstab, on XFS, says which volume holds data.
fn xfs_comes_back(firmware: Firmware, options: &[&str]) {
    let scratch = Scratch::new();
    let Some(disk) = recipe::server_disk(&scratch, options) else { return };
    let story = Story {
        scratch,
        firmware,
        disks: vec![disk],
        data: "/srv",
        loss: Loss::System,
        is_so: "stat -f -c %T / | grep -qx xfs",
    };
    let Some(captured) = story.comes_back() else { return };
    let root = captured["volumes"].as_array().expect("volumes").iter().find(|volume| volume["name"] == "/");
    assert_eq!(root.map(|root| &root["mode"]), Some(&json!("used")), "{captured}");
}

/// Its fstab lies in a subvolume, and says which volume holds data.
#[test]
fn a_server_with_a_root_of_btrfs_comes_back() {
    if !is_full() || !need::root() || !need::programs(&["mkfs.btrfs", "btrfs"]) {
        return;
    }
    let scratch = Scratch::new();
    let Some(disk) = recipe::server_disk(&scratch, &["--small", "--root", "btrfs"]) else { return };
    let is_so = "stat -f -c %T / | grep -qx btrfs && findmnt -no OPTIONS / | grep -q subvol=/@rootfs";
    let story = Story {
        scratch,
        firmware: Firmware::Ovmf,
        disks: vec![disk],
        data: "/srv",
        loss: Loss::System,
        is_so,
    };
    let Some(captured) = story.comes_back() else { return };
    let root = captured["volumes"].as_array().expect("volumes").iter().find(|volume| volume["name"] == "/");
    assert_eq!(root.map(|root| &root["mode"]), Some(&json!("used")), "{captured}");
}

#[test]
fn a_server_on_mirrors_comes_back() {
    mirrors(Loss::System);
}

#[test]
fn a_server_on_mirrors_comes_onto_empty_disks() {
    mirrors(Loss::Disks);
}

#[test]
fn a_server_in_a_volume_group_comes_back() {
    volume_group(Loss::System);
}

#[test]
fn a_server_in_a_volume_group_comes_onto_an_empty_disk() {
    volume_group(Loss::Disks);
}

/// By BIOS: /boot is on a mirror too.
fn mirrors(loss: Loss) {
    if !is_full() || !need::programs(&["mdadm"]) {
        return;
    }
    let scratch = Scratch::new();
    let Some(first) = recipe::server_disk(&scratch, &["--small", "--mbr", "--mirror"]) else { return };
    let disks = vec![first.clone(), format!("{first}.2")];
    if !mirror::make([&disks[0], &disks[1]]) {
        return;
    }
    // Each of the three lies on an array, and all arrays have both their members.
    let is_so = "for at in / /boot /srv; do findmnt -no SOURCE $at; done | grep -c /dev/md | grep -qx 3 && \
                 grep -cF '[UU]' /proc/mdstat | grep -qx 3";
    let story = Story { scratch, firmware: Firmware::SeaBios, disks, data: "/srv", loss, is_so };
    story.comes_back();
}

/// A system that is lost has not lost the label of its physical volume; an empty disk has.
fn volume_group(loss: Loss) {
    if !is_full() {
        return;
    }
    let scratch = Scratch::new();
    let Some(disk) = recipe::server_disk(&scratch, &["--small", "--group"]) else { return };
    if !group::make(&disk, 4) {
        return;
    }
    let is_so = "for at in / /srv; do findmnt -no SOURCE $at; done | grep -c /dev/mapper/server | grep -qx 2";
    let disks = vec![disk];
    let story = Story { scratch, firmware: Firmware::Ovmf, disks, data: "/srv", loss, is_so };
    story.comes_back();
}

fn is_full() -> bool {
    if !need::full() {
        println!("skipped: HALFHOUR_FULL runs it");
    }
    need::full()
}

/// What happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Its system is overwritten, and its data goes on living.
    System,
    /// Its disks are replaced by empty ones.
    Disks,
}

/// A server, and how it is told from others.
struct Story {
    scratch: Scratch,
    firmware: Firmware,
    disks: Vec<String>,
    /// What the data volume is called.
    data: &'static str,
    loss: Loss,
    /// A line of shell that succeeds in it, before and after.
    is_so: &'static str,
}

impl Story {
    /// The whole story; the report of the capture. `None`, with the reason printed, where it cannot be told.
    fn comes_back(&self) -> Option<Value> {
        let hardware = Hardware::new(&self.scratch, "server", self.firmware)?;
        let disks = self.disks.iter().zip(SERIALS);
        let hardware = disks.fold(hardware, |all, (disk, serial)| all.disk(disk, Bus::Virtio, serial));
        let mut machine = hardware.power_on(&Start::Disk);
        let before = self.health(&mut machine);
        machine.power_off();

        let servers: Vec<_> = self.disks.iter().map(|disk| self.look(disk)).collect();
        let share = Share::new(&self.scratch);
        let captured = self.capture(&servers, &share);
        let original: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(n, server)| server.on(&self.scratch.copy(&server.disk, &format!("original{n}"))))
            .collect();
        servers.iter().for_each(|server| self.lose(server));
        let data: Vec<_> = servers.iter().map(|server| server.digest(self.data)).collect();

        let targets: Vec<_> = (1..)
            .zip(&SERIALS[..servers.len()])
            .map(|(disk, serial)| format!("{disk}=serial:{serial}"))
            .collect();
        let more = if self.loss == Loss::Disks { "bare_metal = true\n" } else { "" };
        let settings = share.restore_settings("server", &targets.join("', '"), more);
        let iso = medium::iso(&self.scratch, "restore", &settings, &[])?;
        let mut machine = hardware.power_on(&Start::Cd(iso));
        machine.expect("halfhour: restore complete");
        machine.expect_restart();
        for ((server, original), data) in servers.iter().zip(&original).zip(&data) {
            let is_untouched = &server.digest(self.data) == data;
            assert_eq!(is_untouched, self.loss == Loss::System, "whether the data volume is as it was lost");
            original.assert_same_system(server, &self.scratch);
        }
        machine.restart_from_disk();
        assert_eq!(self.health(&mut machine), before, "the server runs as it did");
        machine.power_off();
        Some(captured)
    }

    fn health(&self, machine: &mut Machine) -> halfhour_tests::lab::Health {
        Server::expect_login(machine);
        let health = Server::health(machine);
        let (code, said) = machine.run(self.is_so);
        assert_eq!(code, 0, "{}: {said}", self.is_so);
        health
    }

    fn lose(&self, server: &Server) {
        let disk = Path::new(&server.disk);
        if self.loss == Loss::Disks {
            let len = disk.metadata().expect("the disk").len();
            return File::create(disk).and_then(|empty| empty.set_len(len)).expect("an empty disk");
        }
        server.lose();
        // Where neither ext4 nor md keeps anything, but a capture does: a restore of this volume would undo it.
        junk::poke(disk, server.at(self.data).start + 256, b"written since the capture");
    }

    /// One of its disks as it is now.
    fn look(&self, disk: &str) -> Server {
        let mut server = Server::look(&self.scratch, disk.to_owned());
        let data = server.volumes.iter().find(|volume| volume.at == self.data).expect("the data volume");
        assert_eq!(data.role, "data", "what is left alone");
        // What logical volumes lie in is not restored in place.
        server.volumes.retain(|volume| volume.kind != "LVM2_member");
        server
    }

    fn capture(&self, servers: &[Server], share: &Share) -> Value {
        let disks: Vec<_> = servers.iter().map(|server| server.disk.as_str()).collect();
        let captured =
            share.admin.json(&[&["capture", "--machine", "server", "--data", "used"], &disks[..]].concat());
        assert_eq!((&captured["consistency"], &captured["problems"]), (&json!("offline"), &json!([])));
        captured
    }
}
