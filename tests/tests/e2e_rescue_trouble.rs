//! The rescue environment on a machine in which something does not work: disks that never answer, a medium of which
//! parts are unreadable. The next step is always there, with the reason before it.

mod rescue;

use halfhour_tests::Scratch;
use halfhour_tests::lab::{Bus, Machine};
use rescue::{hardware, is_full, ready, sh, shell, start, start_over};
use std::time::Duration;

/// What a test reads of the log.
const LOG: &str = "cat /run/halfhour/log";
/// Longer than any request waits, in nanoseconds.
const NEVER: u64 = 100_000_000_000_000;
/// Disks that never answer.
const HUNG: [(&str, &str); 3] =
    [("h1", "scsi-hd,bus=hba.0"), ("h2", "scsi-hd,bus=hba.0"), ("h3", "virtio-blk-pci")];

#[test]
fn disks_that_never_answer_keep_nobody_from_the_others() {
    let scratch = Scratch::new();
    if !is_full() {
        return;
    }
    let Some(start) = start(&scratch, "", "") else { return };
    let Some(hardware) = hardware(&scratch, "hung") else { return };
    // Not a disk at SATA: the kernel looks at those after every disk that was found before (`async_port_probe` in
    // drivers/ata/libata-core.c), which nobody can change from outside.
    let disk = scratch.junk("disk", 24 << 20);
    let mut hardware = hardware
        // The firmware leaves alone what it does not start from.
        .option("-boot", "strict=on")
        .option("-device", "virtio-scsi-pci,id=hba")
        .disk(&disk, Bus::Nvme, "GOOD");
    for (name, model) in HUNG {
        let drive = format!("driver=null-co,node-name={name},size=67108864,latency-ns={NEVER}");
        // With its geometry, which QEMU would read otherwise.
        let device = format!("{model},drive={name},serial=HUNG,cyls=8,heads=16,secs=63");
        hardware = hardware.option("-blockdev", &drive).option("-device", &device);
    }
    let mut machine = hardware.power_on(&start);
    let told = HUNG.map(|_| machine.expect("halfhour: failed: write-protecting ").clock);
    // Asked side by side, they have had their time together.
    assert!(told[HUNG.len() - 1] - told[0] < Duration::from_secs(8), "{told:?}");
    shell(&mut machine);
    assert_eq!(
        sh(&mut machine, &format!("{LOG} | grep -c 'does not answer'")).trim(),
        "3",
        "each is told once"
    );
    assert_eq!(sh(&mut machine, "blockdev --getro /dev/nvme0n1").trim(), "1");
    assert!(sh(&mut machine, "imager inspect /dev/nvme0n1").contains("GOOD"));
    machine.cut_power();
}

#[test]
fn a_medium_with_unreadable_parts_ends_in_a_shell_with_the_reason() {
    let scratch = Scratch::new();
    if !is_full() {
        return;
    }
    // Programs that were not read as they were written.
    let broken = [
        ("usr/bin/bootenv-console", "\u{7f}ELF and then nothing right"),
        ("usr/bin/imager", "\u{7f}ELF and then nothing right"),
    ];
    let Some(start) = start_over(&scratch, "", &broken) else { return };
    let Some(hardware) = hardware(&scratch, "broken") else { return };
    let disk = scratch.junk("disk", 24 << 20);
    let mut machine: Machine = hardware.disk(&disk, Bus::Virtio, "GOOD").power_on(&start);
    machine.expect("halfhour: failed: the console on /dev/ttyS0 ends again and again");
    machine.expect("here is a shell");
    ready(&mut machine);
    println!("{}", sh(&mut machine, LOG));
    assert_eq!(sh(&mut machine, "blockdev --getro /dev/vda").trim(), "1");
    machine.power_off();
}
