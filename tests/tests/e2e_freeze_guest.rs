//! Freezing on Debian's kernels, where everything may be frozen: an EFI system partition that does not know how, and a
//! volume of device-mapper.

use halfhour_tests::guest::{Disk, Guest, Kernel};
use halfhour_tests::{Scratch, binary, need, recipe};

#[test]
fn a_machine_with_an_efi_partition_and_device_mapper_freezes_and_thaws_whoever_dies() {
    let kernels = if need::full() { &Kernel::ALL[..] } else { &[Kernel::Own] };
    kernels.iter().filter(|kernel| kernel.is_there()).for_each(|kernel| freezes_and_thaws(*kernel));
}

fn freezes_and_thaws(kernel: Kernel) {
    let Some(builder) = Guest::builder() else { return };
    let scratch = Scratch::new();
    let disk = recipe::machine(&scratch, "machine.img");
    let programs = [binary::imager().to_owned(), binary::built("halfhour-freezer"), "dmsetup".into()];
    let builder = programs.into_iter().fold(builder, |builder, program| builder.program(program));
    let builder = builder.module("ext4").module("vfat").module("nls_ascii").module("dm_mod");
    let mut guest = builder.disk(&disk, Disk::Virtio, "SERVER1").kernel(kernel).boot();
    guest.expect_node("/dev/vda4");
    guest.set("DM_DISABLE_UDEV", "1");
    guest.sh("mount -t ext4 /dev/vda2 /mnt && mkdir -p /mnt/efi /mnt/data");
    guest.sh("mount -t vfat /dev/vda1 /mnt/efi");
    guest.sh("dmsetup create data --table \"0 $(cat /sys/block/vda/vda3/size) linear /dev/vda3 0\"");
    guest.sh("mount -t ext4 /dev/mapper/data /mnt/data");
    // What lies on the disk, through whatever lies between.
    let said = guest.ok(&["halfhour-freezer", "/run/records", "100", "4000", "3", "/dev/vda"]);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("open ") && lines[0].ends_with(" /mnt"), "the root last: {said}");
    assert_eq!(lines[0].split(' ').count(), 4, "{said}");
    assert!(lines[2].contains("1 unfreezable") && lines[6].contains("1 unfreezable"), "{said}");
    println!("{}", lines[6]);
    // Killed while frozen: the guard thaws. With the guard: the command does.
    let runs = if need::full() { 30 } else { 3 };
    for run in 0..runs {
        let with_guard = run % 3 == 2;
        let kill = if with_guard { "kill -9 $(cat /proc/$p/task/$p/children) $p" } else { "kill -9 $p" };
        let thaw = if with_guard { "imager thaw | grep -x 'thawed /mnt/data'" } else { ":" };
        let records = if with_guard { "/run/halfhour/frozen" } else { "/run/records" };
        guest.sh(&format!(
            "rm -f /out; halfhour-freezer {records} 30000 3900 1 /dev/vda >/out & p=$!
             until grep -q frozen /out; do sleep 0.02; done
             {kill}; wait $p || true; {thaw}
             for i in 1 2 3; do echo {run} >/mnt/x; echo {run} >/mnt/data/x; sync; done",
        ));
    }
    assert_eq!(guest.sh("ls /run/records /run/halfhour/frozen").matches('-').count(), 0, "no record is left");
    guest.sh("umount /mnt/data /mnt/efi /mnt && dmsetup remove data");
    guest.end();
}
