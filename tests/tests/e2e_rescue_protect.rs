//! The rescue environment's write protection around restores that end as nobody wanted: killed, or told twice to stop.
//! On disks at USB, which have their serial number from the USB device alone.

mod rescue;

use halfhour_tests::lab::{Machine, Share};
use halfhour_tests::{Scratch, judge, junk, need, recipe};
use rescue::{hardware, is_full, ready, sh, shell, start};
use std::path::Path;

/// Slow enough for a restore to be still running when it is looked at.
const SLOW: &str = "--yes --unprotect --progress none --limit 20K";

#[test]
fn disks_are_protected_again_when_a_restore_is_killed_and_others_go_on() {
    let scratch = Scratch::new();
    if !is_full() || !need::programs(&["sfdisk", "mkfs.fat", "mke2fs", "mkswap", "mcopy"]) {
        return;
    }
    let disk = recipe::machine(&scratch, "web1.img");
    let share = Share::new(&scratch);
    share.admin.ok(&["capture", &disk, "--machine", "web1", "--data", "used"]);
    let lost = ["one", "two"].map(|name| scratch.copy(&disk, name));
    let (from, len) = recipe::MACHINE[1];
    lost.iter().for_each(|disk| junk::over(Path::new(disk), from << 20, len << 20));
    // Two that say the same of themselves.
    let twins = ["three", "four"].map(|name| scratch.file(name, 8 << 20));
    let Some(start) = start(&scratch, "", "") else { return };
    let Some(hardware) = hardware(&scratch, "killed") else { return };
    let mut hardware = hardware.option("-device", "qemu-xhci,id=xhci");
    for (number, (disk, serial)) in
        lost.iter().chain(&twins).zip(["USB1", "USB2", "TWIN", "TWIN"]).enumerate()
    {
        let drive = format!("if=none,id=u{number},format=raw,cache=unsafe,file={disk}");
        let device = format!("usb-storage,bus=xhci.0,drive=u{number},serial={serial},id=stick{number}");
        hardware = hardware.option("-drive", &drive).option("-device", &device);
    }
    let mut machine = hardware.power_on(&start);
    shell(&mut machine);
    for line in share.share_settings("restorer", "restore").lines() {
        let (name, value) = line.split_once(" = ").expect("a setting");
        sh(&mut machine, &format!("export IMAGER_{}={value}", name.to_uppercase()));
    }

    let (code, said) = machine.run("imager restore web1 --to serial:TWIN --yes --unprotect --progress none");
    assert!(code == 64 && said.contains("serial:TWIN fits"), "{code}: {said}");
    let [one, other] = ["USB1", "USB2"].map(|serial| said_to_be(&mut machine, serial));

    // Of two restores one is killed.
    begin(&mut machine, "a", "serial:USB1 --volume 2");
    begin(&mut machine, "b", "serial:USB2 --volume 2");
    await_flags(&mut machine, &one, "0 1 0 1 1");
    await_flags(&mut machine, &other, "0 1 0 1 1");
    sh(&mut machine, "kill -9 $(cat /tmp/a.pid)");
    await_flags(&mut machine, &one, "1 1 1 1 1");
    // By themselves too, which the disk's own flag hides.
    sh(&mut machine, &format!("blockdev --setrw /dev/{one}"));
    assert_eq!(flags(&mut machine, &one), "0 1 1 1 1");
    sh(&mut machine, &format!("blockdev --setro /dev/{one}"));
    assert_eq!(flags(&mut machine, &other), "0 1 0 1 1", "the other one goes on");
    sh(&mut machine, "kill -0 $(cat /tmp/b.pid)");

    // Twice told to stop, it ends at once.
    sh(&mut machine, "kill -INT $(cat /tmp/b.pid); sleep 0.2; kill -INT $(cat /tmp/b.pid) || true");
    await_flags(&mut machine, &other, "1 1 1 1 1");
    sh(&mut machine, "grep -c 'a restore ended early; protected again: /dev/' /run/halfhour/log");

    // What a person took off stays off; the rest is as ever.
    sh(&mut machine, &format!("blockdev --setrw /dev/{other}"));
    begin(&mut machine, "d", "serial:USB2 --volume 2");
    await_flags(&mut machine, &other, "0 1 0 1 1");
    sh(&mut machine, "kill -9 $(cat /tmp/d.pid)");
    await_flags(&mut machine, &other, "0 1 1 1 1");

    // All of it, in the end.
    let line = "imager restore web1 --to serial:USB1 --yes --unprotect --progress none";
    sh(&mut machine, line);
    assert_eq!(flags(&mut machine, &one), "1 1 1 1 1");
    machine.power_off();
    let bytes = |disk: &str, volume: usize| {
        let (from, len) = recipe::MACHINE[volume];
        judge::digest(disk, from << 20, len << 20)
    };
    for lost in &lost {
        assert_eq!(bytes(lost, 2), bytes(&disk, 2), "the data volume was touched");
    }
    assert_ne!(bytes(&lost[1], 1), bytes(&disk, 1), "only one was restored");
}

/// Starts a restore of this, which does not end soon.
fn begin(machine: &mut Machine, name: &str, to: &str) {
    // In a session of its own, so that the shell says nothing of its end.
    let line = format!(
        "setsid sh -c 'echo $$ >/tmp/{name}.pid; exec imager restore web1 --to {to} {SLOW} >/tmp/{name}.log 2>&1' &"
    );
    machine.type_in(&format!("{line}\n"));
    ready(machine);
}

/// The kernel's name of the disk with this serial number, by what `imager` says of it.
fn said_to_be(machine: &mut Machine, serial: &str) -> String {
    let said = sh(
        machine,
        "for n in sda sdb sdc sdd; do imager inspect /dev/$n | grep -o 'serial [^,]*' | sed \"s/^/$n /\"; done",
    );
    println!("{said}");
    let line = said.lines().find(|line| line.contains(serial)).expect("the disk");
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// Whether a disk and its four partitions refuse writes.
fn flags(machine: &mut Machine, disk: &str) -> String {
    let said = sh(
        machine,
        &format!("blockdev --getro /dev/{disk} /dev/{disk}1 /dev/{disk}2 /dev/{disk}3 /dev/{disk}4"),
    );
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn await_flags(machine: &mut Machine, disk: &str, wanted: &str) {
    let mut found = String::new();
    for _ in 0..30 {
        found = flags(machine, disk);
        if found == wanted {
            return;
        }
        sh(machine, "sleep 1");
    }
    let logs = sh(machine, "cat /tmp/*.log; tail /run/halfhour/log");
    panic!("{disk}: {found}, not {wanted}: {logs}");
}
