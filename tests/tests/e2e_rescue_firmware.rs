//! The boot menu of real firmware, from the rescue environment: captured with the disk, gone, and written again by the
//! restore of the partition that it starts.

#[expect(dead_code, reason = "each test of the rescue environment takes what it needs")]
mod rescue;

use halfhour_tests::lab::{Bus, Firmware, Hardware, Machine};
use halfhour_tests::{MIB, Scratch, judge, need, tool};
use rescue::{is_full, sh, shell, start};
use serde_json::{Value, json};

const FILE: &str = "\\EFI\\debian\\shimx64.efi";

/// A GPT disk with an EFI system partition of 40 MiB that holds a loader, at its own place and at the fallback path.
fn disk(scratch: &Scratch) -> String {
    let (disk, part) = (scratch.file("disk", 64 * MIB), scratch.name("esp"));
    tool("sh", &["-ec", "echo 2048,81920,U | sfdisk -q --label gpt \"$1\"", "sh", &disk]);
    tool("mkfs.vfat", &["-F", "16", "-C", &part, "40960"]);
    std::fs::write(scratch.path("loader"), b"MZ and so on").expect("a file");
    tool("mmd", &["-i", &part, "::EFI", "::EFI/debian", "::EFI/BOOT"]);
    for name in ["::EFI/debian/shimx64.efi", "::EFI/BOOT/BOOTX64.EFI"] {
        tool("mcopy", &["-i", &part, &scratch.name("loader"), name]);
    }
    tool(
        "dd",
        &[
            &format!("if={part}"),
            &format!("of={disk}"),
            "bs=1M",
            "seek=1",
            "conv=notrunc,sparse",
            "status=none",
        ],
    );
    disk
}

fn imager(machine: &mut Machine, words: &str) -> Value {
    let said = sh(machine, &format!("imager {words} --progress none --json"));
    let object = said.find('{').and_then(|from| serde_json::from_str(said.get(from..)?).ok());
    object.unwrap_or_else(|| panic!("no object: {said}"))
}

/// The entries' numbers in the firmware's order, as `efibootmgr` shows them, and what it says of our entry.
fn menu(machine: &mut Machine) -> (String, String) {
    let order = sh(machine, "efibootmgr | sed -n 's/^BootOrder: //p'").trim().to_owned();
    let entry = sh(machine, "efibootmgr -v | sed -n 's/^Boot\\(....\\)\\* debian/\\1/p'").trim().to_owned();
    (order, entry)
}

#[test]
fn a_boot_entry_comes_back_with_the_partition_that_it_starts() {
    let scratch = Scratch::new();
    if !is_full() || !need::programs(&["mkfs.vfat", "mcopy", "sfdisk"]) {
        return;
    }
    let Some(start) = start(&scratch, "", "") else { return };
    let Some(hardware) = Hardware::new(&scratch, "firmware", Firmware::Ovmf) else { return };
    let disk = disk(&scratch);
    let mut machine = hardware.disk(&disk, Bus::Virtio, "V1").power_on(&start);
    shell(&mut machine);
    sh(&mut machine, "export IMAGER_REPO=/tmp/repository IMAGER_STATE_DIR=/tmp/state");
    sh(&mut machine, &format!("efibootmgr -q -c -d /dev/vda -p 1 -L debian -l '{FILE}'"));
    let (_, before) = menu(&mut machine);
    assert!(before.contains("HD(1,GPT,") && before.contains(FILE), "{before}");
    sh(&mut machine, "imager init");
    imager(&mut machine, "capture serial:V1 --machine m");
    let shown = imager(&mut machine, "show m")["system"].clone();
    assert_eq!(
        (&shown["firmware"], &shown["uefi"]["secure_boot"]),
        (&json!("uefi"), &json!(false)),
        "{shown}"
    );
    // Both are lost: the entry, and what it starts.
    let number = before.get(..4).expect("a number");
    sh(&mut machine, &format!("efibootmgr -q -b {number} -B"));
    assert_eq!(menu(&mut machine).1, "");
    sh(&mut machine, "blockdev --setrw /dev/vda && blockdev --setrw /dev/vda1");
    sh(&mut machine, "dd if=/dev/zero of=/dev/vda1 bs=1M count=4 conv=fsync 2>/dev/null");
    sh(&mut machine, "blockdev --setro /dev/vda1 && blockdev --setro /dev/vda");
    let restore = "restore m --to serial:V1 --yes --unprotect";
    let report = imager(&mut machine, restore);
    assert_eq!(report["warnings"], json!([]), "{report}");
    let entries = &report["firmware_entries"];
    assert_eq!((&entries[0]["file"], &entries[0]["write"]), (&json!(FILE), &json!(true)), "{report}");
    let checks = report["boot"].as_array().expect("checks");
    assert!(checks.len() == 2 && checks.iter().all(|check| check["ok"] == true), "{report}");
    let (order, after) = menu(&mut machine);
    assert!(after == before && order.starts_with(number), "{before}, then {order}: {after}");
    // What is there is not written twice.
    let again = imager(&mut machine, restore);
    assert_eq!(again["firmware_entries"][0]["write"], false, "{again}");
    assert_eq!(menu(&mut machine), (order, after));
    machine.power_off();
    let part = scratch.name("restored");
    judge::extract(&disk, MIB, 40 * MIB, &part);
    assert!(tool("mdir", &["-b", "-i", &part, "::EFI/debian"]).contains("shimx64.efi"));
}
