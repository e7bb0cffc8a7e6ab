//! Wrong targets, from inside the rescue medium on a machine with several disks: each is refused, and QEMU counts that
//! nothing was written to any of them.

use halfhour_tests::lab::{Bus, Firmware, Hardware, Server, Share, Start};
use halfhour_tests::{MIB, Scratch, medium, need, table, tool};

/// Refused for safety.
const REFUSED: i32 = 4;

#[test]
fn wrong_targets_are_refused_before_the_first_write() {
    if !need::full() {
        println!("skipped: HALFHOUR_FULL runs it");
        return;
    }
    let scratch = Scratch::new();
    let Some(hardware) = Hardware::new(&scratch, "wrong", Firmware::SeaBios) else { return };
    let Some(server) = Server::build(&scratch, &["--small"]) else { return };
    let share = Share::new(&scratch);
    share.admin.ok(&["capture", &server.disk, "--machine", "server", "--data", "used"]);
    let disks = [
        (server.disk.clone(), Bus::Virtio, "OWN"),
        (data_disk(&scratch), Bus::Virtio, "DATA"),
        (scratch.file("small.img", 1024 * MIB), Bus::Virtio, "SMALL"),
        (scratch.file("sectors.img", 4096 * MIB), Bus::Nvme4096, "SECTORS"),
    ];
    let hardware =
        disks.iter().fold(hardware, |hardware, (file, bus, serial)| hardware.disk(file, *bus, serial));
    let settings = format!("{}plain = true\n", share.share_settings("looker", "restore"));
    let Some(iso) = medium::iso(&scratch, "rescue", &settings, &[]) else { return };
    // As large as a stick, so that its size is not what it is refused for.
    std::fs::File::options()
        .write(true)
        .open(&iso)
        .and_then(|stick| stick.set_len(4096 * MIB))
        .expect("room");

    let mut machine = hardware.power_on(&Start::Usb(iso));
    machine.expect("Number (");
    machine.type_in("!\n");
    for line in settings.lines() {
        let Some((name, value)) = line.split_once(" = ") else { continue };
        machine.run(&format!("export IMAGER_{}={value}", name.to_uppercase()));
    }
    let (code, said) = machine.run("mount -t ext4 -o ro /dev/vda4 /mnt");
    assert_eq!(code, 0, "{said}");
    for (what, options) in [
        ("a volume that is mounted", "--to serial:OWN"),
        ("the disk with the data", "--to serial:DATA"),
        ("the disk with the data, as new", "--to serial:DATA --bare-metal"),
        ("a smaller disk", "--to serial:SMALL --bare-metal"),
        ("a disk with other sectors", "--to serial:SECTORS --bare-metal"),
        ("the medium", "--to /dev/sda"),
        ("the medium, as new", "--to /dev/sda --bare-metal"),
    ] {
        let (code, said) =
            machine.run(&format!("imager restore server {options} --yes --unprotect --progress none"));
        println!("{what}: {}", said.trim());
        assert_eq!(code, REFUSED, "{what}: {said}");
    }
    for number in 0..disks.len() {
        assert_eq!(machine.written_bytes(number), 0, "disk {number} is written");
    }
    assert_eq!(machine.medium_written_bytes(), 0, "the medium is written");
    machine.cut_power();
}

/// A disk as large as the server's with one filesystem in a partition.
fn data_disk(scratch: &Scratch) -> String {
    let disk = scratch.file("data.img", 3072 * MIB);
    table::write(&disk, "label: gpt\nstart=2048, type=linux\n");
    let options = ["-q", "-F", "-t", "ext4", "-E", "offset=1048576", &disk, "2048M"];
    tool("mke2fs", &options);
    disk
}
