//! The rescue environment from a medium of which parts are unreadable: there is a shell, with the reason before it.

#[allow(dead_code, reason = "each test of the rescue environment takes what it needs")]
mod rescue;

use halfhour_tests::Scratch;
use halfhour_tests::lab::{Bus, Machine};
use rescue::{hardware, is_full, ready, sh, start_over};

/// What a test reads of the log.
const LOG: &str = "cat /run/halfhour/log";

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
