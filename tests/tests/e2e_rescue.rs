//! The rescue environment's first process, in a machine: write protection, consoles that come back, the power button.
//! One start for most of it, because starts take their time.

mod rescue;

use halfhour_tests::lab::{Bus, Machine};
use halfhour_tests::{Scratch, tool};
use rescue::{hardware, is_full, ready, sh, shell, start};
use serde_json::json;

/// Tells of each disk and partition whether it refuses writes; loop devices are memory, and a path of an NVMe disk has no node.
const PROTECTION: &str = "for d in /sys/class/block/*; do n=${d##*/}; case $n in loop*|sr*) continue;; esac; [ -e /dev/$n ] || continue; echo $n $(blockdev --getro /dev/$n); done";

#[test]
fn the_first_process_guards_disks_and_consoles_until_the_power_button() {
    let scratch = Scratch::new();
    let Some(start) = start(&scratch, "", "") else { return };
    let Some(hardware) = hardware(&scratch, "guard") else { return };
    let names = ["virtio", "sata", "nvme", "scsi", "usb", "hot-scsi", "hot-usb"];
    let disks = names.map(|name| disk(&scratch, name));
    let before = disks.each_ref().map(|disk| bytes(disk));
    let file =
        |id: &str, number: usize| format!("if=none,id={id},format=raw,cache=unsafe,file={}", disks[number]);
    let hardware = hardware
        .disk(&disks[0], Bus::Virtio, "V1")
        .disk(&disks[1], Bus::Ahci, "A1")
        .disk(&disks[2], Bus::Nvme, "N1")
        .option("-drive", &file("scsi", 3))
        .option("-drive", &file("usb", 4))
        .option("-drive", &file("hot-scsi", 5))
        .option("-drive", &file("hot-usb", 6))
        .option("-device", "virtio-scsi-pci,id=hba")
        .option("-device", "scsi-hd,bus=hba.0,drive=scsi,serial=S1")
        .option("-device", "qemu-xhci,id=xhci")
        .option("-device", "usb-storage,bus=xhci.0,drive=usb,serial=U1")
        // A drive without a disc is no disk, and no trouble.
        .option("-device", "ide-cd");
    let mut machine = hardware.power_on(&start);
    machine.expect("halfhour: started");
    machine.expect("halfhour: disks");
    shell(&mut machine);
    refuses_writes(&mut machine, 5);

    machine.execute(
        "device_add",
        &json!({ "driver": "scsi-hd", "bus": "hba.0", "drive": "hot-scsi", "id": "h1" }),
    );
    machine.execute(
        "device_add",
        &json!({ "driver": "usb-storage", "bus": "xhci.0", "drive": "hot-usb", "id": "h2" }),
    );
    sh(&mut machine, "until [ $(ls /sys/class/block | grep -c '^[sv]d.1$') = 6 ]; do sleep 1; done; sleep 1");
    refuses_writes(&mut machine, 7);

    // A mapping is a disk too, whatever its table says; and the shell finds the whole programs.
    sh(
        &mut machine,
        "modprobe dm_mod && echo '0 2048 linear /dev/vda 0' | DM_DISABLE_UDEV=1 dmsetup create lab",
    );
    sh(&mut machine, "until [ $(blockdev --getro /dev/dm-0) = 1 ]; do sleep 1; done");
    let again = "dd if=/dev/dm-0 of=/dev/dm-0 bs=4096 count=1 conv=fsync,notrunc 2>/dev/null";
    assert_ne!(machine.run(again).0, 0, "a mapping took a write");
    assert_eq!(machine.written_bytes(0), 0);
    // That is needed: what a person allows a mapping reaches the protected disk (the same bytes here).
    sh(&mut machine, &format!("blockdev --setrw /dev/dm-0; {again}"));
    assert_eq!(machine.written_bytes(0), 4096);
    sh(&mut machine, "[ $(blockdev --getro /dev/vda) = 1 ]; dmsetup remove lab");

    comes_back(&mut machine);
    machine.power_off();
    for ((disk, before), name) in disks.iter().zip(&before).zip(names) {
        assert!(bytes(disk) == *before, "{name} was written");
    }
}

/// A disk full of junk with a table and one partition.
fn disk(scratch: &Scratch, name: &str) -> String {
    let disk = scratch.junk(name, 24 << 20);
    tool("sh", &["-ec", "echo 2048,40960,L | sfdisk -q --wipe always --label gpt \"$1\"", "sh", &disk]);
    disk
}

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(path).expect("a disk")
}

/// So many disks with a partition each refuse writes, and nothing else is there.
fn refuses_writes(machine: &mut Machine, count: usize) {
    let said = sh(machine, PROTECTION);
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    assert_eq!(lines.len(), count * 2, "{lines:?}");
    for line in lines {
        let (name, flag) = line.split_once(' ').expect("a name and a number");
        assert_eq!(flag, "1", "{name}");
        let write = format!("dd if=/dev/zero of=/dev/{name} bs=4096 count=1 conv=fsync 2>/dev/null");
        assert_ne!(machine.run(&write).0, 0, "{name} took a write");
    }
}

/// The manager killed, then the program at the terminal.
fn comes_back(machine: &mut Machine) {
    machine.type_in("kill -9 $(pidof init | tr ' ' '\\n' | grep -vx 1)\n");
    machine.expect("halfhour: failed: the manager ended");
    machine.expect(" again");
    // Who is at the terminal stays there, and hears every signal.
    machine.type_in("\n");
    ready(machine);
    assert_eq!(sh(machine, "ls /proc/1/exe >/dev/null && cat /proc/1/comm").trim(), "init");
    assert_eq!(sh(machine, "grep -c 'SigBlk:.0*$' /proc/self/status").trim(), "1");
    machine.type_in("kill -9 $(pidof bootenv-console)\n");
    shell(machine);
}

#[test]
fn wrong_settings_start_nothing_and_are_told_until_enter() {
    let scratch = Scratch::new();
    if !is_full() {
        return;
    }
    let file = "repo = \"/nowhere\"\ncapture = \"web1\"\ntarget = \"serial:V1\"\nconfirm = \"yes\"\ntokn = \"hush\"\n";
    let Some(start) = start(&scratch, "", file) else { return };
    let Some(hardware) = hardware(&scratch, "wrong") else { return };
    let disk = disk(&scratch, "disk");
    let mut machine = hardware.disk(&disk, Bus::Virtio, "V1").power_on(&start);
    machine.expect("halfhour: failed: reading the settings");
    machine.expect("line 5");
    machine.expect("press Enter");
    assert!(!machine.console().contains("hush"));
    machine.type_in("\n");
    shell(&mut machine);
    assert_ne!(machine.run("grep -e imager /run/halfhour/log").0, 0, "nothing was run");
    // Ctrl-Alt-Del.
    let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
    machine.execute("send-key", &json!({ "keys": keys }));
    machine.expect_restart();
}
